"""Every overlay, as a cluster would get it: known fields only, and parts that fit one another."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import crd_schema
import jsonschema
import kubernetes_validate
import pytest
import yaml

from deployments.engines.registry import engine_names, replica_settings
from deployments.errors import OptionError
from k8s.engines import group_of, read_site, resource_of, stale, written
from k8s.render import OVERLAYS, render

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))
BUILT_IN = "1.33"  # of Kubernetes
FOREIGN = {"RayService": "rayservices", "ServiceMonitor": "servicemonitors", "PodMonitor": "podmonitors"}


@cache
def documents(overlay: str) -> list[dict[str, Any]]:
    return render(OVERLAYS / overlay)


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(overlay) if document["kind"] == kind]


def cluster(overlay: str) -> dict[str, Any]:
    (service,) = of_kind(overlay, "RayService")
    return service["spec"]["rayClusterConfig"]


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Pod templates of the head and of every worker group."""
    found = {"headgroup": cluster(overlay)["headGroupSpec"]["template"]}
    return found | {group["groupName"]: group["template"] for group in cluster(overlay)["workerGroupSpecs"]}


def serve_config(overlay: str) -> dict[str, Any]:
    (service,) = of_kind(overlay, "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def container(template: dict[str, Any]) -> dict[str, Any]:
    (only,) = template["spec"]["containers"]
    return only


@pytest.mark.parametrize("overlay", NAMES)
def test_we_render_what_kubectl_renders(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    told = subprocess.run(["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=True).stdout

    assert by_name(documents(overlay)) == by_name(list(yaml.safe_load_all(told)))


def by_name(found: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """In no order; what is secret decoded, since kubectl breaks its lines."""
    made = {(document["kind"], document["metadata"]["name"]): dict(document) for document in found}
    for document in made.values():
        if document["kind"] == "Secret":
            document["data"] = {key: base64.b64decode(value) for key, value in document["data"].items()}
    return made


@pytest.mark.parametrize("overlay", NAMES)
def test_operators_know_every_field(overlay: str) -> None:
    for kind, plural in FOREIGN.items():
        for document in of_kind(overlay, kind):
            jsonschema.Draft202012Validator(crd_schema.load(plural)).validate(document)


def test_a_misspelt_field_would_be_seen() -> None:
    (service,) = json.loads(json.dumps(of_kind("gpu-prod", "RayService")))
    schema = jsonschema.Draft202012Validator(crd_schema.load("rayservices"))
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["idleTimeoutSecondz"] = 60
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "x"
    del service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]
    said = " ".join(error.message for error in schema.iter_errors(service))
    assert "idleTimeoutSecondz" in said and "'x' is not of type 'integer'" in said and "'template' is a required" in said


@pytest.mark.parametrize("overlay", NAMES)
def test_the_operators_further_rules_are_about_fields_that_we_leave_alone(overlay: str) -> None:
    """The rules in CEL of KubeRay 1.7: what may not change, who manages, and when a job's cluster is deleted."""
    (service,) = of_kind(overlay, "RayService")
    told = json.dumps(service)
    assert "managedBy" not in told and "deletionStrategy" not in told
    assert cluster(overlay)["gcsFaultToleranceOptions"]["backend"] == "redis", "cannot be changed later"


@pytest.mark.parametrize("overlay", NAMES)
def test_kubernetes_knows_every_field(overlay: str) -> None:
    for document in documents(overlay):
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, BUILT_IN, strict=True)


@pytest.mark.parametrize("overlay", NAMES)
def test_pod_templates_are_pods(overlay: str) -> None:
    for name, template in pods(overlay).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, BUILT_IN, strict=True)


@pytest.mark.parametrize("overlay", NAMES)
def test_engine_files_follow_from_the_table_of_engines(overlay: str) -> None:
    late = stale(OVERLAYS / overlay)
    assert not late, f"an engine or a site.yaml changed: run `python -m k8s engines` and commit {late} of {overlay}"


def test_an_engine_that_wants_a_gpu_gets_a_group_of_its_own() -> None:
    groups = {group["groupName"]: group for group in cluster("gpu-prod")["workerGroupSpecs"]}
    wanting = [name for name in engine_names() if replica_settings(name).gpus > 0]
    assert wanting and set(groups) == {"cpu", *map(group_of, wanting)}
    deployments = {
        entry["name"]: entry["ray_actor_options"] for entry in serve_config("gpu-prod")["applications"][0]["deployments"]
    }
    for name in engine_names():
        settings, options = replica_settings(name), deployments[name]
        assert options.get("num_gpus", 0) == settings.gpus and options["num_cpus"] == settings.cpus
        if not settings.gpus:
            continue
        group, limits = groups[group_of(name)], container(groups[group_of(name)]["template"])["resources"]["limits"]
        per_pod = int(limits["nvidia.com/gpu"]) / settings.gpus
        assert per_pod >= 1 and per_pod == int(per_pod), "replicas fill whole GPUs"
        assert group["minReplicas"] == 0 and group["maxReplicas"] * per_pod >= settings.max_replicas
        assert group["resources"]["GPU"] == limits["nvidia.com/gpu"] and group["resources"]["CPU"] == limits["cpu"]
        assert per_pod * settings.cpus <= float(limits["cpu"]), "its replicas fit a pod"
        held = options["resources"][resource_of(name)]
        assert held * per_pod <= float(group["resources"][resource_of(name)]), "only its own replicas fit its group"
        assert container(group["template"])["resources"]["requests"] == limits
        taints = [entry["key"] for entry in group["template"]["spec"]["tolerations"]]
        assert taints == ["nvidia.com/gpu"] and group["template"]["spec"]["nodeSelector"]


@pytest.mark.parametrize("overlay", NAMES)
def test_one_version_of_ray_everywhere(overlay: str) -> None:
    import ray

    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"ray[serve]=={cluster(overlay)['rayVersion']}" in pinned and ray.__version__ == cluster(overlay)["rayVersion"]
    assert len({container(template)["image"] for template in pods(overlay).values()}) == 1


@pytest.mark.parametrize("overlay", NAMES)
def test_head_and_workers_see_the_same_environment_and_files(overlay: str) -> None:
    head, *others = [container(template) for template in pods(overlay).values()]
    for other in others:
        assert (other["env"], other["envFrom"]) == (head["env"], head["envFrom"])
        assert [m["mountPath"] for m in other["volumeMounts"]] == [m["mountPath"] for m in head["volumeMounts"]]
    for template in pods(overlay).values():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container(template)["volumeMounts"]} == set(volumes)
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in head["env"]


@pytest.mark.parametrize("overlay", NAMES)
def test_the_head_does_no_work(overlay: str) -> None:
    head = cluster(overlay)["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(head["template"])["resources"]["limits"]
    for entry in serve_config(overlay)["applications"][0]["deployments"]:
        assert entry["ray_actor_options"]["num_cpus"] > 0, f"{entry['name']} could be put on the head"


@pytest.mark.parametrize("overlay", NAMES)
def test_what_is_always_there_leaves_room_for_the_work(overlay: str) -> None:
    """Else tracking would wait for ever behind replicas that hold every core."""
    from serve_app.service.args import ServeArgs

    (application,) = serve_config(overlay)["applications"]
    args = ServeArgs.model_validate(application["args"])
    cpus = {entry["name"]: entry["ray_actor_options"]["num_cpus"] for entry in application["deployments"]}
    copies = {"api": args.api_replicas, "router": args.router.replicas}
    without_gpu = [name for name in args.engines if replica_settings(name).gpus == 0 or not read_site(OVERLAYS / overlay).gpus]
    copies |= {name: args.engines[name].merged(name).max_replicas for name in without_gpu if name != "portrait"}
    (group,) = [group for group in cluster(overlay)["workerGroupSpecs"] if group["groupName"] == "cpu"]
    there = group["minReplicas"] * float(container(group["template"])["resources"]["limits"]["cpu"])
    assert sum(cpus[name] * count for name, count in copies.items()) + args.router.task_cpus <= there
    assert max(args.api_replicas, args.router.replicas) <= group["minReplicas"], "one of each on a machine"


@pytest.mark.parametrize("overlay", NAMES)
def test_nothing_is_ended_before_its_time(overlay: str) -> None:
    from serve_app.service.args import ServeArgs

    (service,) = of_kind(overlay, "RayService")
    args = ServeArgs.model_validate(serve_config(overlay)["applications"][0]["args"])
    assert service["spec"]["rayClusterDeletionDelaySeconds"] >= 2 * args.api.max_seconds_per_clip, (
        "the longest job, at half speed"
    )
    slowest = max(extra.merged(name).shutdown_seconds for name, extra in args.engines.items())
    environment = {entry["name"]: entry.get("value") for entry in container(pods(overlay)["cpu"])["env"]}
    drain = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] or 0)
    for name, template in pods(overlay).items():
        assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        if name != "headgroup":  # which runs no replica
            assert slowest < drain < template["spec"]["terminationGracePeriodSeconds"], name


