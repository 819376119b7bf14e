"""`python -m k8s`, run as a person runs it, against an API server that keeps Kubernetes' rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crd_schema
import pytest
import yaml
from click.testing import Result
from fake_cluster import FakeCluster
from fake_operator import FakeOperator
from typer.testing import CliRunner

from k8s.cli import app
from k8s.engines import written
from k8s.render import OVERLAYS

ROOT = Path(__file__).resolve().parents[2]
METRICS = """\
lipsync_jobs{status="queued"} 7.0
lipsync_jobs{status="running"} 2.0
lipsync_queue_seconds 31.5
lipsync_replicas{engine="video_rewrite"} 2.0
"""
RUNNER = CliRunner(env={"COLUMNS": "200"})
Run = Callable[..., Result]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    found = FakeCluster()
    yield found
    found.close()


@pytest.fixture
def operator(cluster: FakeCluster) -> Iterator[FakeOperator]:
    for plural in ("rayservices", "rayjobs"):
        cluster.install(definition(plural))
    for plural in ("servicemonitors", "podmonitors", "prometheusrules"):
        cluster.install(definition(plural, "monitoring.coreos.com"))
    found = FakeOperator(cluster)
    yield found
    found.stop()


@pytest.fixture
def run(cluster: FakeCluster, tmp_path: Path) -> Run:
    def call(*words: str, token: str = "admin") -> Result:
        return RUNNER.invoke(app, words, env={"KUBECONFIG": str(cluster.kubeconfig(tmp_path / f"{token}.yaml", token))})

    return call


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """gpu-prod as an operator would have it: with a key, and in a folder of its own."""
    for name in ("base", "onenode", "monitoring"):
        shutil.copytree(ROOT / "k8s" / name, tmp_path / name)
    mine = tmp_path / "overlays" / "mine"
    shutil.copytree(OVERLAYS / "gpu-prod", mine)
    site = yaml.safe_load((mine / "site.yaml").read_text())
    site["serve"]["api"]["api_keys"] = ["0" * 64]
    (mine / "site.yaml").write_text(yaml.safe_dump(site))
    for path, text in written(mine).items():
        path.write_text(text)
    return mine


def definition(plural: str, group: str = "ray.io", without: str = "") -> dict[str, Any]:
    """A CRD; `without` one field of the cluster's spec, as an older operator has it."""
    schema = crd_schema.load(plural)
    if without:
        del schema["properties"]["spec"]["properties"]["rayClusterConfig"]["properties"][without]
    versions = [{"name": "v1", "served": True, "schema": {"openAPIV3Schema": schema}}]
    return {"kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"}, "spec": {"versions": versions}}


def service(cluster: FakeCluster) -> dict[str, Any]:
    return cluster.objects.get(("rayservices", "lipsync", "lipsync"))


def secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"a": "YQ=="}}


def test_a_demo_goes_from_nothing_to_served_and_away_again(cluster: FakeCluster, operator: FakeOperator, run: Run) -> None:
    done = run("deploy", "-k", "cpu-demo")
    assert done.exit_code == 0, done.stderr
    assert "RayService/lipsync  made" in done.stdout and "application DEPLOYING" in done.stdout
    assert done.stdout.index("Namespace/lipsync  made") < done.stdout.index("RayService/lipsync")
    assert done.stdout.rstrip().endswith("`python -m k8s status` shows it")

    again = run("deploy", "-k", "cpu-demo")
    assert again.exit_code == 0 and "as it was" in again.stdout
    assert "changed" not in again.stdout and "made" not in again.stdout, "to apply twice changes nothing"

    cluster.services["/ready"] = json.dumps({"status": "ready", "engines": {"video_rewrite": "ready", "portrait": "on demand"}})
    cluster.services["/metrics"] = METRICS
    told = run("status")
    assert told.exit_code == 0, told.stderr
    assert "application RUNNING" in told.stdout and "video_rewrite: ready, 2 running" in told.stdout
    assert "7 waiting, 2 running; the oldest waits 32 s" in told.stdout
    assert "1 of 1" in told.stdout and "1 to 2" in told.stdout

    gone = run("delete", "-k", "cpu-demo", "--yes")
    assert gone.exit_code == 0, gone.stderr
    assert not cluster.objects.find("rayservices", "lipsync")
    assert cluster.objects.find("persistentvolumeclaims", "lipsync"), "data stays unless one says --data"
    assert run("delete", "-k", "cpu-demo", "--yes", "--data").exit_code == 0
    assert not cluster.objects.find("persistentvolumeclaims", "lipsync") and not cluster.objects.find("namespaces", "")


