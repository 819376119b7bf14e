"""A CRD's `openAPIV3Schema` as a strict JSON schema: what an API server would prune or refuse, this refuses.

`python tests/k8s/crd_schema.py FOLDER` writes the trimmed copies beside it from the operators' CRD files.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).parent / "schemas"
GROUPS = {
    "ray.io": ("rayservices", "rayclusters", "rayjobs"),
    "monitoring.coreos.com": ("servicemonitors", "podmonitors", "prometheusrules"),
}
DROPPED = {"description", "title", "format", "example", "externalDocs"}


def strict(node: Any) -> Any:
    """One node of the schema."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: strict(value) for key, value in node.items() if key not in DROPPED and not key.startswith("x-kubernetes")}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        made["properties"] = {name: strict(value) for name, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        defaulted = {name for name, value in node["properties"].items() if isinstance(value, dict) and "default" in value}
        made["required"] = [name for name in node.get("required", ()) if name not in defaulted]
    if node.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    made.pop("nullable", None)
    return made


def of_crd(path: Path) -> dict[str, Any]:
    """The schema of version v1 of a CRD file."""
    crd = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"].setdefault("apiVersion", {})["const"] = f"{crd['spec']['group']}/v1"
    return schema


def load(plural: str) -> dict[str, Any]:
    """The copy that lies with the tests."""
    with gzip.open(SCHEMAS / f"{plural}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def main() -> None:
    """Write the copies anew."""
    for group, plurals in GROUPS.items():
        for plural in plurals:
            path = Path(sys.argv[1]) / f"{group}_{plural}.yaml"
            if path.is_file():
                text = json.dumps(of_crd(path), sort_keys=True, separators=(",", ":"))
                (SCHEMAS / f"{plural}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