@pytest.mark.parametrize("overlay", NAMES)
def test_pods_are_locked_down(overlay: str) -> None:
    assert cluster(overlay)["authOptions"] == {"mode": "token"}
    for template in pods(overlay).values():
        spec, only = template["spec"], container(template)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert spec["enableServiceLinks"] is False, "a service `lipsync` would set LIPSYNC_PORT=tcp://…"
        assert only["securityContext"]["allowPrivilegeEscalation"] is False
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not any("password" in json.dumps(entry).lower() and "value" in entry for entry in only["env"])


def labels_of_pods(overlay: str) -> list[dict[str, str]]:
    """Labels as KubeRay sets them, on top of ours."""
    return [
        {
            **template["metadata"]["labels"],
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head" if name == "headgroup" else "worker",
            "ray.io/group": name,
        }
        for name, template in pods(overlay).items()
    ]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' label selectors."""
    rules = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, values: value is not None,
    }
    plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    extra = selector.get("matchExpressions", ())
    return plain and all(rules[rule["operator"]](labels.get(rule["key"]), rule.get("values", ())) for rule in extra)


def test_monitors_find_what_they_look_for() -> None:
    (service,) = of_kind("gpu-prod", "RayService")
    (monitor,) = of_kind("gpu-prod", "ServiceMonitor")
    assert matches(monitor["spec"]["selector"], service["spec"]["serveService"]["metadata"]["labels"])
    (ray,) = of_kind("gpu-prod", "PodMonitor")
    assert all(matches(ray["spec"]["selector"], labels) for labels in labels_of_pods("gpu-prod"))
    for template in pods("gpu-prod").values():
        assert {"name": "metrics", "containerPort": 8080} in container(template)["ports"]


