"""The Kubernetes API in the few verbs that we need, with errors that say what to do. Uses the official client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from k8s.errors import ClusterError, Conflict, NoCluster, NotAllowed, NotInstalled, Refused

Document = dict[str, Any]
MANAGER = "lipsync-k8s"
CHART = "kuberay/kuberay-operator --version 1.7.1 -n kuberay-system --create-namespace"
INSTALL = f"install the operator: helm install kuberay-operator {CHART}"


@dataclass(frozen=True)
class Kind:
    """Where a kind lives in the API."""

    prefix: str  # api/v1, apis/GROUP/VERSION
    plural: str
    namespaced: bool = True
    help: str = "it is a part of Kubernetes: is this a Kubernetes API?"


OPERATOR = "install the Prometheus operator, or take ../../monitoring out of the overlay's kustomization.yaml"
KINDS = {
    "Namespace": Kind("api/v1", "namespaces", namespaced=False),
    "Secret": Kind("api/v1", "secrets"),
    "ConfigMap": Kind("api/v1", "configmaps"),
    "PersistentVolumeClaim": Kind("api/v1", "persistentvolumeclaims"),
    "Service": Kind("api/v1", "services"),
    "Pod": Kind("api/v1", "pods"),
    "StatefulSet": Kind("apis/apps/v1", "statefulsets"),
    "NetworkPolicy": Kind("apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": Kind("apis/policy/v1", "poddisruptionbudgets"),
    "CustomResourceDefinition": Kind("apis/apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False),
    "ServiceMonitor": Kind("apis/monitoring.coreos.com/v1", "servicemonitors", help=OPERATOR),
    "PodMonitor": Kind("apis/monitoring.coreos.com/v1", "podmonitors", help=OPERATOR),
    "PrometheusRule": Kind("apis/monitoring.coreos.com/v1", "prometheusrules", help=OPERATOR),
    "RayService": Kind("apis/ray.io/v1", "rayservices", help=INSTALL),
    "RayCluster": Kind("apis/ray.io/v1", "rayclusters", help=INSTALL),
    "RayJob": Kind("apis/ray.io/v1", "rayjobs", help=INSTALL),
}


class Cluster:
    """One cluster, one namespace. Every method raises ClusterError."""

    def __init__(self, namespace: str = "lipsync", context: str | None = None, kubeconfig: str | None = None) -> None:
        from kubernetes import client

        self.namespace = namespace
        load_config(context, kubeconfig)
        self._api = client.ApiClient()

    def get(self, kind: str, name: str) -> Document | None:
        """One object, or None."""
        try:
            return self._call("GET", kind, name)
        except _NotFound:
            return None

    def find(self, kind: str, selector: str = "") -> list[Document]:
        """All objects of a kind that carry these labels."""
        found = self._call("GET", kind, query={"labelSelector": selector})
        return list(found.get("items", ()))

    def apply(self, document: Document, force: bool = False) -> Document:
        """Server-side apply: the fields of this document become ours; `force` also takes them from others."""
        query = {"fieldManager": MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        name = document["metadata"]["name"]
        return self._call("PATCH", document["kind"], name, query, document, "application/apply-patch+yaml")

    def create(self, document: Document) -> Document:
        """A new object. Raises Conflict where there is one of that name."""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self._call("POST", document["kind"], query=query, body=document)

    def replace(self, document: Document, manager: str) -> Document:
        """Write back what was read and changed. Raises Conflict if somebody else wrote meanwhile."""
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        return self._call("PUT", document["kind"], document["metadata"]["name"], query, document)

    def delete(self, kind: str, name: str) -> bool:
        """Whether there was something to delete."""
        try:
            self._call("DELETE", kind, name, {"propagationPolicy": "Foreground"})
        except _NotFound:
            return False
        return True

    def states(self, kind: str, name: str, seconds: float) -> Iterator[Document | None]:
        """An object as it is now and after every change, None while it is not there; ends when the time is over.

        Watches end at any moment, and what a watch missed is gone: so it looks before it watches, every time.
        """
        limit = time.monotonic() + seconds
        while True:
            found = self.get(kind, name)
            yield found
            left = limit - time.monotonic()
            if left <= 0:
                return
            version = "0" if found is None else found["metadata"]["resourceVersion"]
            yield from self._watch(kind, name, version, min(left, 60.0))
            time.sleep(min(1.0, max(0.0, limit - time.monotonic())))

    def _watch(self, kind: str, name: str, version: str, seconds: float) -> Iterator[Document | None]:
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(max(1, int(seconds)))}
        if version != "0":
            query["resourceVersion"] = version
        try:
            for line in self._lines(kind, None, query, seconds + 5):
                event = json.loads(line)
                if event["type"] == "ERROR":  # the version is too old by now: look again
                    return
                yield None if event["type"] == "DELETED" else event["object"]
        except _Gone:
            return

    def log(self, pod: str, container: str | None = None, seconds: float = 7 * 86400.0) -> Iterator[str]:
        """Lines of a pod's log as they come."""
        query = {"follow": "true", **({"container": container} if container else {})}
        yield from self._lines("Pod", f"{pod}/log", query, seconds)

    def ask(self, service: str, path: str) -> str | None:
        """What a service answers through the API server, or None if it cannot be reached this way."""
        try:
            response = self._raw("GET", f"/api/v1/namespaces/{self.namespace}/services/{service}/proxy{path}", {}, timeout=10.0)
        except ClusterError:
            return None
        return str(response.data.decode("utf-8", "replace"))

    def _call(
        self,
        verb: str,
        kind: str,
        name: str | None = None,
        query: dict[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
    ) -> Document:
        response = self._raw(verb, self._path(kind, name), query or {}, body, content, about=(kind, name))
        found: Document = json.loads(response.data)
        return found

    def _lines(self, kind: str, name: str | None, query: dict[str, str], seconds: float) -> Iterator[str]:
        """A stream line by line; ends when the other side or the time ends it."""
        from urllib3.exceptions import HTTPError

        response = self._raw("GET", self._path(kind, name), query, about=(kind, name), timeout=seconds)
        rest = b""
        try:
            for block in response.stream(4096, decode_content=False):
                *lines, rest = (rest + block).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines if line)
        except HTTPError:
            return
        finally:
            response.release_conn()
        if rest:
            yield rest.decode("utf-8", "replace")

    def _path(self, kind: str, name: str | None) -> str:
        place = KINDS[kind]
        middle = f"/namespaces/{self.namespace}" if place.namespaced else ""
        return f"/{place.prefix}{middle}/{place.plural}" + (f"/{name}" if name else "")

    def _raw(
        self,
        verb: str,
        path: str,
        query: dict[str, str],
        body: Any = None,
        content: str = "application/json",
        about: tuple[str, str | None] = ("Service", None),
        timeout: float = 30.0,
    ) -> Any:
        headers = {"Accept": "application/json", **({"Content-Type": content} if body is not None else {})}
        with translated(verb, *about):
            return self._api.call_api(
                path,
                verb,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(10.0, timeout),
                response_types_map=None,
            )


