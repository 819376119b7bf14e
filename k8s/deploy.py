"""Put an overlay on the cluster, wait until it serves, move it to another image without a gap, take it away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s.cluster import Cluster, Document
from k8s.engines import check_keys, check_written, has_site
from k8s.errors import Conflict, NotReady
from k8s.preflight import check_kinds, check_secrets
from k8s.render import render

SERVICE = "lipsync"
Say = Callable[[str], None]
FIRST = ("Namespace", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "StatefulSet", "NetworkPolicy")
KEPT = ("Namespace", "PersistentVolumeClaim", "Secret")  # data, and what opens it


@dataclass(frozen=True)
class Told:
    """What is worth telling of a RayService: told again only when it changes."""

    ready: bool
    settled: bool
    active: str
    pending: str
    words: tuple[str, ...]


def prepare(folder: Path, image: str | None) -> list[Document]:
    """The documents of an overlay in the order in which they are applied. Raises OptionError."""
    check_written(folder)
    if has_site(folder):
        check_keys(folder)
    return sorted(render(folder, image), key=order)


def order(document: Document) -> int:
    """The server comes last: all it refers to is there by then."""
    kind = document["kind"]
    return FIRST.index(kind) if kind in FIRST else len(FIRST) + (kind == "RayService")


def deploy(cluster: Cluster, documents: list[Document], say: Say, force: bool, seconds: float) -> None:
    """Apply all and wait until it serves. Raises ClusterError."""
    check_kinds(cluster, documents)
    if not force:
        check_image(cluster, documents)
    space = [document for document in documents if document["kind"] == "Namespace"]
    for document in space:
        apply(cluster, document, say, force)
    check_secrets(cluster, documents)
    last: Document = {}
    for document in documents:
        if document not in space:
            last = apply(cluster, document, say, force)
    wait_ready(cluster, int(last["metadata"].get("generation", 0)), say, seconds)


def check_image(cluster: Cluster, documents: list[Document]) -> None:
    """Raise Conflict where another image runs: to apply would move the server to this one, which may be the older."""
    (wanted,) = [document for document in documents if document["kind"] == "RayService"]
    running = cluster.get("RayService", SERVICE)
    if running is not None and image_of(running) != image_of(wanted):
        raise Conflict(
            f"the server runs {image_of(running)}, this would take it to {image_of(wanted)}: "
            f"give --image {image_of(running)}, or move it with `upgrade`"
        )


def apply(cluster: Cluster, document: Document, say: Say, force: bool) -> Document:
    """One document, with a line about it."""
    before = cluster.get(document["kind"], document["metadata"]["name"])
    after = cluster.apply(document, force)
    same = before is not None and before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    state = "made" if before is None else "as it was" if same else "changed"
    say(f"{document['kind']}/{document['metadata']['name']}  {state}")
    return after


def wait_ready(cluster: Cluster, generation: int, say: Say, seconds: float) -> Told:
    """Tell every change of the server until it serves what was applied. Raises NotReady."""
    told: Told | None = None
    started = time.monotonic()
    for state in cluster.states("RayService", SERVICE, seconds):
        if state is None:
            raise NotReady(f"RayService/{SERVICE} was deleted while it was waited for")
        now = read(state, generation)
        for line in now.words if told is None else [words for words in now.words if words not in told.words]:
            say(f"{time.monotonic() - started:5.0f} s  {line}")
        told = now
        if now.ready and now.settled:
            return now
    words = "; ".join(told.words if told is not None else ())
    raise NotReady(f"expected the server to be ready within {seconds:.0f} s; it is: {words or 'not seen yet'}. {why(cluster)}")


def read(state: Document, generation: int) -> Told:
    """A RayService in words."""
    status = state.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    seen = int(status.get("observedGeneration", 0)) >= generation
    words = [f"{name}: {entry['status']} ({entry['reason']})" for name, entry in sorted(conditions.items())]
    words += [*about(active, "cluster"), *about(pending, "new cluster")]
    return Told(
        ready=seen and conditions.get("Ready", {}).get("status") == "True",
        settled=not pending.get("rayClusterName") and all(running(app) for app in applications(active)),
        active=active.get("rayClusterName", ""),
        pending=pending.get("rayClusterName", ""),
        words=tuple(words),
    )


def about(status: dict[str, Any], which: str) -> list[str]:
    """Lines on one of the two clusters of a server."""
    name = status.get("rayClusterName")
    if not name:
        return []
    state = status.get("rayClusterStatus", {})
    workers = f"{state.get('readyWorkerReplicas', 0)} of {state.get('desiredWorkerReplicas', 0)} workers"
    lines = [f"{which} {name}: {state.get('state') or 'starting'}, {workers}"]
    for app in applications(status):
        lines.append(f"{which} {name}: application {app.get('status', '?')} {app.get('message', '')}".rstrip())
        for deployment, entry in sorted(app.get("serveDeploymentStatuses", {}).items()):
            if entry.get("status") not in (None, "HEALTHY"):
                lines.append(f"{which} {name}: {deployment} {entry['status']} {entry.get('message', '')}".rstrip())
    return lines


def applications(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The applications of one cluster."""
    return list(status.get("applicationStatuses", {}).values())