@pytest.mark.parametrize("overlay", NAMES)
def test_disruption_budgets_count_ray_pods(overlay: str) -> None:
    budgets = [budget["spec"] for budget in of_kind(overlay, "PodDisruptionBudget")]
    for budget in budgets:  # Ray's kinds have no scale subresource: only a whole number in minAvailable is counted
        assert set(budget) == {"minAvailable", "selector"} and isinstance(budget["minAvailable"], int)
    for labels in labels_of_pods(overlay):
        assert sum(matches(budget["selector"], labels) for budget in budgets) == 1, "the eviction API refuses two"


@pytest.mark.parametrize("overlay", NAMES)
def test_the_network_lets_in_who_must_come_in_and_nobody_else(overlay: str) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(overlay, "NetworkPolicy")}
    assert policies["lipsync-nobody-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ray = policies["lipsync-ray"]
    assert all(matches(ray["podSelector"], labels) for labels in labels_of_pods(overlay))
    ports = {json.dumps(rule["from"]): [p["port"] for p in rule.get("ports", ())] for rule in ray["ingress"]}
    unlimited = [peer for peer, open_ports in ports.items() if not open_ports]
    assert [json.loads(peer)[0]["podSelector"]["matchLabels"] for peer in unlimited] == [{"ray.io/is-ray-node": "yes"}]
    foreign = [port for peer, open_ports in ports.items() if '"lipsync/' in peer for port in open_ports]
    assert set(foreign) == {8000, 8080}, "never the dashboard, which runs any code"
    out = {peer["ipBlock"]["cidr"]: (peer["ipBlock"], rule) for rule in ray["egress"] for peer in rule["to"] if "ipBlock" in peer}
    assert out["0.0.0.0/0"][0]["except"] == ["169.254.0.0/16"], "the cloud's credentials"
    assert {port["port"] for port in out["169.254.20.10/32"][1]["ports"]} == {53} and len(out) == 2


@pytest.mark.parametrize("overlay", NAMES)
def test_what_is_referred_to_is_there(overlay: str) -> None:
    services = {document["metadata"]["name"]: document["spec"] for document in of_kind(overlay, "Service")}
    host, port = cluster(overlay)["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    assert int(port) in [entry["port"] for entry in services[host]["ports"]]
    made = {secret["metadata"]["name"]: set(secret["data"]) for secret in of_kind(overlay, "Secret")}
    if overlay == "gpu-prod":
        assert not made, "secrets of production are not in a repository"
        return
    asked = json.dumps(documents(overlay))
    for name in ("lipsync-database", "lipsync-redis"):
        assert name in asked and name in made
    url = base64.b64decode(next(s for s in of_kind(overlay, "Secret") if "url" in s["data"])["data"]["url"]).decode()
    assert url.partition("@")[2].split("/")[0] in services


@pytest.mark.parametrize("overlay", NAMES)
def test_serve_takes_the_config_and_the_application_is_built(overlay: str) -> None:
    from ray._common.utils import import_attr
    from ray.serve._private.build_app import build_app
    from ray.serve.schema import ServeDeploySchema

    from serve_app.service.args import ServeArgs

    schema = ServeDeploySchema.model_validate(serve_config(overlay))
    (application,) = schema.applications
    assert application.runtime_env == {}, "the code is in the image"
    build = import_attr(application.import_path)
    built = build_app(build(ServeArgs.model_validate(application.args)), name=application.name)
    names = {deployment.name for deployment in built.deployments}
    told = {entry.name for entry in application.deployments}
    assert told == {"api", "router", *read_site(OVERLAYS / overlay).served()}
    assert told - {"api"} <= names and len(names) == len(told), "the ingress keeps its own name"


def test_the_autoscaler_reads_the_groups_as_they_are_meant() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    custom = {"metadata": {"name": "lipsync", "namespace": "lipsync"}, "spec": cluster("gpu-prod")}
    types = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for name in engine_names():
        settings = replica_settings(name)
        if settings.gpus:
            group = types[group_of(name)]
            assert (group["min_workers"], group["resources"]["GPU"], group["resources"][resource_of(name)]) == (0, 1, 1)


def test_the_dashboard_asks_for_metrics_that_exist(tmp_path: Path) -> None:
    import re

    from serve_app.api.metrics import Metrics
    from serve_app.api.services import EngineState
    from serve_app.jobs.spec import JobSpec
    from serve_app.jobs.store import open_jobs

    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    metrics = Metrics(jobs, lambda: {"fake": EngineState("fake", "for tests")})
    metrics.count_request("GET", "/health", 200, 0.1)
    for _ in range(2):
        jobs.create(JobSpec(engine="fake", source="clip"), "me")
    done, failed = jobs.claim("w", 10), jobs.claim("w", 10)
    assert done is not None and failed is not None
    jobs.succeed(done.id, done.fence, "r", None, {"frames": 5, "stage_seconds": {"render": 1.0}}, 60)
    jobs.fail(failed.id, failed.fence, "no_face", "none")
    exposed: dict[str, set[str]] = {}
    for line in metrics.text().decode().splitlines():
        if found := re.match(r"(\w+)(?:\{(.*?)\})? ", line):
            exposed.setdefault(found[1], set()).update(re.findall(r'(\w+)="', found[2] or ""))
    board = json.loads((ROOT / "k8s" / "monitoring" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in asked:
        names = re.findall(r"lipsync_\w+", expression)
        assert names, expression
        labels = {
            word for words in re.findall(r"(?:by \(|\{)([\w, ]+)", expression) for word in words.replace(" ", "").split(",")
        }
        for name in names:
            assert name in exposed, f"{name} of {expression!r}"
            assert labels - {"le"} <= exposed[name], expression


def test_an_overlay_behind_its_site_is_seen(tmp_path: Path) -> None:
    copy = tmp_path / "overlays" / "mine"
    shutil.copytree(OVERLAYS / "gpu-prod", copy)
    assert not stale(copy)
    site = copy / "site.yaml"
    site.write_text(site.read_text() + "settings:\n  video_rewrite: {max_replicas: 3}\n")
    assert stale(copy) == ["serve.yaml"]
    for path, text in written(copy).items():
        path.write_text(text)
    args = yaml.safe_load((copy / "serve.yaml").read_text())["applications"][0]["args"]
    assert args["engines"]["video_rewrite"]["max_replicas"] == 3 and not stale(copy)
    site.write_text("gpu: true\n")
    with pytest.raises(OptionError, match=r"mine/site\.yaml"):
        read_site(copy)


def test_the_image_is_made_as_the_manifests_expect() -> None:
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    stages = {line[3]: index for index, line in enumerate(lines) if line[0] == "FROM" and len(line) > 3}
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in ("cpu", "gpu"):
        end = next((i for i, line in enumerate(lines) if i > stages[target] and line[0] == "FROM"), len(lines))
        assert lines[end - 1] == ["USER", "1000:1000"], f"{target} does not run as root"
    text = (ROOT / "Dockerfile").read_text()
    for package in ("torch", "triton"):
        (pin,) = {pin for pin in (*pins["dependencies"], *pins["optional-dependencies"]["dev"]) if pin.startswith(f"{package}==")}
        assert text.count(f"{package}==") == text.count(pin) > 0
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept) and {"serve_app", "deployments", "kernels", "pyproject.toml"} <= set(kept)
