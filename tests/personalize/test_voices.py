"""Voices that an operator brought, through scripts, the command line and the API: only listed ones have a name."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from deployments.contracts import Segment
from deployments.errors import OptionError, SpeechError
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from serve_app.batches.manifest import Row
from serve_app.batches.rows import row_key
from serve_app.cache import Cache
from serve_app.client import fields_of
from serve_app.executor import SerialExecutor
from serve_app.personalize import Wanted, create_template, personalize
from serve_app.pipeline import run_sync
from serve_app.request import SpeechSource, SyncRequest, read_voice
from serve_app.script import Value, parse_script, parse_value
from serve_app.templates import Template, Templates


def kit_of(name: str, folder: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    if not hasattr(module, "annotations"):  # not run yet
        spec.loader.exec_module(module)
    return module


voices, api = kit_of("voice_kit", "audio"), kit_of("api_kit", "service")
SCRIPT = """
voice: anna
segments:
  - {start: 0.2, end: 0.7, text: "{{name}}"}
  - {start: 0.9, end: 1.6, text: "Hello", voice: default}
"""


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that lists the voice `anna`, who says nothing but an i of 3 kHz or so when asked for one."""
    folder = tmp_path / "voices"
    monkeypatch.setenv("LIPSYNC_VOICES", str(folder))
    return voices.write_voice(folder, "anna", inference={"noise_scale": 0, "length_scale": 2, "noise_w": 0})


