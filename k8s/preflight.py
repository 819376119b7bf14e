"""What is looked at before anything is changed: kinds that are missing or too old, and secrets that nobody made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8s.cluster import INSTALL, KINDS, Cluster, Document
from k8s.errors import NotAllowed, NotInstalled, NotReady

COMMANDS = {
    "lipsync-database": "--from-literal=url=postgresql+psycopg://USER:PASSWORD@HOST/lipsync",
    "lipsync-redis": "--from-literal=password=PASSWORD",
}


def check_kinds(cluster: Cluster, documents: list[Document]) -> None:
    """Raise NotInstalled for a kind that the cluster does not have, or not with all the fields that we set."""
    for document in documents:
        kind = KINDS[document["kind"]]
        group, _, version = kind.prefix.removeprefix("apis/").partition("/")
        if kind.prefix == "api/v1" or "." not in group or group.endswith("k8s.io"):
            continue
        try:
            found = cluster.get("CustomResourceDefinition", f"{kind.plural}.{group}")
        except NotAllowed:  # then the cluster itself says it, when the document is applied
            continue
        if found is None:
            raise NotInstalled(f"the cluster does not know the kind {document['kind']}; {kind.help}")
        check_fields(document, found, version)


def check_fields(document: Document, definition: Document, version: str) -> None:
    """Raise NotInstalled for a definition that lacks a version, or a field that the document sets."""
    served = {entry["name"]: entry for entry in definition["spec"]["versions"] if entry.get("served", True)}
    name, help = document["kind"], KINDS[document["kind"]].help
    if version not in served:
        raise NotInstalled(f"expected {name} in version {version}, the cluster has {', '.join(served)}; it is too old: {help}")
    schema = served[version].get("schema", {}).get("openAPIV3Schema", {})
    missing = next(unknown_fields(document["spec"], schema.get("properties", {}).get("spec", {}), "spec"), None)
    if missing is not None:
        raise NotInstalled(f"the cluster's {name} has no field {missing}: its operator is too old for these manifests; {INSTALL}")


def unknown_fields(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of a document that a schema does not have."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[]")
    elif isinstance(value, dict):
        known = schema.get("properties")
        for name, inner in value.items():
            if known is not None and name in known:
                yield from unknown_fields(inner, known[name], f"{path}.{name}")
            elif known is not None and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{name}"


def check_secrets(cluster: Cluster, documents: list[Document]) -> None:
    """Raise NotReady that says how to make the secrets that pods would wait for."""
    made = {document["metadata"]["name"] for document in documents if document["kind"] == "Secret"}
    missing = []
    for name in sorted(wanted_secrets(documents) - made):
        try:
            if cluster.get("Secret", name) is None:
                missing.append(name)
        except NotAllowed:
            return
    if missing:
        commands = "; ".join(f"kubectl -n {cluster.namespace} create secret generic {n} {COMMANDS.get(n, '…')}" for n in missing)
        raise NotReady(f"expected the secret{'s' * (len(missing) > 1)} {', '.join(missing)}: {commands}")


def wanted_secrets(node: Any) -> set[str]:
    """Names of secrets without which a pod does not start."""
    if isinstance(node, list):
        return {name for item in node for name in wanted_secrets(item)}
    if not isinstance(node, dict):
        return set()
    found = {name for item in node.values() for name in wanted_secrets(item)}
    for key in ("secretKeyRef", "secretRef"):
        reference = node.get(key)
        if isinstance(reference, dict) and not reference.get("optional"):
            found.add(reference["name"])
    return found
