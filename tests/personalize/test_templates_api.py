"""Templates over HTTP, against a running server."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from serve_app.batches.rows import Place
from serve_app.batches.run import Batch, run_batch
from serve_app.executor import SerialExecutor
from serve_app.personalize import Wanted

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).parents[1] / "service" / "api_kit.py")
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

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
        ({"sync_mode": "bounce"}, "sync_mode"),
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