def test_an_upgrade_leaves_no_gap_and_tells_the_way_back(cluster: FakeCluster, operator: FakeOperator, run: Run) -> None:
    assert run("deploy", "-k", "dev").exit_code == 0
    old = service(cluster)["status"]["activeServiceStatus"]["rayClusterName"]
    done = run("upgrade", "-k", "dev", "--image", "registry.example:5000/lipsync:2")
    assert done.exit_code == 0, done.stderr
    new = service(cluster)["status"]["activeServiceStatus"]["rayClusterName"]
    assert new != old and f"new cluster {new}" in done.stdout and f"{old} ends its work" in done.stdout
    images = {pod["spec"]["containers"][0]["image"] for pod in cluster.objects.find("pods", "lipsync", f"ray.io/cluster={new}")}
    assert images == {"registry.example:5000/lipsync:2"}

    forgotten = run("deploy", "-k", "dev")
    assert (
        forgotten.exit_code == 7 and "give --image registry.example:5000/lipsync:2, or move it with `upgrade`" in forgotten.stderr
    )
    assert run("deploy", "-k", "dev", "--image", "registry.example:5000/lipsync:2").exit_code == 0
    assert service(cluster)["status"]["activeServiceStatus"]["rayClusterName"] == new

    operator.stuck = True
    stuck = run("upgrade", "-k", "dev", "--image", "registry.example:5000/lipsync:3", "--timeout", "2")
    assert stuck.exit_code == 7
    assert "Unschedulable" in stuck.stderr and "`upgrade --image registry.example:5000/lipsync:2` goes back" in stuck.stderr
    assert service(cluster)["status"]["activeServiceStatus"]["rayClusterName"] == new, "the old one still serves"


def test_production_says_what_is_missing_before_anything_is_made(
    cluster: FakeCluster, operator: FakeOperator, run: Run, production: Path
) -> None:
    refused = run("deploy", "-k", "gpu-prod")
    assert refused.exit_code == 2 and "lipsync key" in refused.stderr
    monitors = cluster.objects.delete(("customresourcedefinitions", "", "podmonitors.monitoring.coreos.com"))
    unmonitored = run("deploy", "-k", str(production))
    assert unmonitored.exit_code == 7 and "install the Prometheus operator, or take ../../monitoring out" in unmonitored.stderr
    cluster.install(monitors)
    missing = run("deploy", "-k", str(production))
    assert missing.exit_code == 7 and "lipsync-database, lipsync-redis" in missing.stderr
    assert "kubectl -n lipsync create secret generic lipsync-database --from-literal=url=" in missing.stderr
    assert not cluster.objects.find("rayservices", "lipsync")
    for name in ("lipsync-database", "lipsync-redis"):
        cluster.objects.put(("secrets", "lipsync", name), secret(name), "me", "create")
    done = run("deploy", "-k", str(production))
    assert done.exit_code == 0, done.stderr


