"""Templates over HTTP, against a running server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from deployments.errors import LipSyncError
from serve_app.batches.manifest import ManifestError
from serve_app.batches.remote import run_remote
from serve_app.batches.rows import Place, RowResult
from serve_app.batches.run import Batch, run_batch
from serve_app.client import Remote, RemoteError
from serve_app.executor import SerialExecutor
from serve_app.personalize import Wanted

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).parents[1] / "service" / "api_kit.py")
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = {"segments": [{"start": 1.3, "end": 2.4, "text": "Hello {{customer_name}}"}]}
YAML = 'segments: [{start: 1.3, end: 2.4, text: "Hello {{customer_name}}"}]'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with kit.serving(tmp_path_factory.mktemp("service")) as server, server.worker():
        yield server


@pytest.fixture(scope="module")
def template(server: Any, message: Path) -> dict[str, Any]:
    with server.client() as client:
        sent = client.post("/v1/templates", data={"model": "fake", "script": YAML}, files={"video": message.read_bytes()})
        assert sent.status_code == 200, sent.text
        made = kit.wait_for(client, f"/v1/templates/{sent.json()['id']}")
    assert made["status"] == "completed", made
    return made


def packets(data: bytes, folder: Path) -> dict[float, bytes]:
    (folder / "content.mp4").write_bytes(data)
    with av.open(str(folder / "content.mp4")) as container:
        found = [p for p in container.demux(container.streams.video[0]) if p.size]
        return {float(p.pts * p.time_base): bytes(p) for p in found}


def test_a_template_says_what_it_must_be_told_and_stays(server: Any, template: dict[str, Any]) -> None:
    assert template["object"] == "template" and template["variables"] == ["customer_name"] and template["notes"] == []
    assert (template["size"], template["seconds"]) == ("256x256", "2.8")
    assert template["expires_at"] - template["completed_at"] > 5 * 365 * 86400
    with server.client() as client:
        listed = client.get("/v1/templates").json()["data"]
        assert [found["id"] for found in listed] == [template["id"]]
        assert client.get("/v1/avatars").json()["data"] == [] == client.get("/v1/videos").json()["data"]
        kit.refusal(client.get(f"/v1/avatars/{template['id']}"), 404)


def test_variables_become_a_video_whose_other_packets_are_the_templates(
    server: Any, template: dict[str, Any], message: Path, tmp_path: Path
) -> None:
    with server.client() as client:
        body = {"template_id": template["id"], "variables": {"customer_name": "Siobhan|ipa:ʃɪˈvɔːn"}, "report": False}
        sent = client.post("/v1/videos", json=body)
        assert sent.status_code == 200, sent.text
        assert sent.json()["template_id"] == template["id"] and sent.json()["prompt"] == "Hello Siobhan"
        done = kit.wait_for(client, f"/v1/videos/{sent.json()['id']}")
        assert done["status"] == "completed", done
        content, stream = client.get(done["content_url"]), client.get(f"/v1/videos/{done['id']}/stream")
    before, after = packets(message.read_bytes(), tmp_path), packets(content.content, tmp_path)
    kept = {round(time * 25) for time in before if before[time] == after[time]}
    assert len(after) == 70 and kept == {*range(30), *range(60, 70)}
    (tmp_path / "stream.mp4").write_bytes(stream.content)
    with av.open(str(tmp_path / "stream.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 70 and not any(frame.is_corrupt for frame in frames), "copied pieces stream too"


def test_words_too_long_may_make_the_video_longer(server: Any, template: dict[str, Any], tmp_path: Path) -> None:
    name = "Maximilian Alexander Bartholomew the Third"
    with server.client() as client:
        body = {"template_id": template["id"], "variables": {"customer_name": name}, "sync_mode": "bounce"}
        sent = client.post("/v1/videos", json=body)
        assert sent.status_code == 200, sent.text
        done = kit.wait_for(client, f"/v1/videos/{sent.json()['id']}")
        content, stream = client.get(done["content_url"]), client.get(f"/v1/videos/{done['id']}/stream")
        for _ in range(600):
            report = client.get(done["report_url"])
            if report.status_code != 409:
                break
            time.sleep(0.1)
    assert done["frames"] > 90 and float(done["seconds"]) == done["frames"] / 25
    for data in (content.content, stream.content):
        (tmp_path / "any.mp4").write_bytes(data)
        with av.open(str(tmp_path / "any.mp4")) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == done["frames"] and not any(frame.is_corrupt for frame in frames)
    assert report.status_code == 200 and report.json()["picture"]["upper_psnr"] > 35, "compared with the frames that are shown"


def test_a_recorded_name_comes_as_a_file(server: Any, template: dict[str, Any], speech_file: Path) -> None:
    with server.client() as client:
        data = {
            "template_id": template["id"],
            "variables": '{"customer_name": {"audio": "john"}}',
            "report": "false",
            "sync_mode": "cut_off",
        }
        sent = client.post("/v1/videos", data=data, files={"john": ("john.wav", speech_file.read_bytes())})
        assert sent.status_code == 200, sent.text
        job = server.jobs.get(sent.json()["id"])
        sound = job.spec.speech[0].pieces[1].audio
        assert sound in server.jobs.keys_in_use() and server.media.exists(sound)
        assert kit.wait_for(client, f"/v1/videos/{job.id}")["status"] == "completed"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"variables": {}}, "variables"),
        ({"variables": {"customer_name": "A", "other": "B"}}, "variables"),
        ({"variables": {"customer_name": "<speak>"}}, "variables.customer_name"),
        ({"variables": {"customer_name": "שלום"}}, "variables"),
        ({"variables": {"customer_name": "@/etc/passwd" * 20}}, "variables.customer_name"),
        ({"variables": {"customer_name": "Maximilian Alexander Bartholomew"}}, "variables"),
        ({"variables": {"customer_name": {"text": "A", "ipa": "?"}}}, "variables.customer_name"),
        ({"sync_mode": "loop"}, "sync_mode"),
        ({"text": "Hello"}, "text"),
        ({"options": {"face": "1"}}, "options.face"),
        ({"template_id": "template_00"}, "template_id"),
    ],
)
def test_what_does_not_fit_a_template_is_refused(
    server: Any, template: dict[str, Any], change: dict[str, Any], param: str
) -> None:
    body = {"template_id": template["id"], "variables": {"customer_name": "Ann"}, **change}
    with server.client() as client:
        kit.refusal(client.post("/v1/videos", json=body), 404 if param == "template_id" else 400, param=param)


def test_variables_need_a_template(server: Any) -> None:
    with server.client() as client:
        kit.refusal(client.post("/v1/videos", json={"variables": {"a": "b"}}), 400, param="variables")


@pytest.mark.parametrize(
    "script",
    [
        "segments: []",
        "segments: [{start: 0, end: 1, text: Hello}]",
        'segments: [{start: 0, end: 9, text: "{{a}}"}]',
        'segments: [{start: 0, end: 2, text: "{{a}}"}, {start: 1, end: 2.5, text: "b"}]',
        "!!python/name:os.system",
        'segments: [{start: 0, end: 1, text: "Привет {{name}}"}]',
        "transcript: nothing to say anew",
        'transcript: "Hello [{{name}}"',
        'transcript: "Привет {{name|said:Иван}}"',
    ],
)
def test_a_script_that_cannot_be_used_is_refused(server: Any, message: Path, script: str) -> None:
    with server.client() as client:
        before = server.files()
        sent = client.post("/v1/templates", data={"model": "fake", "script": script}, files={"video": message.read_bytes()})
        kit.refusal(sent, 400, param="script")
        assert server.files() == before, "a refusal leaves nothing behind"


def test_a_deleted_template_is_gone_and_other_callers_never_saw_it(server: Any, message: Path) -> None:
    with server.client() as client:
        asset = client.post("/v1/assets", files={"file": ("m.mp4", message.read_bytes())}).json()["id"]
        sent = client.post("/v1/templates", json={"model": "fake", "video": asset, "script": SCRIPT}).json()
        assert kit.wait_for(client, f"/v1/templates/{sent['id']}")["status"] == "completed"
        kept = server.media.root / "templates" / sent["id"]
        assert (kept / "script.yaml").is_file()
        assert client.delete(f"/v1/templates/{sent['id']}").json()["object"] == "template.deleted"
        assert not kept.exists(), "no batch finds it any more"
        kit.refusal(client.get(f"/v1/templates/{sent['id']}"), 404)
        body = {"template_id": sent["id"], "variables": {"customer_name": "Ann"}}
        kit.refusal(client.post("/v1/videos", json=body), 404, param="template_id")


def test_a_batch_says_a_template_of_the_server(server: Any, template: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,customer_name\nann,Ann\n")
    place = Place(template["id"], str(server.media.root), str(tmp_path / "out"), tmp_path / "mirror")
    avatars = set((server.media.root / "avatars").iterdir())
    _, results = run_batch(Batch(tmp_path / "rows.csv", place, Wanted("fake")), SerialExecutor())
    assert [result.status for result in results] == ["done"] and results[0].copied == 40
    assert set((server.media.root / "avatars").iterdir()) == avatars, "the person was learned already"


def test_a_transcript_is_enough(server: Any, spoken: Path) -> None:
    said = "Good morning everybody. Hello {{name|said:John}}, your trip to Paris is ready. See you soon."
    with server.client() as client:
        files = {"video": spoken.read_bytes()}
        sent = client.post("/v1/templates", data={"model": "fake", "script": json.dumps({"transcript": said})}, files=files)
        assert sent.status_code == 200 and sent.json()["variables"] == ["name"], sent.text
        made = kit.wait_for(client, f"/v1/templates/{sent.json()['id']}")
        assert made["status"] == "completed" and any("found at 2" in note and "{{name}}" in note for note in made["notes"]), made
        body = {"template_id": made["id"], "variables": {"name": "Ann"}, "report": False}
        video = client.post("/v1/videos", json=body)
        assert video.status_code == 200 and kit.wait_for(client, f"/v1/videos/{video.json()['id']}")["status"] == "completed"
        other = "My brother painted {{what|said:five}} fresh loaves of bread by the river with enough sugar for you."
        sent = client.post("/v1/templates", data={"model": "fake", "script": json.dumps({"transcript": other})}, files=files)
        assert sent.status_code == 200, "what it says is heard by a worker"
        failed = kit.wait_for(client, f"/v1/templates/{sent.json()['id']}")
        assert failed["status"] == "failed" and failed["error"]["code"] == "transcript_mismatch"


def test_the_document_tells_of_templates(server: Any) -> None:
    with server.client() as client:
        document = client.get("/openapi.json").json()
    assert "/v1/templates" in document["paths"] and "TemplateRequest" in document["components"]["schemas"]
    assert {"template_id", "variables"} <= set(document["components"]["schemas"]["VideoRequest"]["properties"])


def rows_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def sent(tmp_path: Path, template: str, mode: str = "silence") -> Batch:
    return Batch(tmp_path / "rows.csv", Place(template, "", str(tmp_path / "out"), tmp_path / "mirror"), Wanted("fake", mode))


def jobs_in(server: Any) -> set[str]:
    return {job.id for job in server.jobs.find(None, kind="video", limit=100)}


def test_a_batch_is_made_by_the_server_and_goes_on_where_it_was(
    server: Any, template: dict[str, Any], speech_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "john.wav").write_bytes(speech_file.read_bytes())
    manifest = rows_of(tmp_path, "id,customer_name\nann,Ann\nbob,Bob|ipa:bɑb\nann2,Ann\njohn,@john.wav\n")
    before = jobs_in(server)

    def again(mode: str = "cut_off") -> list[RowResult]:
        return run_remote(sent(tmp_path, template["id"], mode), Remote(server.url), at_once=2)[1]

    first = again()
    assert [(row.name, row.status, row.frames) for row in first] == [
        ("ann", "done", 70),
        ("bob", "done", 70),
        ("ann2", "same", 70),
        ("john", "done", 70),
    ]
    made = jobs_in(server) - before
    assert len(made) == 3, "equal rows are one job"
    told = {speech.pieces[-1].ipa for id_ in made for speech in server.jobs.get(id_).spec.speech}
    assert "bɑb" in told and {server.jobs.get(id_).spec.report for id_ in made} == {False}
    content = {row.name: (tmp_path / "out" / f"{row.name}.mp4").read_bytes() for row in first}
    assert content["ann"] == content["ann2"] and len(set(content.values())) == 3
    table = (tmp_path / "out" / "report.csv").read_text()
    assert ",70,,,job video_" in table, "what the server does not tell is not made up"
    assert "job video_" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "thumbnails" / "bob.jpg").stat().st_size > 500
    assert [row.status for row in again()] == ["kept"] * 4
    (tmp_path / "out" / "records" / "bob.json").unlink()
    (tmp_path / "out" / "bob.mp4").unlink()
    assert [row.status for row in again()] == ["kept", "done", "kept", "kept"]
    assert jobs_in(server) - before == made and (tmp_path / "out" / "bob.mp4").read_bytes() == content["bob"], "joined again"
    manifest.write_text("id,customer_name\njohn,@john.wav\n")
    for count in (1, 2):
        (failed,) = again("silence")
        assert failed.status == "failed" and "of speech for this slot" in failed.error
        assert len(jobs_in(server) - before - made) == count, "a job that failed is not joined: it is tried anew"


def test_a_killed_batch_joins_its_jobs_on_the_server(server: Any, template: dict[str, Any], tmp_path: Path) -> None:
    names = ("Eve", "Finn", "Gus", "Hal")
    manifest = rows_of(tmp_path, "\n".join(["id,customer_name", *(f"{name},{name}" for name in names)]))
    before = jobs_in(server)
    words = (
        "batch",
        manifest,
        "--template",
        template["id"],
        "--out",
        tmp_path / "out",
        "-e",
        "fake",
        "--server",
        server.url,
        "-q",
    )
    command = [sys.executable, "-m", "serve_app", *map(str, words)]
    environment = {**os.environ, "LIPSYNC_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    limit = time.monotonic() + 120
    while not jobs_in(server) - before and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert jobs_in(server) - before and len(list((tmp_path / "out").glob("*.mp4"))) < 4, "killed in the middle"
    summary, results = run_remote(sent(tmp_path, template["id"]), Remote(server.url))
    assert [row.name for row in results] == list(names) and not summary.counts.get("failed")
    assert len(jobs_in(server) - before) == 4, "no row was made twice"


def test_a_manifest_that_is_wrong_reaches_no_server(server: Any, template: dict[str, Any], tmp_path: Path) -> None:
    long = "Maximilian Alexander Bartholomew"
    rows_of(tmp_path, f"id,customer_name\na,Ann\nb,<break/>\nc,\nd,{long}\ne,שלום\n")
    asked = sent(tmp_path, template["id"])
    before = jobs_in(server)
    with pytest.raises(ManifestError) as caught:
        run_remote(asked, Remote(server.url))
    told = str(caught.value)
    assert all(words in told for words in ("4 that are not", "row 2 (b)", "row 3 (c)", "row 4 (d)", "for this slot", "row 5 (e)"))
    assert jobs_in(server) == before
    with pytest.raises(LipSyncError, match="template_00"):
        run_remote(sent(tmp_path, "template_00"), Remote(server.url))
    with pytest.raises(RemoteError, match="is it running"):
        run_remote(asked, Remote("http://127.0.0.1:9", patience=0.1))
