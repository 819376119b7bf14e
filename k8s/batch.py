"""A manifest of rows as a RayJob: a cluster of its own with the server's image and groups, gone when it is done.

Rows are committed one by one, so a job that failed or was stopped goes on where it was: the same command again.
"""

from __future__ import annotations

import copy
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.errors import OptionError
from k8s.cluster import Cluster, Document
from k8s.deploy import SERVICE, Say
from k8s.engines import group_of
from k8s.errors import ClusterError, NotInstalled, NotReady
from k8s.preflight import check_kinds

FOLDER = "/manifest"
MOST = 900_000  # bytes; a ConfigMap holds a little over a megabyte
DAYS = 7 * 86400
OVER = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Batch:
    """What is asked for."""

    manifest: str  # a file here, or a URL or path that the cluster can read
    template: str
    out: str
    engine: str = "video_rewrite"
    workers: int | None = None  # None: as many as the server may have replicas
    extra: tuple[str, ...] = ()  # further options of serve_app.batch

    @property
    def local(self) -> Path | None:
        """The manifest's file, if it is one of this machine."""
        path = Path(self.manifest)
        return path if "://" not in self.manifest and path.is_file() else None

    @property
    def name(self) -> str:
        """The same for the same batch, so that asking again goes on with it."""
        words = [self.local.read_bytes() if self.local else self.manifest.encode()]
        words += [word.encode() for word in (self.template, self.out, self.engine, *self.extra)]
        digest = hashlib.sha256(b"\0".join(words)).hexdigest()
        return f"lipsync-batch-{digest[:10]}"


def documents(batch: Batch, service: Document) -> list[Document]:
    """The RayJob, and the ConfigMap of a manifest that lies here. Raises OptionError."""
    check_places(batch, service)
    metadata = {"name": batch.name, "labels": {"app.kubernetes.io/part-of": "lipsync-batch"}}
    cluster = own_cluster(service["spec"]["rayClusterConfig"], batch.engine)
    made: list[Document] = []
    where = batch.manifest
    if batch.local is not None:
        where = f"{FOLDER}/{batch.local.name}"
        made.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {batch.local.name: text(batch.local)}}
        )
        mount(cluster["headGroupSpec"]["template"]["spec"], batch.name)
    spec = {
        "entrypoint": shlex.join(command(batch, where, service)),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": DAYS,
        "backoffLimit": 1,  # once more on a new cluster, when this one is lost; rows that are done stay done
        "submitterPodTemplate": submitter(cluster["headGroupSpec"]["template"]["spec"]),
        "rayClusterSpec": cluster,
    }
    return [*made, {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}]


def check_places(batch: Batch, service: Document) -> None:
    """Raise OptionError for a manifest or an `--out` that lies in a pod alone: nobody would find it there."""
    if batch.local is None and not reached(batch.manifest, service):
        raise OptionError(
            f"expected a manifest that lies here, or its address, got {batch.manifest!r}: no such file; "
            f"check the path, or name one {kept_at(service)}"
        )
    if not reached(batch.out, service):
        raise OptionError(f"expected --out {kept_at(service)}, got {batch.out!r}: a folder of a pod goes with it")


def reached(where: str, service: Document) -> bool:
    """Whether pods of a batch find a place again: an address, or a path below a volume of the server."""
    return "://" in where or any(Path(where).is_relative_to(volume) and ".." not in where for volume in volumes(service))


def kept_at(service: Document) -> str:
    """Where files outlive a pod, in words."""
    return " or ".join(["as s3://bucket/path", *(f"below {volume}" for volume in volumes(service))])


def volumes(service: Document) -> list[str]:
    """Where the server's claimed volumes are mounted: those of its head."""
    spec = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    claimed = {volume["name"] for volume in spec.get("volumes", ()) if "persistentVolumeClaim" in volume}
    mounts = spec["containers"][0].get("volumeMounts", ())
    return [str(mount["mountPath"]) for mount in mounts if mount["name"] in claimed]


def command(batch: Batch, manifest: str, service: Document) -> list[str]:
    """What runs on the batch's head: the server's store, and the devices that its replicas of the engine have.

    Both are said, since a cluster that starts at nothing shows neither. Raises OptionError for an engine that is not served.
    """
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    engines = application["args"]["engines"]
    if batch.engine not in engines:
        raise OptionError(f"expected an engine of {', '.join(engines)}; got {batch.engine!r}")
    options = next(entry["ray_actor_options"] for entry in application["deployments"] if entry["name"] == batch.engine)
    workers = batch.workers or engines[batch.engine]["max_replicas"]
    words = ["python", "-m", "serve_app.batch", manifest, "--template", batch.template, "--out", batch.out]
    words += ["--engine", batch.engine, "--store", application["args"]["store"], "--ray"]
    return [*words, "--workers", str(workers), "--gpus", str(options.get("num_gpus", 0)), *batch.extra]


