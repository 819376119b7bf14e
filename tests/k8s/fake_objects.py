"""Objects of a Kubernetes API server: versions, schemas, field owners, watches. `fake_cluster.py` puts HTTP before it."""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import crd_schema
import jsonschema
import kubernetes_validate

Document = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name
Path = tuple[str, ...]  # of a field
RAY = {"rayservices": "RayService", "rayclusters": "RayCluster", "rayjobs": "RayJob"}
MONITORING = {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}


class Refusal(Exception):
    """An answer that says no, in Kubernetes' own form."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            **{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status},
            **{"reason": reason, "message": message, "details": details},
        }


class Objects:
    """All objects. Every change gets a version of its own and is told to watchers."""

    def __init__(self) -> None:
        self._found: dict[Key, Document] = {}
        self._owners: dict[Key, dict[Path, str]] = {}  # the field's manager
        self._version = 100
        self._told: list[tuple[int, str, Key, Document]] = []
        self._changed = threading.Condition(threading.RLock())
        self._schemas = {plural: jsonschema.Draft202012Validator(crd_schema.load(plural)) for plural in (*RAY, *MONITORING)}
        self.closed = False

    def get(self, key: Key) -> Document:
        """A copy of one object."""
        with self._changed:
            if key not in self._found:
                raise Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found', name=key[2], kind=key[0])
            return copy.deepcopy(self._found[key])

    def find(self, plural: str, namespace: str, selector: str = "") -> list[Document]:
        """Copies of all objects of a kind with these labels."""
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        with self._changed:
            found = [copy.deepcopy(d) for key, d in sorted(self._found.items()) if key[:2] == (plural, namespace)]
        return [d for d in found if wanted.items() <= d["metadata"].get("labels", {}).items()]

    def put(self, key: Key, document: Document, manager: str, verb: str = "update", force: bool = False) -> Document:
        """Write an object; the fields that changed belong to the manager from now on."""
        with self._changed:
            before = self._found.get(key)
            owners = self._owners.setdefault(key, {})
            if before is None and key[1] and ("namespaces", "", key[1]) not in self._found:
                raise Refusal(404, "NotFound", f'namespaces "{key[1]}" not found', name=key[1], kind="namespaces")
            if verb == "create" and before is not None:
                raise Refusal(409, "AlreadyExists", f'{key[0]} "{key[2]}" already exists', name=key[2], kind=key[0])
            if verb == "update" and before is not None:
                self._check_version(key, before, document)
            made = self._applied(key, before, document, manager, force) if verb == "apply" else copy.deepcopy(document)
            self._validate(key, made)
            if verb == "apply":
                self._own(key, document, manager)
            else:
                old = leaves(before or {})
                owners.update({path: manager for path, value in leaves(document).items() if old.get(path) != value})
            return self._store(key, before, made)

    def _check_version(self, key: Key, before: Document, document: Document) -> None:
        asked = document["metadata"].get("resourceVersion")
        if asked is not None and asked != before["metadata"]["resourceVersion"]:
            words = f'Operation cannot be fulfilled on {key[0]} "{key[2]}": the object has been modified'
            raise Refusal(409, "Conflict", words, name=key[2], kind=key[0])

    def _applied(self, key: Key, before: Document | None, document: Document, manager: str, force: bool) -> Document:
        """Server-side apply. Lists are one field, as they are for kinds of our own unless their schema says otherwise."""
        owners, wanted, now = self._owners[key], leaves(document), leaves(before or {})
        others = sorted(p for p, v in wanted.items() if p in now and now[p] != v and owners.get(p, manager) != manager)
        if others and not force:
            causes = [
                {"reason": "FieldManagerConflict", "message": f'conflict with "{owners[path]}"', "field": f".{'.'.join(path)}"}
                for path in others
            ]
            words = f"Apply failed with {len(others)} conflict(s): {others}"
            raise Refusal(409, "Conflict", words, name=key[2], kind=key[0], causes=causes)
        identity = {name: document[name] for name in ("apiVersion", "kind")} | {"metadata": {"name": key[2]}}
        made = copy.deepcopy(before) if before is not None else identity
        for path in [path for path, owner in owners.items() if owner == manager and path not in wanted]:
            drop(made, path)
        for path, value in wanted.items():
            put_leaf(made, path, value)
        return made

    def _own(self, key: Key, document: Document, manager: str) -> None:
        owners = {path: owner for path, owner in self._owners[key].items() if owner != manager}
        self._owners[key] = owners | dict.fromkeys(leaves(document), manager)

    def _validate(self, key: Key, document: Document) -> None:
        """What an API server refuses: unknown fields and wrong values."""
        causes = []
        if key[0] in self._schemas:
            errors = self._schemas[key[0]].iter_errors(document)
            causes = [{"field": ".".join(map(str, e.absolute_path)), "message": e.message[:200]} for e in errors]
        else:
            plain = {name: value for name, value in document.items() if name != "status"}
            plain["metadata"] = {k: v for k, v in document["metadata"].items() if k not in ("managedFields", "creationTimestamp")}
            try:
                kubernetes_validate.validate(plain, "1.33", strict=True)
            except kubernetes_validate.ValidationError as error:
                causes = [{"field": ".".join(map(str, error.path)), "message": error.message[:200]}]
        if causes:
            words = f'{document["kind"]} "{key[2]}" is invalid: {causes[0]["field"]}: {causes[0]["message"]}'
            raise Refusal(422, "Invalid", words, name=key[2], kind=document["kind"], causes=causes)

    def _store(self, key: Key, before: Document | None, made: Document) -> Document:
        metadata = made["metadata"]
        old = (before or {}).get("metadata", {})
        if before is not None and without_version(before) == without_version(made):
            return copy.deepcopy(before)  # nothing changed: no new version, no event
        self._version += 1
        metadata["uid"] = old.get("uid") or str(uuid.uuid4())
        metadata["creationTimestamp"] = old.get("creationTimestamp") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        metadata["generation"] = old.get("generation", 0) + ((before or {}).get("spec") != made.get("spec"))
        metadata["resourceVersion"] = str(self._version)
        if key[1]:
            metadata["namespace"] = key[1]
        self._found[key] = made
        self._tell("ADDED" if before is None else "MODIFIED", key, made)
        return copy.deepcopy(made)

    def delete(self, key: Key) -> Document:
        """Forget an object."""
        with self._changed:
            gone = self.get(key)
            del self._found[key]
            self._owners.pop(key, None)
            self._version += 1
            self._tell("DELETED", key, gone)
            return gone

    def _tell(self, event: str, key: Key, document: Document) -> None:
        self._told.append((self._version, event, key, copy.deepcopy(document)))
        self._changed.notify_all()

    def watch(self, plural: str, namespace: str, name: str | None, since: int, seconds: float) -> Iterator[Document]:
        """Events after a version, until the time is over."""
        limit = time.monotonic() + seconds
        while not self.closed:
            with self._changed:
                fresh = [told for told in self._told if told[0] > since]
                if not fresh and not self._changed.wait(min(0.2, max(0.0, limit - time.monotonic()))):
                    fresh = []
            for version, event, key, document in fresh:
                since = version
                if key[:2] == (plural, namespace) and name in (None, key[2]):
                    yield {"type": event, "object": document}
            if time.monotonic() >= limit:
                return


def leaves(document: Any, above: Path = ()) -> dict[Path, Any]:
    """Fields that somebody can own, by where they are: all but identity and status; a list is one field."""
    found: dict[Path, Any] = {}
    for name, value in document.items():
        here = (*above, name)
        if here[0] in ("apiVersion", "kind", "status") or (above == ("metadata",) and name not in ("labels", "annotations")):
            continue
        found |= leaves(value, here) if isinstance(value, dict) and value else {here: value}
    return found


def put_leaf(document: Document, path: Path, value: Any) -> None:
    """Set one field, with the maps above it."""
    for part in path[:-1]:
        document = document.setdefault(part, {})
    document[path[-1]] = copy.deepcopy(value)


def drop(document: Document, path: Path) -> None:
    """Remove one field."""
    for part in path[:-1]:
        document = document.get(part, {})
    document.pop(path[-1], None)


def without_version(document: Document) -> str:
    """An object without what the server adds."""
    plain = copy.deepcopy(document)
    for name in ("resourceVersion", "generation", "uid", "creationTimestamp", "managedFields", "namespace"):
        plain["metadata"].pop(name, None)
    return json.dumps(plain, sort_keys=True)
