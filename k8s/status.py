"""What the cluster does now: application, replicas, queue and GPUs in one table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from k8s.cluster import Cluster, Document
from k8s.deploy import SERVICE, read
from k8s.errors import NotReady

PROXY = f"{SERVICE}:serve"  # service and port, as the API server's own proxy calls it
GPU = " (GPU)"


@dataclass(frozen=True)
class Row:
    """One worker group."""

    group: str
    pods: str  # ready of all
    bounds: str
    gpus: int
    engine: str  # the engine, and what it is doing


@dataclass(frozen=True)
class Status:
    """What `status` shows."""

    lines: tuple[str, ...]
    rows: tuple[Row, ...]
    queue: str


def status(cluster: Cluster) -> Status:
    """Look at everything once. Raises ClusterError."""
    service = cluster.get("RayService", SERVICE)
    if service is None:
        raise NotReady(f"expected RayService/{SERVICE} in {cluster.namespace}, got none; `python -m k8s deploy` makes it")
    active = service.get("status", {}).get("activeServiceStatus", {}).get("rayClusterName", "")
    running = cluster.get("RayCluster", active) if active else None
    spec = running["spec"] if running is not None else service["spec"]["rayClusterConfig"]
    pods = cluster.find("Pod", f"ray.io/cluster={active}") if active else []
    metrics = cluster.ask(PROXY, "/metrics")
    states = engine_states(cluster, service, values(metrics, "lipsync_replicas", "engine"))
    rows = [row(group, pods, states) for group in spec["workerGroupSpecs"]]
    return Status(read(service, 0).words, tuple(rows), queue(metrics))


def row(group: dict[str, Any], pods: list[Document], states: dict[str, str]) -> Row:
    """One worker group with its pods and its engines."""
    name = group["groupName"]
    mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get("ray.io/group") == name]
    ready = [pod for pod in mine if is_ready(pod)]
    limits = group["template"]["spec"]["containers"][0]["resources"].get("limits", {})
    own = [key.removeprefix("engine_") for key in group.get("resources", {}) if key.startswith("engine_")]
    engines = {engine: state for engine, state in states.items() if (engine in own if own else not state.endswith(GPU))}
    return Row(
        name,
        f"{len(ready)} of {len(mine)}",
        f"{group.get('minReplicas', 0)} to {group.get('maxReplicas')}",
        len(ready) * int(limits.get("nvidia.com/gpu", 0)),
        "; ".join(f"{engine}: {state}" for engine, state in engines.items()),
    )


def engine_states(cluster: Cluster, service: Document, replicas: dict[str, float]) -> dict[str, str]:
    """Every served engine, what it does and how many replicas do it, from the application itself where it can be asked."""
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    options = {entry["name"]: entry.get("ray_actor_options", {}) for entry in application["deployments"]}
    said: dict[str, str] = {}
    answer = cluster.ask(PROXY, "/ready")
    if answer is not None:
        try:
            said = json.loads(answer).get("engines", {})
        except ValueError:
            said = {}
    deployed = service.get("status", {}).get("activeServiceStatus", {}).get("applicationStatuses", {})
    health = {n: e.get("status", "") for app in deployed.values() for n, e in app.get("serveDeploymentStatuses", {}).items()}
    states = {}
    for name in application["args"]["engines"]:
        count = f", {replicas[name]:.0f} running" if name in replicas else ""
        gpu = GPU if options.get(name, {}).get("num_gpus") else ""
        states[name] = (said.get(name) or health.get(name, "?").lower()) + count + gpu
    return states


def is_ready(pod: Document) -> bool:
    """Whether Kubernetes calls a pod ready."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def queue(metrics: str | None) -> str:
    """Jobs that wait and run, from the API's metrics."""
    if metrics is None:
        return "queue: not reachable through the API server; `kubectl port-forward` and /metrics show it"
    jobs, oldest = values(metrics, "lipsync_jobs", "status"), values(metrics, "lipsync_queue_seconds").get("", 0.0)
    return f"queue: {jobs.get('queued', 0):.0f} waiting, {jobs.get('running', 0):.0f} running; the oldest waits {oldest:.0f} s"


def values(metrics: str | None, name: str, label: str | None = None) -> dict[str, float]:
    """A metric's values by one label, out of Prometheus text."""
    mark = rf'\{{{label}="(\w+)"\}}' if label else "()"
    found = re.findall(rf"^{name}{mark} ([0-9.e+-]+)$", metrics or "", re.MULTILINE)
    return {value: float(number) for value, number in found}