def test_scaling_reaches_the_running_cluster_and_deploy_does_not_undo_it_silently(
    cluster: FakeCluster, operator: FakeOperator, run: Run, production: Path
) -> None:
    for name in ("lipsync-database", "lipsync-redis"):
        cluster.objects._found["namespaces", "", "lipsync"] = {"kind": "Namespace", "metadata": {"name": "lipsync"}}
        cluster.objects.put(("secrets", "lipsync", name), secret(name), "me", "create")
    del cluster.objects._found["namespaces", "", "lipsync"]
    assert run("deploy", "-k", str(production)).exit_code == 0
    before = service(cluster)["status"]["activeServiceStatus"]["rayClusterName"]
    done = run("scale", "vasa1", "--min", "1", "--max", "16")
    assert done.exit_code == 0, done.stderr
    (application,) = yaml.safe_load(service(cluster)["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["engines"]["vasa1"] == {"min_replicas": 1, "max_replicas": 16}
    running = cluster.objects.get(("rayclusters", "lipsync", before))
    per_pod = 1 / next(e["ray_actor_options"]["num_gpus"] for e in application["deployments"] if e["name"] == "vasa1")
    (group,) = [group for group in running["spec"]["workerGroupSpecs"] if group["groupName"] == "gpu-vasa1"]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 16 / per_pod)
    assert service(cluster)["status"]["activeServiceStatus"]["rayClusterName"] == before, "no new cluster for a number"

    undone = run("deploy", "-k", str(production))
    assert undone.exit_code == 7 and "lipsync-k8s-scale" in undone.stderr and "serveConfigV2" in undone.stderr
    assert run("deploy", "-k", str(production), "--force").exit_code == 0
    (application,) = yaml.safe_load(service(cluster)["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["engines"]["vasa1"]["min_replicas"] == 0
    unknown = run("scale", "nobody", "--max", "2")
    assert unknown.exit_code == 2 and "expected an engine of" in unknown.stderr


def test_a_batch_is_followed_and_goes_on_after_a_failure(
    cluster: FakeCluster, operator: FakeOperator, run: Run, tmp_path: Path
) -> None:
    manifest = tmp_path / "names.csv"
    manifest.write_text("customer_name\nJohn\nSiobhan\n")
    words = ("batch", str(manifest), "--template", "welcome", "--out", "s3://out/may", "--skip-invalid")
    early = run(*words)
    assert early.exit_code == 7 and "run `deploy` first" in early.stderr
    assert run("deploy", "-k", "dev").exit_code == 0
    operator.failing_jobs = 1
    failed = run(*words)
    assert failed.exit_code == 7 and "row 2: no face" in failed.stderr and "goes on where it was" in failed.stderr
    asked = "python -m serve_app.batch /manifest/names.csv --template welcome --out s3://out/may --engine video_rewrite"
    assert f"{asked} --store /data/lipsync --ray --workers 1 --gpus 0 --skip-invalid" in failed.stdout
    assert "row 2 of 2" in failed.stdout, "the log is shown"
    done = run(*words)
    assert done.exit_code == 0 and "going on with the rows that are not done" in done.stdout, done.stderr
    assert "has succeeded before" in run(*words).stdout
    (job,) = cluster.objects.find("rayjobs", "lipsync")
    (config,) = [
        found for found in cluster.objects.find("configmaps", "lipsync") if found["metadata"]["name"] == job["metadata"]["name"]
    ]
    assert config["data"] == {"names.csv": manifest.read_text()}
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert {"name": "manifest", "mountPath": "/manifest", "readOnly": True} in head["spec"]["containers"][0]["volumeMounts"]
    assert all(group["minReplicas"] == 0 for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"])
    (tmp_path / "big.csv").write_bytes(b"x" * 1_000_000)
    assert "expected an engine of video_rewrite" in run(*words, "--engine", "vasa1").stderr
    assert "object store" in run("batch", str(tmp_path / "big.csv"), "-t", "w", "-o", "s3://out").stderr


@pytest.mark.parametrize(
    ("manifest", "out", "words"),
    [
        ("nmaes.csv", "s3://out/may", "got 'nmaes.csv': no such file"),
        ("/home/me/names.csv", "s3://out/may", "as s3://bucket/path or below /data"),
        ("/data/names.csv", "out", "expected --out as s3://bucket/path or below /data, got 'out'"),
        ("/data/names.csv", "/data/../cache/out", "a folder of a pod goes with it"),
    ],
)
def test_a_batch_whose_files_only_a_pod_would_see_is_refused(manifest: str, out: str, words: str) -> None:
    from deployments.errors import OptionError
    from k8s.batch import Batch, documents
    from k8s.render import render

    (server,) = [document for document in render(OVERLAYS / "dev") if document["kind"] == "RayService"]
    with pytest.raises(OptionError, match=re.escape(words)):
        documents(Batch(manifest, "welcome", out), server)
    (job,) = documents(Batch("/data/names.csv", "welcome", "/data/may"), server)
    assert "serve_app.batch /data/names.csv --template welcome --out /data/may" in job["spec"]["entrypoint"]


def test_a_batch_is_given_the_devices_of_its_engine_and_options_that_it_knows(production: Path) -> None:
    import jsonschema
    import typer
    from typer.testing import CliRunner as Cli

    from k8s.batch import Batch, documents
    from k8s.render import render
    from serve_app.batch_command import batch

    (server,) = [document for document in render(production) if document["kind"] == "RayService"]
    (job,) = documents(Batch("s3://lipsync/names.csv", "welcome", "s3://out/may", "vasa1"), server)
    jsonschema.Draft202012Validator(crd_schema.load("rayjobs")).validate(job)
    groups = [group["groupName"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    assert groups == ["cpu", "gpu-vasa1"], "no other engine's machines"
    assert "--workers 8 --gpus 0.25" in job["spec"]["entrypoint"]

    program = typer.Typer()
    program.command()(batch)
    words = job["spec"]["entrypoint"].split()[3:]
    refused = Cli().invoke(program, [*words, "--no-such-option"])
    assert refused.exit_code == 2 and "No such option: --no-such-option" in refused.output, "all other options are known"


def test_what_the_cluster_refuses_is_said_in_one_line(cluster: FakeCluster, run: Run, tmp_path: Path) -> None:
    missing = run("deploy", "-k", "dev")
    assert missing.exit_code == 7 and "does not know the kind RayService" in missing.stderr and "helm install" in missing.stderr
    cluster.install(definition("rayservices", without="authOptions"))
    old = run("deploy", "-k", "dev")
    assert old.exit_code == 7 and "no field spec.rayClusterConfig.authOptions" in old.stderr and "too old" in old.stderr
    cluster.install(definition("rayservices"))
    viewer = run("deploy", "-k", "dev", token="viewer")
    assert viewer.exit_code == 7 and 'User "viewer" cannot patch' in viewer.stderr
    nobody = run("status", token="stranger")
    assert nobody.exit_code == 7 and "401" in nobody.stderr
    for found in (missing, old, viewer, nobody):
        assert len(found.stderr.strip().splitlines()) == 1 and "Traceback" not in found.stderr
    assert not cluster.objects.find("namespaces", "")


def test_a_fault_in_a_manifest_is_found_by_the_cluster(
    cluster: FakeCluster, operator: FakeOperator, run: Run, production: Path
) -> None:
    patch = production / "production.yaml"
    patch.write_text(patch.read_text().replace("/minReplicas\n  value: 2", "/minReplicas\n  value: two"))
    for name in ("lipsync-database", "lipsync-redis"):
        cluster.objects._found["secrets", "lipsync", name] = secret(name)
    refused = run("deploy", "-k", str(production))
    assert refused.exit_code == 7, refused.stdout
    assert "refuses RayService lipsync" in refused.stderr and "'two' is not of type 'integer'" in refused.stderr


def test_nobody_at_the_address(tmp_path: Path, run: Run, cluster: FakeCluster) -> None:
    cluster.close()
    gone = run("status")
    assert gone.exit_code == 7 and "is it up" in gone.stderr
    command = [sys.executable, "-m", "k8s", "status"]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    none = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert none.returncode == 7 and "set KUBECONFIG" in none.stderr