def loudest(samples: NDArray[np.float32]) -> float:
    """Hertz."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax()) * 48000 / len(samples)


def test_a_script_names_a_voice_for_all_lines_and_for_one(listed: Path) -> None:
    script = parse_script(SCRIPT)
    first, second = script.fill({"name": Value("I", "iː")})
    assert script.voices() == ("anna", "default") and (first.voice, second.voice) == (None, "default")
    assert parse_value("name", "X|ipa:ʔ", voice=script.strictest()).ipa == "ʔ", "the voice itself tells what it cannot say"
    with pytest.raises(SpeechError, match="ʔ"):
        parse_value("name", "X|ipa:ʔ")
    with pytest.raises(OptionError, match="voices"):
        parse_script(SCRIPT.replace("voice: default", "voices: default"))


def test_rows_of_another_voice_are_other_rows_and_old_rows_keep_their_key(listed: Path, tmp_path: Path) -> None:
    def key(text: str) -> str:
        made = Template("t", tmp_path, tmp_path / "clip.mp4", "digest", parse_script(text))
        return row_key(made, Row(1, "a", {"name": Value("Ann")}), Wanted("fake"))

    plain = SCRIPT.replace(", voice: default", "")
    assert len({key(SCRIPT), key(plain), key(plain.replace("anna", "default"))}) == 3


def test_a_template_speaks_with_the_listed_voice(listed: Path, message: Path, tracked: Cache, tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    parts = (message, tmp_path / "script.yaml")
    template = create_template(Templates(tracked.folder), "anna", parts, "fake", "largest", tracked, SerialExecutor())
    values = {"name": parse_value("name", "I|ipa:iː", voice=template.script.strictest())}
    personalize(template, values, tmp_path / "out.mp4", Wanted("fake"), tracked, SerialExecutor())
    said = read_sound(tmp_path / "out.mp4", 48000)
    assert loudest(said[round(0.25 * 48000) : round(0.28 * 48000)]) == pytest.approx(voices.hertz_of("i"), abs=60)
    (tmp_path / "script.yaml").write_text(SCRIPT.replace("anna", "berta"))
    with pytest.raises(SpeechError, match="expected a voice of default, anna; got 'berta'"):
        create_template(Templates(tracked.folder), "no", parts, "fake", "largest", tracked, SerialExecutor())


def test_the_command_line_takes_a_name_or_a_file(listed: Path, face_clip: Path, tmp_path: Path, own_cache: Path) -> None:
    from serve_app.cli import app

    told = CliRunner().invoke(app, ["voices"]).output
    assert "default" in told and "anna" in told and "16000 Hz" in told
    elsewhere = voices.write_voice(tmp_path / "mine", "berta")
    assert read_voice("anna") == "anna" and read_voice("anna#2") == "anna#2"
    assert read_voice(str(elsewhere)) == elsewhere and read_voice("v.onnx#2") == Path("v.onnx#2")
    out = tmp_path / "out.mp4"
    words = ["sync", str(face_clip), "--text", "I see.", "--voice", str(elsewhere), "-e", "fake", "-o", str(out), "--no-report"]
    done = CliRunner().invoke(app, [*words, "--workers", "1", "-q"])
    assert done.exit_code == 0, done.output
    assert probe(out).frames == 45 and float(np.abs(read_sound(out, 48000)).max()) > 0.5
    for voice in ("berta", str(tmp_path / "none.onnx")):
        done = CliRunner().invoke(
            app, ["sync", str(face_clip), "--text", "I see.", "--voice", voice, "-o", str(tmp_path / "no.mp4")]
        )
        assert done.exit_code == 2 and "expected a voice" in done.output and not (tmp_path / "no.mp4").exists()


def test_a_file_of_the_caller_is_not_a_voice_of_a_server(face_clip: Path, tmp_path: Path) -> None:
    def asked(voice: str | Path) -> SyncRequest:
        return SyncRequest(face_clip, (SpeechSource(text="Hello"),), tmp_path / "out.mp4", voice=voice)

    assert fields_of(asked("anna"))["voice"] == "anna"
    with pytest.raises(OptionError, match="voice of the server"):
        fields_of(asked(Path("anna.onnx")))


def test_segments_of_one_job_may_have_voices_of_their_own(listed: Path, face_clip: Path, tmp_path: Path) -> None:
    first = SpeechSource(text="I", segment=Segment(Fraction(0), Fraction(1)), voice="anna")
    second = SpeechSource(text="I", segment=Segment(Fraction(1), Fraction(9, 5)))
    out = tmp_path / "out.mp4"
    run_sync(SyncRequest(face_clip, (first, second), out, "fake"), Cache(tmp_path / "cache"), SerialExecutor())
    sound = read_sound(out, 48000)
    assert loudest(sound[:48000]) > 1000 > loudest(sound[48000:]), "a high tone, then a person"


def test_the_api_takes_listed_voices_and_never_a_path(listed: Path, face_clip: Path, tmp_path: Path) -> None:
    secret = voices.write_voice(tmp_path / "secret", "berta")
    with api.serving(tmp_path / "service") as server, server.worker(), server.client() as client:
        (listed.parent / "broken.onnx").write_bytes(b"")
        told = {voice["id"]: voice for voice in client.get("/v1/voices").json()["data"]}
        assert set(told) == {"default", "anna"} and (told["anna"]["language"], told["anna"]["rate"]) == ("en-us", 16000)
        (listed.parent / "broken.onnx").unlink()
        data = {"model": "fake", "text": "I see.", "report": "false"}
        files = {"video": face_clip.read_bytes()}
        for voice in (str(secret), "../secret/berta", "berta", "anna.onnx", "file:///etc/passwd"):
            answer = client.post("/v1/videos", data={**data, "voice": voice}, files=files)
            assert "default, anna" in api.refusal(answer, 400, param="voice")
        answer = client.post("/v1/videos", data={**data, "voice": "anna", "text": "Привет"}, files=files)
        api.refusal(answer, 400, param="text")
        sent = client.post("/v1/videos", data={**data, "voice": "anna"}, files=files)
        assert sent.status_code == 200, sent.text
        done = api.wait_for(client, f"/v1/videos/{sent.json()['id']}")
        assert done["status"] == "completed" and server.jobs.get(done["id"]).spec.speech[0].voice == "anna"
        (tmp_path / "out.mp4").write_bytes(client.get(done["content_url"]).content)
        assert float(np.abs(read_sound(tmp_path / "out.mp4", 48000)).max()) > 0.5
        for voice, status in (("berta", 400), ("anna", 200)):
            script = SCRIPT.replace("anna", voice)
            answer = client.post("/v1/templates", data={"model": "fake", "script": script}, files=files)
            assert answer.status_code == status, answer.text
        template = api.wait_for(client, f"/v1/templates/{answer.json()['id']}")
        body = {"template_id": template["id"], "variables": {"name": {"text": "I", "ipa": "iː"}}, "report": False}
        video = client.post("/v1/videos", json=body)
        assert video.status_code == 200, video.text
        told = [speech.voice for speech in server.jobs.get(video.json()["id"]).spec.speech]
        assert told == ["anna", "default"] and api.wait_for(client, f"/v1/videos/{video.json()['id']}")["status"] == "completed"
        wrong = client.post("/v1/videos", json={**body, "variables": {"name": {"text": "I", "ipa": "ʀ"}}})
        api.refusal(wrong, 400, param="variables")
