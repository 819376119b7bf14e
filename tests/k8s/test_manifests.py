"""Every overlay, as a cluster would get it: known fields only, and an application that Serve can build."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import crd_schema
import jsonschema
import kubernetes_validate
import pytest
import yaml
from overlays import NAMES, ROOT, cluster, documents, of_kind, pods, serve_config

from deployments.engines.registry import engine_names, replica_settings
from deployments.errors import OptionError
from k8s.engines import group_of, read_site, resource_of, stale, written
from k8s.render import OVERLAYS

BUILT_IN = "1.33"  # of Kubernetes
FOREIGN = {
    "RayService": "rayservices",
    "ServiceMonitor": "servicemonitors",
    "PodMonitor": "podmonitors",
    "PrometheusRule": "prometheusrules",
}


@pytest.mark.parametrize("overlay", NAMES)
def test_we_render_what_kubectl_renders(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    told = subprocess.run(["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=True).stdout

    assert by_name(documents(overlay)) == by_name(list(yaml.safe_load_all(told)))


def by_name(found: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """In no order; what is secret decoded, since kubectl breaks its lines."""
    made = {(document["kind"], document["metadata"]["name"]): dict(document) for document in found}
    for document in made.values():
        if document["kind"] == "Secret":
            document["data"] = {key: base64.b64decode(value) for key, value in document["data"].items()}
    return made


@pytest.mark.parametrize("overlay", NAMES)
def test_operators_know_every_field(overlay: str) -> None:
    for kind, plural in FOREIGN.items():
        for document in of_kind(overlay, kind):
            jsonschema.Draft202012Validator(crd_schema.load(plural)).validate(document)


def test_a_misspelt_field_would_be_seen() -> None:
    (service,) = json.loads(json.dumps(of_kind("gpu-prod", "RayService")))
    schema = jsonschema.Draft202012Validator(crd_schema.load("rayservices"))
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["idleTimeoutSecondz"] = 60
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "x"
    del service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]
    said = " ".join(error.message for error in schema.iter_errors(service))
    assert "idleTimeoutSecondz" in said and "'x' is not of type 'integer'" in said and "'template' is a required" in said


@pytest.mark.parametrize("overlay", NAMES)
def test_the_operators_further_rules_are_about_fields_that_we_leave_alone(overlay: str) -> None:
    """The rules in CEL of KubeRay 1.7: what may not change, who manages, and when a job's cluster is deleted."""
    (service,) = of_kind(overlay, "RayService")
    told = json.dumps(service)
    assert "managedBy" not in told and "deletionStrategy" not in told
    assert cluster(overlay)["gcsFaultToleranceOptions"]["backend"] == "redis", "cannot be changed later"


@pytest.mark.parametrize("overlay", NAMES)
def test_kubernetes_knows_every_field(overlay: str) -> None:
    for document in documents(overlay):
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, BUILT_IN, strict=True)


@pytest.mark.parametrize("overlay", NAMES)
def test_pod_templates_are_pods(overlay: str) -> None:
    for name, template in pods(overlay).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, BUILT_IN, strict=True)


@pytest.mark.parametrize("overlay", NAMES)
def test_engine_files_follow_from_the_table_of_engines(overlay: str) -> None:
    late = stale(OVERLAYS / overlay)
    assert not late, f"an engine or a site.yaml changed: run `python -m k8s engines` and commit {late} of {overlay}"


@pytest.mark.parametrize("overlay", NAMES)
def test_serve_takes_the_config_and_the_application_is_built(overlay: str) -> None:
    from ray._common.utils import import_attr
    from ray.serve._private.build_app import build_app
    from ray.serve.schema import ServeDeploySchema

    from serve_app.service.args import ServeArgs

    schema = ServeDeploySchema.model_validate(serve_config(overlay))
    (application,) = schema.applications
    assert application.runtime_env == {}, "the code is in the image"
    build = import_attr(application.import_path)
    built = build_app(build(ServeArgs.model_validate(application.args)), name=application.name)
    names = {deployment.name for deployment in built.deployments}
    told = {entry.name for entry in application.deployments}
    assert told == {"api", "router", *read_site(OVERLAYS / overlay).served()}
    assert told - {"api"} <= names and len(names) == len(told), "the ingress keeps its own name"


def test_the_autoscaler_reads_the_groups_as_they_are_meant() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    custom = {"metadata": {"name": "lipsync", "namespace": "lipsync"}, "spec": cluster("gpu-prod")}
    types = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for name in engine_names():
        settings = replica_settings(name)
        if settings.gpus:
            group = types[group_of(name)]
            assert (group["min_workers"], group["resources"]["GPU"], group["resources"][resource_of(name)]) == (0, 1, 1)


def test_an_overlay_behind_its_site_is_seen(tmp_path: Path) -> None:
    copy = tmp_path / "overlays" / "mine"
    shutil.copytree(OVERLAYS / "gpu-prod", copy)
    assert not stale(copy)
    site = copy / "site.yaml"
    site.write_text(site.read_text() + "settings:\n  video_rewrite: {max_replicas: 3}\n")
    assert stale(copy) == ["serve.yaml"]
    for path, text in written(copy).items():
        path.write_text(text)
    args = yaml.safe_load((copy / "serve.yaml").read_text())["applications"][0]["args"]
    assert args["engines"]["video_rewrite"]["max_replicas"] == 3 and not stale(copy)
    site.write_text("gpu: true\n")
    with pytest.raises(OptionError, match=r"mine/site\.yaml"):
        read_site(copy)


def test_the_image_is_made_as_the_manifests_expect() -> None:
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    stages = {line[3]: index for index, line in enumerate(lines) if line[0] == "FROM" and len(line) > 3}
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in ("cpu", "gpu"):
        end = next((i for i, line in enumerate(lines) if i > stages[target] and line[0] == "FROM"), len(lines))
        assert lines[end - 1] == ["USER", "1000:1000"], f"{target} does not run as root"
    text = (ROOT / "Dockerfile").read_text()
    for package in ("torch", "triton"):
        (pin,) = {pin for pin in (*pins["dependencies"], *pins["optional-dependencies"]["dev"]) if pin.startswith(f"{package}==")}
        assert text.count(f"{package}==") == text.count(pin) > 0
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept) and {"serve_app", "deployments", "kernels", "pyproject.toml"} <= set(kept)


def test_the_image_holds_all_that_the_application_imports(tmp_path: Path) -> None:
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            kept = ROOT / line[1:]
            copy = shutil.copytree if kept.is_dir() else shutil.copy
            copy(kept, tmp_path / kept.name)
    code = "import serve_app.app, serve_app.batch, serve_app.batch_command, serve_app.service.policy; print(serve_app.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == tmp_path / "serve_app"