def load_config(context: str | None, kubeconfig: str | None) -> None:
    """Address and login: a kubeconfig, or inside a cluster the pod's own account. Raises NoCluster."""
    from kubernetes import config

    try:
        config.load_kube_config(kubeconfig, context)
    except (config.ConfigException, OSError) as error:
        if not context and not kubeconfig:
            try:
                config.load_incluster_config()
                return
            except config.ConfigException:
                pass
        raise NoCluster(f"expected a kubeconfig that names a cluster: {error}; set KUBECONFIG, or give --context") from error


class _NotFound(ClusterError):
    """The object is not there; its kind is known."""


class _Gone(ClusterError):
    """A version that the cluster no longer knows."""


@contextmanager
def translated(verb: str, kind: str, name: str | None) -> Iterator[None]:
    """The client's errors as ours."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise explain(error.status or 0, error.body, verb, kind, name) from error
    except HTTPError as error:
        words = str(getattr(error, "reason", None) or error)
        raise NoCluster(
            f"expected the cluster to answer, got {words}; is it up, and is the kubeconfig's address right?"
        ) from error


def explain(status: int, body: Any, verb: str, kind: str, name: str | None) -> ClusterError:
    """An answer that says no, as an error that says what to do."""
    said, what = read_status(body), f"{kind} {name or ''}".rstrip()
    message, details = str(said.get("message", "")), said.get("details") or {}
    causes = "; ".join(f"{c.get('field', '')}: {c.get('message', '')}".strip(": ") for c in details.get("causes", ()))
    error: ClusterError
    match status:
        case 401:
            error = NotAllowed(f"expected a login that the cluster knows, got 401 for {what}; renew the kubeconfig's credentials")
        case 403:
            error = NotAllowed(f"this login may not {verb} {what}: {message}; docs/operate.md lists the rights that are needed")
        case 404 if details.get("name") or details.get("kind"):
            error = _NotFound(f"expected {what}, got none: {message}")
        case 404:
            error = NotInstalled(f"the cluster does not know the kind {kind}; {KINDS[kind].help}")
        case 409 if causes:
            words = "others set the same fields"
            error = Conflict(f"{what}: {words} ({causes}); put the values into the overlay, or give --force")
        case 409:
            error = Conflict(f"{what}: {message}")
        case 410:
            error = _Gone(f"{what}: {message}")
        case 400 | 422:
            error = Refused(f"the cluster refuses {what}: {causes or message}")
        case _:
            error = ClusterError(f"expected the cluster to {verb} {what}, got {status}: {message or body}")
    return error


def read_status(body: Any) -> dict[str, Any]:
    """Kubernetes' `Status` object, or nothing."""
    try:
        found = json.loads(body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
