"""Ray's own autoscaler on our manifests: which group it would start, and what it writes to Kubernetes to do so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from fake_cluster import FakeCluster
from fake_operator import FakeOperator
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.node_provider import IKubernetesHttpApiClient
from ray.autoscaler.v2.instance_manager.cloud_providers.kuberay.cloud_provider import KubeRayProvider
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from deployments.engines.registry import engine_names, replica_settings
from k8s.engines import group_of, resource_of
from k8s.render import OVERLAYS, render

GPU_ENGINES = [name for name in engine_names() if replica_settings(name).gpus > 0]


class Client(IKubernetesHttpApiClient):
    """Ray's client with another address: it asks over HTTP, as in a pod."""

    def __init__(self, url: str) -> None:
        self._url, self._login = url, {"Authorization": "Bearer admin"}

    def _address(self, path: str) -> str:
        prefix = "apis/ray.io/v1" if path.startswith("rayclusters") else "api/v1"
        return f"{self._url}/{prefix}/namespaces/lipsync/{path}"

    def get(self, path: str) -> dict[str, Any]:
        answer = requests.get(self._address(path), headers=self._login, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def patch(self, path: str, payload: Any, content_type: str = "application/json-patch+json") -> dict[str, Any]:
        headers = {**self._login, "Content-Type": content_type}
        answer = requests.patch(self._address(path), json=payload, headers=headers, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def delete(self, path: str) -> dict[str, Any]:
        raise AssertionError("the autoscaler never deletes our cluster")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    found = FakeCluster()
    found.objects._found["namespaces", "", "lipsync"] = {"kind": "Namespace", "metadata": {"name": "lipsync"}}
    (service,) = [document for document in render(OVERLAYS / "gpu-prod") if document["kind"] == "RayService"]
    found.objects.put(("rayservices", "lipsync", "lipsync"), service, "test", "create")
    operator = FakeOperator(found)
    yield found
    operator.stop()
    found.close()


def until(met: Callable[[], Any]) -> Any:
    """Wait for something that the operator does."""
    for _ in range(200):
        found = met()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def running(cluster: FakeCluster) -> dict[str, Any]:
    return until(lambda: cluster.objects.find("rayclusters", "lipsync"))[0]


def demands(cluster: FakeCluster, engine: str, replicas: int) -> list[dict[str, float]]:
    """What replicas of an engine ask of Ray, as the deployed config says."""
    (service,) = cluster.objects.find("rayservices", "lipsync")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    options = next(entry["ray_actor_options"] for entry in application["deployments"] if entry["name"] == engine)
    return [{"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), **options.get("resources", {})}] * replicas


def wanted_groups(custom: dict[str, Any], asked: list[dict[str, float]]) -> dict[str, int]:
    """What Ray's scheduler would start for these demands on top of nothing."""
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(custom), skip_content_hash=True)
    made = [ResourceRequestUtil.make({name: amount for name, amount in one.items() if amount}) for one in asked]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(made),
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != "headgroup"}


@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_replicas_of_an_engine_start_its_own_group_and_no_other(cluster: FakeCluster, engine: str) -> None:
    custom, settings = running(cluster), replica_settings(engine)
    always = wanted_groups(custom, [])
    assert set(always) == {"cpu"}, "no GPU is held for nothing"
    found = wanted_groups(custom, demands(cluster, engine, settings.max_replicas))
    assert set(found) == {"cpu", group_of(engine)}
    assert found[group_of(engine)] == settings.max_replicas * settings.gpus, "every GPU is filled"


def test_engines_without_a_gpu_start_no_gpu(cluster: FakeCluster) -> None:
    for engine in set(engine_names()) - set(GPU_ENGINES):
        assert set(wanted_groups(running(cluster), demands(cluster, engine, 40))) == {"cpu"}


def test_the_autoscaler_starts_gpu_pods_and_ends_the_ones_it_names(cluster: FakeCluster) -> None:
    name = running(cluster)["metadata"]["name"]
    groups = [g for g in running(cluster)["spec"]["workerGroupSpecs"] if g["groupName"] != "cpu"]
    most, group = max((g["maxReplicas"], g["groupName"]) for g in groups)
    assert most > 2
    provider = KubeRayProvider(name, {"namespace": "lipsync"}, gcs_client=None, k8s_api_client=Client(cluster.url))

    def of_group() -> set[str]:
        return {id_ for id_, pod in provider.get_non_terminated().items() if pod.node_type == group and pod.is_running}

    assert of_group() == set()
    provider.launch({group: 2}, "first")
    provider.launch({group: 2}, "first")  # the same request again changes nothing
    pods = until(lambda: len(of_group()) == 2 and of_group())
    provider.launch({group: 1000}, "too many")
    until(lambda: len(of_group()) == most)
    (error,) = provider.poll_errors()
    assert "capped by maxReplicas" in str(error) and len(of_group()) == most

    kept = sorted(of_group() - pods)
    provider.terminate(sorted(pods), "second")
    until(lambda: of_group() == set(kept))
    provider.terminate(kept, "third")
    until(lambda: of_group() == set())
    (spec,) = [g for g in running(cluster)["spec"]["workerGroupSpecs"] if g["groupName"] == group]
    assert spec["replicas"] == 0, "from none to many and back to none"
    (service,) = cluster.objects.find("rayservices", "lipsync")
    assert service["status"]["activeServiceStatus"]["rayClusterName"] == name, "pods that come and go are no upgrade"


@pytest.mark.slow
def test_real_nodes_come_for_two_replicas_and_go_when_they_end() -> None:
    engine = next(name for name in GPU_ENGINES if replica_settings(name).gpus == 1)
    command = [sys.executable, str(Path(__file__).with_name("fake_nodes.py")), resource_of(engine)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 2, 0]
