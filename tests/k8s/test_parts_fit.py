"""Every overlay's parts fit one another, and what Kubernetes and Ray do with them."""

from __future__ import annotations

import base64
import json
import tomllib

import pytest
from overlays import NAMES, ROOT, cluster, container, documents, labels_of_pods, matches, of_kind, pods, serve_config

from deployments.engines.registry import engine_names, replica_settings
from k8s.engines import group_of, read_site, resource_of
from k8s.render import OVERLAYS
from serve_app.api.flow import middlewares


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
    told = {entry["name"]: entry.get("value") for entry in head["env"]}
    assert told["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert told["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == f"{middlewares.__module__}:{middlewares.__name__}"


@pytest.mark.parametrize("overlay", NAMES)
def test_the_head_does_no_work(overlay: str) -> None:
    head = cluster(overlay)["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(head["template"])["resources"]["limits"]
    for entry in serve_config(overlay)["applications"][0]["deployments"]:
        assert entry["ray_actor_options"]["num_cpus"] > 0, f"{entry['name']} could be put on the head"


@pytest.mark.parametrize("overlay", NAMES)
def test_the_object_store_lies_in_memory(overlay: str) -> None:
    """Ray puts one that does not fit /dev/shm on the disk."""
    groups = [cluster(overlay)["headGroupSpec"], *cluster(overlay)["workerGroupSpecs"]]
    for group in groups:
        (shm,) = [v["emptyDir"] for v in group["template"]["spec"]["volumes"] if v["name"] == "shm"]
        assert int(group["rayStartParams"]["object-store-memory"]) < 0.95 * int(shm["sizeLimit"].removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("overlay", NAMES)
def test_every_replica_can_be_put_into_one_group_only(overlay: str) -> None:
    """Else the API would be put on a GPU machine, which is then never idle: seen with Ray's own scheduler."""
    offered = {group["groupName"]: group.get("resources", {}) for group in cluster(overlay)["workerGroupSpecs"]}
    for entry in serve_config(overlay)["applications"][0]["deployments"]:
        asked = entry["ray_actor_options"]["resources"]
        fitting = [name for name, has in offered.items() if all(float(has.get(r, 0)) >= amount for r, amount in asked.items())]
        assert fitting == [group_of(entry["name"]) if "num_gpus" in entry["ray_actor_options"] else "cpu"]


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
