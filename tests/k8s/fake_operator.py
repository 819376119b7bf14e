"""What KubeRay does to RayServices and RayJobs, as far as it can be seen from outside: clusters, pods, status, switching.

It decides by the same rule as KubeRay whether a change needs a new cluster: the cluster's part of the spec, without the
numbers of replicas.
"""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import yaml
from fake_cluster import FakeCluster
from fake_objects import Document, Refusal

NAMESPACE = "lipsync"


class FakeOperator:
    """Looks at everything a few times a second until `stop()`. With `stuck`, new pods find no machine."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._objects = cluster.objects
        self._cluster = cluster
        self._ended = threading.Event()
        self._made = 0
        self.stuck = False
        self.failing_jobs = 0
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Do nothing more."""
        self._ended.set()
        self._thread.join(5)

    def _loop(self) -> None:
        while not self._ended.wait(0.05):
            for service in self._objects.find("rayservices", NAMESPACE):
                self._quietly(self._service, service)
            for cluster in self._objects.find("rayclusters", NAMESPACE):
                self._quietly(self._pods, cluster)
            for job in self._objects.find("rayjobs", NAMESPACE):
                self._quietly(self._job, job)

    def _quietly(self, function: Any, document: Document) -> None:
        try:
            function(document)
        except Refusal as no:
            if no.status not in (404, 409):  # somebody else was faster: the next look is right
                raise

    def _service(self, service: Document) -> None:
        """One look at a server: the next of the steps that it needs."""
        status = copy.deepcopy(service.get("status", {}))
        active = status.setdefault("activeServiceStatus", {})
        pending = status.setdefault("pendingServiceStatus", {})
        goal = fingerprint(service["spec"]["rayClusterConfig"])
        current = active.get("rayClusterName")
        if goal != self._fingerprint_of(current) and goal != self._fingerprint_of(pending.get("rayClusterName")):
            pending.clear()
            pending["rayClusterName"] = self._make_cluster(service)
        elif pending.get("rayClusterName"):
            self._bring_up(service, status)
        else:
            self._tell(service, active)
        status["observedGeneration"] = service["metadata"]["generation"]
        status["conditions"] = conditions(status)
        if status != service.get("status"):
            self._objects.put(("rayservices", NAMESPACE, service["metadata"]["name"]), service | {"status": status}, "operator")

    def _fingerprint_of(self, name: str | None) -> str:
        found = [c for c in self._objects.find("rayclusters", NAMESPACE) if c["metadata"]["name"] == name]
        return fingerprint(found[0]["spec"]) if found else ""

    def _make_cluster(self, service: Document) -> str:
        self._made += 1
        name = f"{service['metadata']['name']}-{self._made:05d}"
        spec = copy.deepcopy(service["spec"]["rayClusterConfig"])
        for group in spec["workerGroupSpecs"]:
            group.setdefault("scaleStrategy", {})  # the operator always writes it
        self._put("rayclusters", "ray.io/v1", "RayCluster", name, spec=spec)
        self._pods(self._objects.get(("rayclusters", NAMESPACE, name)))
        return name

    def _pods(self, cluster: Document) -> None:
        """As many pods as every group wants; those that the autoscaler named are ended."""
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        found = self._objects.find("pods", NAMESPACE, f"ray.io/cluster={name}")
        groups = [{"groupName": "headgroup", "replicas": 1, **spec["headGroupSpec"]}, *spec["workerGroupSpecs"]]
        for group in groups:
            mine = {p["metadata"]["name"] for p in found if p["metadata"]["labels"]["ray.io/group"] == group["groupName"]}
            for gone in mine & set(group.get("scaleStrategy", {}).get("workersToDelete", ())):
                self._objects.delete(("pods", NAMESPACE, gone))
                mine.remove(gone)
            for _ in range(group.get("replicas", 0) - len(mine)):
                self._made += 1
                self._make_pod(name, group["groupName"], group["template"], self._made)

    def _make_pod(self, cluster: str, group: str, template: dict[str, Any], index: int) -> None:
        labels = {**template["metadata"]["labels"], "ray.io/cluster": cluster, "ray.io/group": group, "ray.io/is-ray-node": "yes"}
        labels["ray.io/node-type"] = "head" if group == "headgroup" else "worker"
        words = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
        ready = words if self.stuck else {"type": "Ready", "status": "True"}
        state = {"waiting": {"reason": "Unschedulable"}} if self.stuck else {"running": {}}
        status = {"conditions": [ready], "containerStatuses": [{"state": state}]}
        self._put("pods", "v1", "Pod", f"{cluster}-{group}-{index}", labels, template["spec"], status)

    def _put(
        self,
        plural: str,
        version: str,
        kind: str,
        name: str,
        labels: dict[str, str] | None = None,
        spec: Any = None,
        status: Any = None,
    ) -> None:
        document = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels or {}}}
        document |= {key: value for key, value in (("spec", spec), ("status", status)) if value is not None}
        self._objects.put((plural, NAMESPACE, name), document, "operator", "create")

    def _bring_up(self, service: Document, status: dict[str, Any]) -> None:
        """The new cluster: first its pods, then the application, then the traffic."""
        pending = status["pendingServiceStatus"]
        if self.stuck:
            return
        if "rayClusterStatus" not in pending:
            pending["rayClusterStatus"] = {"state": "ready", "readyWorkerReplicas": 1, "desiredWorkerReplicas": 1}
        elif "applicationStatuses" not in pending:
            pending["applicationStatuses"] = told(service, "DEPLOYING", "UPDATING")
        else:
            pending["applicationStatuses"] = told(service, "RUNNING", "HEALTHY")
            status["activeServiceStatus"], status["pendingServiceStatus"] = pending, {}

    def _tell(self, service: Document, active: dict[str, Any]) -> None:
        if active.get("rayClusterName"):
            active["applicationStatuses"] = told(service, "RUNNING", "HEALTHY")

    def _job(self, job: Document) -> None:
        """One look at a batch: made, running with a pod that has a log, ended."""
        name, status = job["metadata"]["name"], dict(job.get("status", {}))
        state = status.get("jobDeploymentStatus")
        if state is None:
            status["jobDeploymentStatus"] = "Initializing"
        elif state == "Initializing":
            status |= {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
            pod = {"metadata": {"labels": {}}, "spec": job["spec"]["submitterPodTemplate"]["spec"]}
            self._cluster.logs[f"{name}-submit"] = [f"$ {job['spec']['entrypoint']}", "row 1 of 2", "row 2 of 2"]
            labels = {"batch.kubernetes.io/job-name": name}
            self._objects._found.pop(("pods", NAMESPACE, f"{name}-submit"), None)
            self._put("pods", "v1", "Pod", f"{name}-submit", labels, pod["spec"], {"phase": "Running"})
        elif state == "Running":
            good = self.failing_jobs <= 0
            self.failing_jobs -= 1
            status |= {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"} if good else {}
            status |= {} if good else {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "row 2: no face"}
        if status != job.get("status", {}):
            self._objects.put(("rayjobs", NAMESPACE, name), job | {"status": status}, "operator")


def fingerprint(cluster: dict[str, Any]) -> str:
    """The cluster's part of a spec without the numbers of replicas."""
    plain = copy.deepcopy(cluster)
    for group in plain.get("workerGroupSpecs", ()):
        for name in ("replicas", "minReplicas", "maxReplicas", "scaleStrategy"):
            group.pop(name, None)
    return json.dumps(plain, sort_keys=True)


def told(service: Document, application: str, deployment: str) -> dict[str, Any]:
    """What Serve says of its application."""
    (found,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    deployments = {entry["name"]: {"status": deployment} for entry in found["deployments"]}
    return {found["name"]: {"status": application, "serveDeploymentStatuses": deployments}}


def conditions(status: dict[str, Any]) -> list[dict[str, str]]:
    """The two conditions of a RayService."""
    active, pending = bool(status["activeServiceStatus"]), bool(status["pendingServiceStatus"])
    upgrade = {(True, True): "BothActivePendingClustersExist", (True, False): "NoPendingCluster"}
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
    return [
        {"type": "Ready", "status": str(active), "reason": "NonZeroServeEndpoints" if active else "Initializing", **since},
        {
            "type": "UpgradeInProgress",
            "status": str(active and pending),
            "reason": upgrade.get((active, pending), "NoActiveCluster"),
            **since,
        },
    ]
