"""A small Kubernetes API over real HTTP: what `python -m k8s` and Ray's autoscaler ask of one, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import yaml
from fake_objects import MONITORING, RAY, Document, Objects, Refusal

from k8s.patches import json_patch

BUILT_IN = {
    "api/v1": {"namespaces", "secrets", "configmaps", "persistentvolumeclaims", "services", "pods"},
    "apis/apps/v1": {"statefulsets"},
    "apis/networking.k8s.io/v1": {"networkpolicies"},
    "apis/policy/v1": {"poddisruptionbudgets"},
    "apis/apiextensions.k8s.io/v1": {"customresourcedefinitions"},
}
CLUSTER_WIDE = {"namespaces", "customresourcedefinitions"}


class FakeCluster:
    """`url` answers until `close()`. Tokens: admin may all, viewer may look."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.logs: dict[str, list[str]] = {}  # by pod
        self.services: dict[str, str] = {}  # path behind the service's proxy -> answer
        self.requests: list[tuple[str, str]] = []
        self.installed = {"apis/ray.io/v1": set(RAY), "apis/monitoring.coreos.com/v1": set(MONITORING), **BUILT_IN}
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more; watches end."""
        self.objects.closed = True
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path, token: str = "admin") -> Path:
        """A kubeconfig for this cluster."""
        cluster, user = {"server": self.url}, {"token": token}
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
            "clusters": [{"name": "fake", "cluster": cluster}],
            "users": [{"name": "me", "user": user}],
        }
        path.write_text(yaml.safe_dump(text))
        return path

    def install(self, definition: Document) -> None:
        """A CRD as its file has it, or changed."""
        name = definition["metadata"]["name"]
        self.objects._found["customresourcedefinitions", "", name] = definition

    def answer(self, verb: str, path: str, query: dict[str, str], body: Any, content: str) -> Any:
        """The object to answer with. Raises Refusal."""
        key = self.locate(path)
        plural, namespace, name = key
        manager = query.get("fieldManager", "unknown")
        match verb:
            case "GET" if name:
                found = self.objects.get(key)
            case "GET":
                items = self.objects.find(plural, namespace, query.get("labelSelector", ""))
                found = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
            case "DELETE":
                found = self.objects.delete(key)
            case "POST":
                found = self.objects.put((plural, namespace, body["metadata"]["name"]), body, manager, "create")
            case "PUT":
                found = self.objects.put(key, body, manager)
            case _:
                found = self._patch(key, body, manager, content, query.get("force") == "true")
        return found

    def _patch(self, key: tuple[str, str, str], body: Any, manager: str, content: str, force: bool) -> Document:
        if content == "application/apply-patch+yaml":
            return self.objects.put(key, body, manager, "apply", force)
        if content == "application/json-patch+json":
            return self.objects.put(key, json_patch(self.objects.get(key), body), manager)
        raise Refusal(415, "UnsupportedMediaType", f"no patches of type {content}")

    def locate(self, path: str) -> tuple[str, str, str]:
        """The object that a path means. Raises Refusal for an unknown kind."""
        parts = path.strip("/").split("/")
        prefix = "/".join(parts[:2] if parts[0] == "api" else parts[:3])
        rest = parts[len(prefix.split("/")) :]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        if plural not in self.installed.get(prefix, ()):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return plural, "" if plural in CLUSTER_WIDE else namespace, name


class _Handler(BaseHTTPRequestHandler):
    cluster: ClassVar[FakeCluster]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _serve(self, verb: str) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        size = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(size)
        self.cluster.requests.append((verb, url.path))
        try:
            self._check_login(verb, url.path)
            if "/proxy/" in url.path:
                self._say_text(url.path.partition("/proxy")[2])
            elif url.path.endswith("/log"):
                self._stream(line.encode() + b"\n" for line in self.cluster.logs.get(url.path.split("/")[-2], []))
            elif query.get("watch") == "true":
                self._stream(self._events(url.path, query))
            else:
                body = yaml.safe_load(text) if text else None
                found = self.cluster.answer(verb, url.path, query, body, self.headers.get("Content-Type", ""))
                self._say(201 if verb == "POST" else 200, found)
        except Refusal as no:
            self._say(no.status, no.body)

    def _check_login(self, verb: str, path: str) -> None:
        who = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if who not in ("admin", "viewer"):
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if who == "viewer" and verb != "GET":
            plural, _, name = self.cluster.locate(path)
            words = f'{plural} "{name}" is forbidden: User "viewer" cannot {verb.lower()} resource "{plural}"'
            raise Refusal(403, "Forbidden", words, name=name, kind=plural)

    def _events(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        plural, namespace, _ = self.cluster.locate(path)
        name = query.get("fieldSelector", "").removeprefix("metadata.name=") or None
        since = int(query.get("resourceVersion", self.cluster.objects._version))
        for event in self.cluster.objects.watch(plural, namespace, name, since, float(query.get("timeoutSeconds", 30))):
            yield json.dumps(event).encode() + b"\n"

    def _say(self, status: int, found: Any) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _say_text(self, path: str) -> None:
        if path not in self.cluster.services:
            raise Refusal(503, "ServiceUnavailable", "no endpoints available for service")
        data = self.cluster.services[path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, blocks: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for block in blocks:
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the watcher has left
