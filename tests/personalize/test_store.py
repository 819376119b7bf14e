"""A template made on one machine and said on others: all that they share is an object store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from k8s.batch import Batch, command
from serve_app.batch_command import batch
from serve_app.batches.manifest import Row
from serve_app.batches.rows import Place, shared, values_here
from serve_app.cli import app
from serve_app.media_store import MediaStore
from serve_app.script import Value

SCRIPT = 'segments:\n  - {start: 1.3, end: 2.4, text: "Hello {{customer_name}}"}\n'
Lipsync = Callable[..., Result]
PROGRAM = typer.Typer()
PROGRAM.command()(batch)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server."""
    moto_server = pytest.importorskip("moto.server", reason="no S3 server here; install moto[server]")
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty one, known as a pod knows it: by its environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    httpx.put(f"{server}/{name}").raise_for_status()
    return f"s3://{name}"


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lipsync:
    """Run a command on a machine with a cache of its own."""

    def run(machine: str, program: typer.Typer, *words: str | Path) -> Result:
        monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / machine))
        return CliRunner().invoke(program, [*map(str, words)])

    return run


def served(store: str) -> dict[str, object]:
    """A server's document as far as a batch reads it."""
    options = {"name": "fake", "ray_actor_options": {"num_gpus": 0}}
    application = {"args": {"store": store, "engines": {"fake": {"max_replicas": 1}}}, "deployments": [options]}
    return {"spec": {"serveConfigV2": yaml.safe_dump({"applications": [application]})}}


def keep(on: Lipsync, message: Path, store: str, script: Path, *more: str) -> None:
    made = on(
        "laptop",
        app,
        "template",
        "create",
        message,
        script,
        "--name",
        "trip",
        "--engine",
        "fake",
        "--store",
        store,
        "--workers",
        "1",
        "-q",
        *more,
    )
    assert made.exit_code == 0, made.output


def test_a_cluster_says_what_a_laptop_made(bucket: str, on: Lipsync, message: Path, tmp_path: Path) -> None:
    store, script, manifest = f"{bucket}/lipsync", tmp_path / "s.yaml", tmp_path / "names.csv"
    script.write_text(SCRIPT)
    keep(on, message, store, script)
    manifest.write_text("id,customer_name\nann,Ann\n")
    words = command(Batch(str(manifest), "trip", f"{bucket}/may", "fake"), str(manifest), served(store))
    assert words[:3] == ["python", "-m", "serve_app.batch"] and words[words.index("--store") + 1] == store
    asked = ["--no-ray" if word == "--ray" else word for word in words[3:]]
    done = on("pod-1", PROGRAM, *asked)
    assert done.exit_code == 0 and "1 rows: 1 done" in done.output, done.output
    results = MediaStore(f"{bucket}/may", tmp_path / "look")
    assert {"ann.mp4", "records/ann.json", "report.csv", "report.html"} <= {key for key, _ in results.keys("")}
    kept = [key for key, _ in MediaStore(store, tmp_path / "look2").keys("avatars")]
    assert len({key.split("/")[1] for key in kept}) == 1, "the person was learned once"
    assert "1 rows: 1 kept" in on("pod-2", PROGRAM, *asked).output, "another pod goes on where the first was"


def test_recordings_beside_a_manifest_reach_every_machine(
    bucket: str, on: Lipsync, message: Path, speech_file: Path, tmp_path: Path
) -> None:
    store, script = f"{bucket}/lipsync", tmp_path / "s.yaml"
    script.write_text(SCRIPT)
    keep(on, message, store, script)
    office = MediaStore(f"{bucket}/office", tmp_path / "office")
    (tmp_path / "names.csv").write_text("id,customer_name\nann,@ann.wav\nbob,@bob.wav\neve,@../../eve.wav\n")
    office.put(tmp_path / "names.csv", "names.csv")
    office.put(speech_file, "ann.wav")
    asked = (f"{bucket}/office/names.csv", "-t", "trip", "-o", f"{bucket}/may", "-e", "fake", "--store", store, "--workers", "1")
    refused = on("pod-1", PROGRAM, *asked, "--sync-mode", "cut_off")
    assert refused.exit_code == 2 and "row 2 (bob)" in refused.output and "row 3 (eve)" in refused.output, refused.output
    done = on("pod-1", PROGRAM, *asked, "--sync-mode", "cut_off", "--skip-invalid")
    assert done.exit_code == 0 and "1 done, 2 invalid" in done.output, done.output
    places = [Place("trip", store, f"{bucket}/may", tmp_path / machine / "mirror") for machine in ("pod-1", "pod-3")]
    sent = shared(places[0], Row(1, "ann", {"customer_name": Value(audio=speech_file)}))
    heard = values_here(places[1], sent)["customer_name"].audio
    assert heard is not None and heard.is_relative_to(tmp_path / "pod-3") and heard.read_bytes() == speech_file.read_bytes()


def test_a_template_that_was_replaced_is_the_new_one_everywhere(bucket: str, on: Lipsync, message: Path, tmp_path: Path) -> None:
    store, script, manifest = f"{bucket}/lipsync", tmp_path / "s.yaml", tmp_path / "names.csv"
    script.write_text(SCRIPT)
    manifest.write_text("id,customer_name\nann,Ann\n")
    keep(on, message, store, script)
    say = (
        "personalize",
        "trip",
        "--var",
        "customer_name=Ann",
        "--engine",
        "fake",
        "--store",
        store,
        "--workers",
        "1",
        "-q",
        "-o",
    )
    assert on("pod", app, *say, tmp_path / "old.mp4").exit_code == 0
    script.write_text(SCRIPT.replace("Hello", "Goodbye"))
    keep(on, message, store, script, "--replace")
    assert on("pod", app, *say, tmp_path / "new.mp4").exit_code == 0
    assert on("laptop", app, *say, tmp_path / "own.mp4").exit_code == 0
    assert (tmp_path / "old.mp4").read_bytes() != (tmp_path / "new.mp4").read_bytes() == (tmp_path / "own.mp4").read_bytes()
    listed = on("desk", app, "template", "list", "--store", store).output
    assert "trip" in listed and "customer_name" in listed
    assert "Goodbye" in on("desk", app, "template", "show", "trip", "--store", store).output
    assert on("desk", app, "template", "delete", "trip", "--store", store).exit_code == 0
    for machine in ("desk", "pod", "laptop"):
        gone = on(machine, app, *say, tmp_path / "none.mp4")
        assert gone.exit_code == 2 and "expected a template" in gone.output, "deleted for everybody"
    other = on("pod", app, *say[:7], f"{bucket}/elsewhere", "-q", "-o", tmp_path / "none.mp4")
    assert other.exit_code == 2 and "expected a template" in other.output, "copies of one store are not those of another"