def text(path: Path) -> str:
    """A manifest that fits a ConfigMap. Raises OptionError."""
    size = path.stat().st_size
    try:
        if size <= MOST:
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        pass
    raise OptionError(
        f"expected a text manifest of at most {MOST} bytes, got {path.name} with {size}; "
        "put it into the object store and give its s3:// address"
    )


def own_cluster(serving: dict[str, Any], engine: str) -> dict[str, Any]:
    """The server's cluster for a batch: same image, this engine's group; its head need not outlive itself; no worker at first."""
    cluster = copy.deepcopy(serving)
    cluster.pop("gcsFaultToleranceOptions", None)
    cluster["workerGroupSpecs"] = [g for g in cluster["workerGroupSpecs"] if g["groupName"] in ("cpu", group_of(engine))]
    for group in cluster["workerGroupSpecs"]:
        group["replicas"] = group["minReplicas"] = 0
    for template in (cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])):
        template["metadata"]["labels"]["app.kubernetes.io/part-of"] = "lipsync-batch"  # not under the server's budgets
    return cluster


def mount(spec: dict[str, Any], name: str) -> None:
    """The manifest's ConfigMap in a pod."""
    spec["volumes"].append({"name": "manifest", "configMap": {"name": name}})
    spec["containers"][0]["volumeMounts"].append({"name": "manifest", "mountPath": FOLDER, "readOnly": True})


def submitter(head: dict[str, Any]) -> dict[str, Any]:
    """The small pod that hands the job to the cluster and prints its log."""
    only = head["containers"][0]
    return {
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": head["securityContext"],
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": only["image"],
                    "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
                    "securityContext": only["securityContext"],
                }
            ],
        }
    }


def run(cluster: Cluster, batch: Batch, say: Say, seconds: float) -> None:
    """Start the batch, or go on with it; print its log until it ends. Raises ClusterError."""
    service = cluster.get("RayService", SERVICE)
    if service is None:
        raise NotReady(f"expected RayService/{SERVICE} in {cluster.namespace}: a batch takes its image; run `deploy` first")
    wanted = documents(batch, service)
    check_kinds(cluster, wanted)
    found = cluster.get("RayJob", batch.name)
    state = deployment(found)
    if state == "Complete" and found is not None and found["status"].get("jobStatus") == "SUCCEEDED":
        say(f"RayJob/{batch.name} has succeeded before; delete it to run it again")
        return
    if found is not None and state in OVER:
        say(f"RayJob/{batch.name} {found['status'].get('message') or state}; going on with the rows that are not done")
        cluster.delete("RayJob", batch.name)
        for gone in cluster.states("RayJob", batch.name, 60):
            if gone is None:
                break
        found = None
    if found is None:
        for document in wanted:
            cluster.apply(document)
        say(f"RayJob/{batch.name}  made")
    else:
        say(f"RayJob/{batch.name}  runs already; its log follows")
    follow(cluster, batch.name, say, seconds)


def deployment(job: Document | None) -> str:
    """The operator's word for where a job is."""
    return str((job or {}).get("status", {}).get("jobDeploymentStatus", ""))


def follow(cluster: Cluster, name: str, say: Say, seconds: float) -> None:
    """States and log of a job until it ends. Raises ClusterError if it failed."""
    told, logged = "", False
    for job in cluster.states("RayJob", name, seconds):
        if job is None:
            raise NotReady(f"RayJob/{name} was deleted while it ran; the same command goes on with it")
        status = job.get("status", {})
        words = " ".join(filter(None, (deployment(job), status.get("jobStatus"), status.get("message"))))
        if words != told:
            say(f"RayJob/{name}  {words or 'waiting for the operator'}")
            told = words
        if not logged and deployment(job) in ("Running", *OVER):
            logged = print_log(cluster, name, say)
        if deployment(job) in OVER:
            if status.get("jobStatus") == "SUCCEEDED":
                return
            raise ClusterError(f"RayJob/{name} failed: {status.get('message') or words}; the same command goes on where it was")
    raise NotReady(f"RayJob/{name} still runs after {seconds:.0f} s; the same command follows it again")


def print_log(cluster: Cluster, name: str, say: Say) -> bool:
    """The submitter's log, line by line, until it ends; False if there is no pod yet."""
    for pod in cluster.find("Pod", f"batch.kubernetes.io/job-name={name}"):
        if pod.get("status", {}).get("phase") == "Pending":
            continue
        try:
            for line in cluster.log(pod["metadata"]["name"]):
                say(line)
        except NotInstalled:
            return False
        return True
    return False
