"""The small part of kustomize that we know, and how it says no to the rest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.errors import OptionError
from k8s.patches import json_patch, merge
from k8s.render import overlay_path, render

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "lipsync"}]}}


def kustomization(folder: Path, **plan: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pod.yaml").write_text(yaml.safe_dump(POD))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["pod.yaml"], **plan}))
    return folder


def test_an_image_of_ones_own_wins_over_none_and_keeps_a_registrys_port(tmp_path: Path) -> None:
    (pod,) = render(kustomization(tmp_path), "registry.example:5000/team/lipsync:1.2")
    assert pod["spec"]["containers"][0]["image"] == "registry.example:5000/team/lipsync:1.2"
    for wrong in ("lipsync", "registry.example:5000/lipsync"):
        with pytest.raises(OptionError, match="with a tag"):
            render(tmp_path, wrong)


def test_an_image_of_ones_own_wins_over_the_overlays() -> None:
    (service,) = [d for d in render(overlay_path("gpu-prod"), "other.example/ours:9") if d["kind"] == "RayService"]
    images = {g["template"]["spec"]["containers"][0]["image"] for g in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert images == {"other.example/ours:9"}


def test_namespaces_are_renamed_with_everything_in_them(tmp_path: Path) -> None:
    folder = kustomization(tmp_path, namespace="mine", resources=["pod.yaml", "space.yaml"])
    (folder / "space.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lipsync"}}))
    pod, space = render(folder)
    assert pod["metadata"]["namespace"] == space["metadata"]["name"] == "mine"


def test_what_is_not_known_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"uses helmCharts; render it with `kubectl kustomize`"):
        render(kustomization(tmp_path / "a", helmCharts=[]))
    with pytest.raises(OptionError, match="disableNameSuffixHash"):
        render(kustomization(tmp_path / "b", configMapGenerator=[{"name": "x", "literals": ["a=b"]}]))
    with pytest.raises(OptionError, match="expected something for the patch"):
        render(kustomization(tmp_path / "c", patches=[{"patch": "[]", "target": {"kind": "Service"}}]))
    with pytest.raises(OptionError, match="cpu-demo, dev, gpu-prod"):
        overlay_path("nowhere")


def test_json_patches_do_as_the_standard_says() -> None:
    found = json_patch(
        {"a": {"b/c": 1}, "l": [1, 3]},
        [
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "replace", "path": "/a/b~1c", "value": 2},
            {"op": "add", "path": "/l/1", "value": 2},
            {"op": "add", "path": "/l/-", "value": 4},
            {"op": "remove", "path": "/l/0"},
        ],
    )
    assert found == {"a": {"b/c": 2}, "l": [2, 3, 4]}
    for wrong in (
        {"op": "remove", "path": "/x"},
        {"op": "replace", "path": "/l/9", "value": 0},
        {"op": "test", "path": "/l", "value": 0},
    ):
        with pytest.raises(OptionError, match=wrong["path"]):
            json_patch({"l": [1]}, [wrong])


def test_a_merge_goes_into_maps_and_leaves_lists_to_kubectl() -> None:
    before = {"x": {"y": 1, "z": 2}}
    assert merge(before, {"x": {"y": None, "new": {"a": 1}}}) == {"x": {"z": 2, "new": {"a": 1}}} and before["x"]["y"] == 1
    with pytest.raises(OptionError, match="JSON 6902"):
        merge({"l": [1]}, {"l": [2]})


def test_merges_and_images_are_those_of_kubectl(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    metadata = {"name": "p", "annotations": {"a/b.c": "d"}}
    patch = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"hostname": "h", "securityContext": {"runAsUser": 1}},
    }
    folder = kustomization(tmp_path, patches=[{"patch": yaml.safe_dump(patch)}], images=[{"name": "lipsync", "newTag": "2"}])
    told = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    assert render(folder) == list(yaml.safe_load_all(told))
