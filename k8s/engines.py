"""What follows from the table of engines: the application's config, and one GPU worker group per engine that uses a GPU.

An overlay says in `site.yaml` what only its operator can know; `serve.yaml` and `engines.yaml` beside it are written from
that and from the engines' own `deployment.py`, so a new engine needs no YAML by hand.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.engines.registry import engine_names, replica_settings
from deployments.engines.scaling import ReplicaSettings
from deployments.errors import OptionError
from k8s.render import HOME, read_yaml

HEAD = "# Written by `python -m k8s engines` from site.yaml and the table of engines. Change those, not this file.\n"
ON_CPU = {"group_cpu": 0.001}  # offered by the group `cpu` alone: else Serve puts replicas on GPU machines, and keeps those alive
API_CPUS = ROUTER_CPUS = 0.25  # not 0: a replica that needs nothing may be put on the head
GROUPS = "/spec/rayClusterConfig/workerGroupSpecs"
CHUNK_CPUS = 4  # beside every GPU: decoding, pasting and encoding


class EngineSite(BaseModel):
    """What an operator says of one engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int | None = Field(default=None, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)
    node_selector: dict[str, str] = Field(default_factory=dict)


class Site(BaseModel):
    """`site.yaml` of an overlay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: bool
    """Whether there are machines with GPUs; without, engines that want one are only served if they are named."""
    engines: Literal["all"] | tuple[str, ...] = "all"
    settings: dict[str, EngineSite] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Of all GPU groups."""
    serve: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `serve_app.app:build`, without the engines."""
    without_keys: bool = False
    """No API keys are wanted: nobody from outside reaches this one."""

    def served(self) -> dict[str, ReplicaSettings]:
        """The engines of this overlay with what their replicas need. Raises OptionError."""
        if self.engines != "all":
            return {name: self.settings_of(name) for name in self.engines}
        wanted = {name: self.settings_of(name) for name in engine_names()}
        return {name: settings for name, settings in wanted.items() if self.gpus or replica_settings(name).gpus == 0}

    def settings_of(self, name: str) -> ReplicaSettings:
        """An engine's own settings with this overlay's changes."""
        from serve_app.service.args import EngineArgs

        changes = self.settings.get(name, EngineSite())
        args = EngineArgs(min_replicas=changes.min_replicas, max_replicas=changes.max_replicas)
        merged = args.merged(name)
        return merged if self.gpus else replace(merged, gpus=0.0)


def read_site(overlay: Path) -> Site:
    """An overlay's site.yaml. Raises OptionError that names the field."""
    (found,) = read_yaml(overlay / "site.yaml")
    try:
        return Site.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"{overlay.name}/site.yaml: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def has_site(overlay: Path) -> bool:
    """Whether an overlay's engines are written for it."""
    return (overlay / "site.yaml").is_file()


def written(overlay: Path) -> dict[Path, str]:
    """The files of an overlay that follow from its site.yaml, with what must stand in them."""
    site = read_site(overlay)
    files = {overlay / "serve.yaml": HEAD + to_text(serve_config(site))}
    patch: list[dict[str, Any]] = [{"op": "test", "path": "/kind", "value": "RayService"}]  # an empty patch is an error
    patch += [{"op": "add", "path": f"{GROUPS}/-", "value": group} for group in gpu_groups(site)]
    files[overlay / "engines.yaml"] = HEAD + to_text(patch)
    return files


def stale(overlay: Path) -> list[str]:
    """Names of written files that are not as they must be."""
    return [path.name for path, text in written(overlay).items() if not path.is_file() or path.read_text() != text]


def check_written(overlay: Path) -> None:
    """Raise OptionError for an overlay that is behind the table of engines or its own site.yaml."""
    late = stale(overlay) if has_site(overlay) else []
    if late:
        raise OptionError(
            f"expected {' and '.join(late)} of {overlay.name} to follow from site.yaml and the engines; "
            f"run `python -m k8s engines {overlay.name}` and look at the difference"
        )


def check_keys(overlay: Path) -> None:
    """Raise OptionError for a server that others can reach and anybody may use."""
    site = read_site(overlay)
    if not site.without_keys and not site.serve.get("api", {}).get("api_keys"):
        raise OptionError(
            f"expected API keys in {overlay.name}/site.yaml under serve.api.api_keys: others can reach this server; "
            "make one with `lipsync key`, put its digest there, and run `python -m k8s engines`"
        )


def serve_config(site: Site) -> dict[str, Any]:
    """A config file of Ray Serve."""
    served = site.served()
    engines = {name: {"min_replicas": s.min_replicas, "max_replicas": s.max_replicas} for name, s in served.items()}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [
            {
                "name": "lipsync",
                "import_path": "serve_app.app:build",
                "route_prefix": "/",
                "args": {**site.serve, "engines": engines},
                "deployments": [
                    {"name": "api", "max_replicas_per_node": 1, "ray_actor_options": on_cpu(API_CPUS)},
                    {"name": "router", "max_replicas_per_node": 1, "ray_actor_options": on_cpu(ROUTER_CPUS)},
                    *({"name": name, "ray_actor_options": actor_options(name, s)} for name, s in served.items()),
                ],
            }
        ],
    }


def actor_options(name: str, settings: ReplicaSettings) -> dict[str, Any]:
    """What a replica holds. Said in full: when the application is built there may be no GPU yet, since groups start at 0."""
    if not settings.gpus:
        return on_cpu(settings.cpus)
    return {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "resources": {resource_of(name): settings.gpus}}


def on_cpu(cpus: float) -> dict[str, Any]:
    """What a replica holds that needs no GPU."""
    return {"num_cpus": cpus, "resources": dict(ON_CPU)}


def resource_of(engine: str) -> str:
    """Ray's name for a place in an engine's own worker group."""
    return f"engine_{engine}"


def group_of(engine: str) -> str:
    """Name of an engine's worker group."""
    return f"gpu-{engine.replace('_', '-')}"


def gpu_groups(site: Site) -> list[dict[str, Any]]:
    """One worker group per engine that uses a GPU, made after the group `cpu` of the base."""
    (service,) = read_yaml(HOME / "base" / "rayservice.yaml")
    (model,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return [gpu_group(model, name, settings, site) for name, settings in site.served().items() if settings.gpus]


def gpu_group(model: dict[str, Any], name: str, settings: ReplicaSettings, site: Site) -> dict[str, Any]:
    """The worker group of one engine: as many pods as its replicas fill, none while nobody asks."""
    per_pod = max(1, int(1 / settings.gpus))  # replicas on one GPU
    pods = math.ceil(settings.max_replicas / per_pod)
    template = copy.deepcopy(model["template"])
    spec = template["spec"]
    spec["nodeSelector"] = {**site.node_selector, **site.settings.get(name, EngineSite()).node_selector}
    spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    cpus = str(max(CHUNK_CPUS, math.ceil(per_pod * settings.cpus)))
    needs = {"cpu": cpus, "memory": "32Gi", "nvidia.com/gpu": "1"}
    spec["containers"][0]["resources"] = {"requests": needs, "limits": dict(needs)}
    return {
        "groupName": group_of(name),
        "replicas": 0,
        "minReplicas": math.ceil(settings.min_replicas / per_pod),
        "maxReplicas": pods,
        "idleTimeoutSeconds": 300,
        "rayStartParams": dict(model["rayStartParams"]),
        "resources": {"CPU": cpus, "GPU": "1", resource_of(name): "1"},
        "template": template,
    }


def to_text(found: Any) -> str:
    """YAML without anchors."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(found, Dumper=Plain, sort_keys=False, width=120)
