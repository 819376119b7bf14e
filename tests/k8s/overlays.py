"""Overlays as documents, and the parts of them that tests look at."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from k8s.render import OVERLAYS, render

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))


@cache
def documents(overlay: str) -> list[dict[str, Any]]:
    """Everything that an overlay applies."""
    return render(OVERLAYS / overlay)


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    """All documents of one kind."""
    return [document for document in documents(overlay) if document["kind"] == kind]


def cluster(overlay: str) -> dict[str, Any]:
    """The cluster's part of the RayService."""
    (service,) = of_kind(overlay, "RayService")
    return service["spec"]["rayClusterConfig"]


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Pod templates of the head and of every worker group."""
    found = {"headgroup": cluster(overlay)["headGroupSpec"]["template"]}
    return found | {group["groupName"]: group["template"] for group in cluster(overlay)["workerGroupSpecs"]}


def serve_config(overlay: str) -> dict[str, Any]:
    """Serve's config file, out of the RayService."""
    (service,) = of_kind(overlay, "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def container(template: dict[str, Any]) -> dict[str, Any]:
    """The only container of a pod."""
    (only,) = template["spec"]["containers"]
    return only


def labels_of_pods(overlay: str) -> list[dict[str, str]]:
    """Labels as KubeRay sets them, on top of ours."""
    return [
        {
            **template["metadata"]["labels"],
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head" if name == "headgroup" else "worker",
            "ray.io/group": name,
        }
        for name, template in pods(overlay).items()
    ]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' label selectors."""
    rules = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, values: value is not None,
    }
    plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    extra = selector.get("matchExpressions", ())
    return plain and all(rules[rule["operator"]](labels.get(rule["key"]), rule.get("values", ())) for rule in extra)
