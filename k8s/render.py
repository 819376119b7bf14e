"""Overlays -> documents, as `kubectl kustomize` makes them, for machines that have no kubectl.

It knows what our overlays use and refuses all else: resources, components, patches (JSON 6902; merging for maps
only), generators without a hash, replacements of a whole field, labels, namespace, images.
A test compares every overlay with the real one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from deployments.errors import OptionError
from k8s.patches import json_patch, merge

Document = dict[str, Any]
HOME = Path(__file__).resolve().parent
OVERLAYS = HOME / "overlays"
OURS = "lipsync"  # the image's name in the base
LOCAL = "config.kubernetes.io/local-config"
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
KNOWN = {
    *("apiVersion", "kind", "namespace", "resources", "components", "patches", "labels", "images", "replacements"),
    *("configMapGenerator", "secretGenerator"),
}


def overlay_path(name: str) -> Path:
    """An overlay's folder by its name, or a folder of one's own. Raises OptionError."""
    for path in (OVERLAYS / name, Path(name)):
        if (path / "kustomization.yaml").is_file():
            return path
    known = sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))
    raise OptionError(f"expected an overlay of {', '.join(known)}, or a folder with a kustomization.yaml; got {name!r}")


def render(folder: Path, image: str | None = None) -> list[Document]:
    """All documents of a kustomization; `image` replaces ours. Raises OptionError."""
    own = None if image is None else split_image(image)
    found = build(folder.resolve(), [], own)
    return [document for document in found if not is_local(document)]


def to_yaml(documents: list[Document]) -> str:
    """One file that `kubectl apply -f` takes."""
    return yaml.safe_dump_all(documents, sort_keys=False, width=1000)


def read_yaml(path: Path) -> list[Any]:
    """All documents of a file; what YAML's aliases share becomes separate. Raises OptionError."""
    try:
        found = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        return [json.loads(json.dumps(document)) for document in found if document is not None]
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"expected a YAML file at {path}: {error}") from error


def build(folder: Path, base: list[Document], own: dict[str, str] | None = None) -> list[Document]:
    """A kustomization on top of documents that are there already (those of whoever uses it as a component).

    `own` stands for what it says itself of our image.
    """
    plan = read_plan(folder)
    found = list(base)
    for entry in plan.get("resources", ()):
        path = (folder / entry).resolve()
        found += build(path, [], own) if path.is_dir() else read_yaml(path)
    for generator, kind in (("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")):
        found += [generate(folder, kind, entry) for entry in plan.get(generator, ())]
    for entry in plan.get("components", ()):
        found = build((folder / entry).resolve(), found, own)
    for patch in plan.get("patches", ()):
        apply_patch(folder, patch, found)
    for document in found:
        dress(document, plan)
    for entry in plan.get("replacements", ()):
        replace_fields(entry, found)
    images = [own if own is not None and image["name"] == OURS else image for image in plan.get("images", ())]
    set_images(found, images if own is None or own in images else [*images, own])
    return found


def read_plan(folder: Path) -> dict[str, Any]:
    """A kustomization.yaml. Raises OptionError for what is not known here."""
    (plan,) = read_yaml(folder / "kustomization.yaml")
    unknown = set(plan) - KNOWN
    if unknown:
        words = ", ".join(sorted(unknown))
        raise OptionError(f"{folder.name}/kustomization.yaml uses {words}; render it with `kubectl kustomize`")
    return plan


