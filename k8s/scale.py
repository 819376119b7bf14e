"""Change how many replicas an engine may have, on the running cluster."""

from __future__ import annotations

import math
from typing import Any

import yaml

from deployments.errors import OptionError
from k8s.cluster import Cluster, Document
from k8s.deploy import SERVICE, Say
from k8s.engines import group_of
from k8s.errors import Conflict, NotReady

MANAGER = "lipsync-k8s-scale"  # another name than that of `deploy`: it must not undo this without a word
TRIES = 5


def scale(cluster: Cluster, engine: str, least: int | None, most: int | None, say: Say) -> None:
    """New bounds for one engine. Nothing is started again but routers and API processes; jobs go on.

    The operator hands the application's config to the running cluster, but not the bounds of its worker groups, so the
    running cluster is changed too. Raises OptionError or ClusterError.
    """
    if least is None and most is None:
        raise OptionError("expected --min or --max, got neither")
    service = write(cluster, "RayService", SERVICE, lambda found: scale_service(found, engine, least, most))
    bounds = engine_bounds(service, engine)
    say(f"{engine}: {bounds['min_replicas']} to {bounds['max_replicas']} replicas")
    active = service.get("status", {}).get("activeServiceStatus", {}).get("rayClusterName")
    if active:
        found = write(cluster, "RayCluster", active, lambda found: scale_groups(found["spec"], engine, bounds, service))
        for group in groups_of(found["spec"], engine):
            say(f"{group['groupName']}: {group['minReplicas']} to {group['maxReplicas']} pods in {active}")
    say("the next `deploy` stops at the difference: put these numbers into the overlay's site.yaml to keep them")


def write(cluster: Cluster, kind: str, name: str, change: Any) -> Document:
    """Read, change, write back; again where somebody else was faster."""
    for attempt in range(TRIES):
        found = cluster.get(kind, name)
        if found is None:
            raise NotReady(f"expected {kind}/{name} in {cluster.namespace}, got none; `python -m k8s deploy` makes it")
        change(found)
        found["metadata"].pop("managedFields", None)
        try:
            return cluster.replace(found, MANAGER)
        except Conflict:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def scale_service(service: Document, engine: str, least: int | None, most: int | None) -> None:
    """The new bounds in the application's config and in the worker groups of clusters to come."""
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    engines = application["args"]["engines"]
    if engine not in engines:
        raise OptionError(f"expected an engine of {', '.join(engines)}; got {engine!r}")
    bounds = engines[engine]
    bounds["min_replicas"] = bounds["min_replicas"] if least is None else least
    bounds["max_replicas"] = bounds["max_replicas"] if most is None else most
    if not 0 <= bounds["min_replicas"] <= bounds["max_replicas"] or bounds["max_replicas"] < 1:
        raise OptionError(f"expected 0 <= min <= max and max >= 1, got {bounds['min_replicas']} and {bounds['max_replicas']}")
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False)
    scale_groups(service["spec"]["rayClusterConfig"], engine, bounds, service)


def scale_groups(cluster: dict[str, Any], engine: str, bounds: dict[str, int], service: Document) -> None:
    """As many pods as the replicas fill."""
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    options = next(entry["ray_actor_options"] for entry in application["deployments"] if entry["name"] == engine)
    for group in groups_of(cluster, engine):
        per_pod = max(1, int(1 / options["num_gpus"]))
        group["minReplicas"] = math.ceil(bounds["min_replicas"] / per_pod)
        group["maxReplicas"] = math.ceil(bounds["max_replicas"] / per_pod)
        group["replicas"] = max(group.get("replicas", 0), group["minReplicas"])


def groups_of(cluster: dict[str, Any], engine: str) -> list[dict[str, Any]]:
    """An engine's own worker group; none for an engine that shares the group `cpu`."""
    return [group for group in cluster["workerGroupSpecs"] if group["groupName"] == group_of(engine)]


def engine_bounds(service: Document, engine: str) -> dict[str, int]:
    """The bounds that a server's config states."""
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    bounds: dict[str, int] = application["args"]["engines"][engine]
    return bounds