def running(application: dict[str, Any]) -> bool:
    """Whether it serves."""
    return application.get("status") == "RUNNING"


def why(cluster: Cluster) -> str:
    """What holds pods up, as far as the cluster says."""
    reasons = []
    for pod in cluster.find("Pod", f"ray.io/is-ray-node=yes,app.kubernetes.io/part-of={SERVICE}"):
        status = pod.get("status", {})
        waiting = [entry.get("state", {}).get("waiting") for entry in status.get("containerStatuses", ())]
        found = [entry for entry in status.get("conditions", ()) if entry.get("reason") == "Unschedulable"]
        for entry in [item for item in waiting if item] + found:
            reasons.append(f"pod {pod['metadata']['name']}: {entry.get('reason')}: {entry.get('message', '')}".rstrip(": "))
    return "; ".join(sorted(set(reasons))[:5]) or "`kubectl describe` of its pods may say why"


def upgrade(cluster: Cluster, documents: list[Document], say: Say, force: bool, seconds: float) -> None:
    """Apply the new server; the old cluster serves until the new one is ready. Raises ClusterError."""
    before = cluster.get("RayService", SERVICE)
    if before is None:
        raise NotReady(f"expected RayService/{SERVICE} in {cluster.namespace}, got none; `python -m k8s deploy` makes it")
    image, old = image_of(before), read(before, 0).active
    check_kinds(cluster, documents)
    check_secrets(cluster, documents)
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    after = apply(cluster, service, say, force)
    try:
        now = wait_ready(cluster, int(after["metadata"]["generation"]), say, seconds)
    except NotReady as error:
        raise NotReady(f"{error} The old cluster still serves; `upgrade --image {image}` goes back") from error
    delay = after["spec"].get("rayClusterDeletionDelaySeconds", 60)
    say(f"cluster {now.active} serves" + (f"; {old} ends its work and goes in {delay} s" if now.active != old else ", as before"))


def image_of(service: Document) -> str:
    """The image that a server runs."""
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return str(head["image"])


def delete(cluster: Cluster, documents: list[Document], say: Say, data: bool, seconds: float) -> None:
    """Take all away, the server first; volumes, secrets and the namespace only with `data`. Raises ClusterError."""
    for document in reversed(documents):
        kind, name = document["kind"], document["metadata"]["name"]
        if kind in KEPT and not data:
            continue
        say(f"{kind}/{name}  {'deleted' if cluster.delete(kind, name) else 'was not there'}")
        if kind == "RayService":
            wait_gone(cluster, seconds)


def wait_gone(cluster: Cluster, seconds: float) -> None:
    """Until the server's last pod has let go. Raises NotReady."""
    for state in cluster.states("RayService", SERVICE, seconds):
        if state is None:
            return
    raise NotReady(f"expected RayService/{SERVICE} to be gone within {seconds:.0f} s; its finalizers may wait for the operator")