def generate(folder: Path, kind: str, entry: dict[str, Any]) -> Document:
    """A ConfigMap or a Secret from files and literals."""
    options = entry.get("options", {})
    if not options.get("disableNameSuffixHash"):
        raise OptionError(f"expected disableNameSuffixHash for the generated {entry['name']!r}: names must stay")
    data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in entry.get("files", ())}
    data.update(literal.split("=", 1) for literal in entry.get("literals", ()))
    metadata = {key: options[key] for key in ("labels", "annotations") if key in options}
    made: Document = {"apiVersion": "v1", "kind": kind, "metadata": {"name": entry["name"], **metadata}, "data": data}
    if kind == "Secret":
        made["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        made["type"] = "Opaque"
    return made


def apply_patch(folder: Path, patch: dict[str, Any], documents: list[Document]) -> None:
    """One entry of `patches`. Raises OptionError where it fits nothing."""
    (body,) = read_yaml(folder / patch["path"]) if "path" in patch else [yaml.safe_load(patch["patch"])]
    target = patch.get("target") or {"kind": body["kind"], "name": body["metadata"]["name"]}
    fitting = [document for document in documents if selected(document, target)]
    if not fitting:
        raise OptionError(f"expected something for the patch {patch.get('path', 'in line')} of {folder.name}, got no {target}")
    for document in fitting:
        changed = json_patch(document, body) if isinstance(body, list) else merge(document, body)
        document.clear()
        document.update(changed)


def selected(document: Document, target: dict[str, str]) -> bool:
    """Whether a document is what a target means."""
    return document["kind"] == target["kind"] and target.get("name", document["metadata"]["name"]) == document["metadata"]["name"]


def dress(document: Document, plan: dict[str, Any]) -> None:
    """Namespace and labels."""
    metadata = document["metadata"]
    if "namespace" in plan and document["kind"] == "Namespace":
        metadata["name"] = plan["namespace"]
    elif "namespace" in plan and document["kind"] not in CLUSTER_WIDE:
        metadata["namespace"] = plan["namespace"]
    for entry in plan.get("labels", ()):
        metadata["labels"] = {**metadata.get("labels", {}), **entry["pairs"]}


def replace_fields(entry: dict[str, Any], documents: list[Document]) -> None:
    """Copy one value to where a replacement says."""
    source = entry["source"]
    value = walk(next(document for document in documents if selected(document, source)), source["fieldPath"])
    for target in entry["targets"]:
        for document in documents:
            if selected(document, target["select"]):
                for path in target["fieldPaths"]:
                    *parents, last = steps(path)
                    place = document
                    for step in parents:
                        place = place[step]
                    place[last] = value


def steps(path: str) -> list[str]:
    """`data.[serve.yaml]` as its two steps."""
    head, bracket, tail = path.partition(".[")
    return [*head.split("."), *([tail.rstrip("]")] if bracket else [])]


def walk(document: Document, path: str) -> Any:
    """The value at a path."""
    found: Any = document
    for step in steps(path):
        found = found[step]
    return found


def set_images(documents: list[Document], images: Any) -> None:
    """`images` of a kustomization, everywhere where containers are listed."""
    for image in images:
        for document in documents:
            every_container(document, partial(rename, image))


def rename(image: dict[str, str], container: dict[str, Any]) -> None:
    """One container's image, if it is the one meant."""
    name, _, tag = container.get("image", "").partition(":")
    if name == image["name"]:
        tag = image.get("newTag", tag)
        container["image"] = image.get("newName", name) + (f":{tag}" if tag else "")


def every_container(node: Any, visit: Callable[[dict[str, Any]], None]) -> None:
    """Visit all containers below a node."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers") and isinstance(value, list):
                for container in value:
                    visit(container)
            every_container(value, visit)
    elif isinstance(node, list):
        for value in node:
            every_container(value, visit)


def split_image(image: str) -> dict[str, str]:
    """`registry:5000/lipsync:1.2` for our image, whatever the overlay called it. Raises OptionError."""
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        raise OptionError(f"expected an image with a tag, such as registry.example/lipsync:1.0; got {image!r}")
    return {"name": OURS, "newName": name, "newTag": tag}


def is_local(document: Document) -> bool:
    """Only there for kustomize itself."""
    return bool(document["metadata"].get("annotations", {}).get(LOCAL) == "true")
