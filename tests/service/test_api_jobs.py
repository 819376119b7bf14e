"""A job's life over HTTP, with plain requests and with the public `openai` client."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI

from serve_app.api import delivery
from serve_app.api.delivery import file_name
from serve_app.jobs.records import Job
from serve_app.jobs.spec import JobSpec

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with kit.serving(tmp_path_factory.mktemp("service")) as server, server.worker():
        yield server


@pytest.fixture(scope="module")
def done(server: Any, face_clip: Path, speech_file: Path) -> dict[str, Any]:
    """A job that was rendered in three chunks."""
    with server.client() as client:
        files = {"video": ("my clip.mp4", face_clip.read_bytes()), "audio": speech_file.read_bytes()}
        response = client.post("/v1/videos", data={"model": "fake", "chunks": "3", "metadata": '{"take": "1"}'}, files=files)
        assert response.status_code == 200, response.text
        assert response.json()["status"] == "queued"
        return kit.wait_for(client, f"/v1/videos/{response.json()['id']}")


def test_an_upload_becomes_a_video_of_the_same_size_and_length(server: Any, done: dict[str, Any]) -> None:
    from deployments.media.probe import probe

    assert (done["status"], done["progress"], done["size"], done["seconds"]) == ("completed", 100, "256x256", "1.8")
    assert done["metadata"] == {"take": "1"}
    assert done["expires_at"] > done["completed_at"] >= done["created_at"]
    clip = probe(server.media.fetch(server.jobs.get(done["id"]).result))
    assert (clip.frames, clip.width) == (45, 256)


def test_the_content_can_be_read_in_parts_and_is_not_sent_twice(server: Any, done: dict[str, Any]) -> None:
    with server.client() as client:
        whole = client.get(done["content_url"])
        assert whole.headers["content-type"] == "video/mp4"
        part = client.get(done["content_url"], headers={"Range": "bytes=100-199"})
        assert part.status_code == 206
        assert part.content == whole.content[100:200]
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
        head = client.head(done["content_url"])
        assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
        again = client.get(done["content_url"], headers={"If-None-Match": whole.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(done["content_url"], headers={"Range": "bytes=99999999-"}).status_code == 416
        kit.refusal(client.get(done["content_url"] + "?variant=thumbnail"), 400, param="variant")
        assert whole.headers["content-disposition"] == "inline; filename*=utf-8''my%20clip.lipsync.mp4"


def test_the_stream_of_a_finished_job_holds_all_its_frames(server: Any, done: dict[str, Any], tmp_path: Path) -> None:
    from deployments.media.probe import probe

    found = {}
    with server.client() as client:
        for place in ("stream", "content"):
            (tmp_path / f"{place}.mp4").write_bytes(client.get(f"/v1/videos/{done['id']}/{place}").content)
            found[place] = probe(tmp_path / f"{place}.mp4")
    assert (found["stream"].frames, found["stream"].pts[0]) == (45, 0)
    assert comment_of(tmp_path / "stream.mp4") == comment_of(tmp_path / "content.mp4") != ""


def comment_of(path: Path) -> str:
    from deployments.media.container import open_input

    with open_input(path) as container:
        return str(container.metadata["comment"])


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Zoë at work.final.MOV", "Zoë at work.final.lipsync.mp4"),
        ("..\\..\\etc/passwd", "passwd.lipsync.mp4"),
        ('a"b\r\nSet-Cookie: x=1.mp4', "a_b__Set-Cookie_ x=1.lipsync.mp4"),
        ("x" * 300 + ".mp4", "x" * 100 + ".lipsync.mp4"),
        (".mp4", "video_1.mp4"),
        (None, "video_1.mp4"),
    ],
)
def test_a_video_is_called_after_its_clip(told: str | None, name: str) -> None:
    spec = JobSpec(engine="fake", source="inputs/aa/clip.mp4")
    assert file_name(Job("video_1", "ann", spec, "succeeded", 0.0, info={} if told is None else {"name": told})) == name


def test_a_report_that_was_lost_with_its_worker_is_not_promised_for_ever(idle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = idle.jobs.create(JobSpec(engine="fake", source="inputs/aa/clip.mp4"), "anonymous")
    job = idle.jobs.claim("worker", 60)
    assert job is not None and job.id == made.id
    idle.jobs.succeed(job.id, job.fence, "results/a.mp4", f"reports/{job.id}", {}, 60)
    with idle.client() as client:
        place = client.get(f"/v1/videos/{job.id}").json()["report_url"]
        kit.refusal(client.get(place), 409, "not_ready")
        monkeypatch.setattr(delivery, "REPORT_SECONDS", -1)
        assert "was stopped" in kit.refusal(client.get(place), 404, "not_found")
        assert client.get(f"/v1/videos/{job.id}").json()["report_url"] is None


def test_events_end_with_the_finished_job(server: Any, done: dict[str, Any]) -> None:
    with server.client() as client:
        text = client.get(f"/v1/videos/{done['id']}/events", headers={"Last-Event-ID": "7"}).text
    event = dict(line.split(": ", 1) for line in text.strip().splitlines())
    assert event["event"] == "completed"
    assert json.loads(event["data"]) == done


def test_the_quality_report_comes_as_numbers_and_as_a_page_without_rights(server: Any, done: dict[str, Any]) -> None:
    with server.client() as client:
        while (response := client.get(done["report_url"])).status_code != 200:
            kit.refusal(response, 409, "not_ready")  # it follows the video
            time.sleep(0.1)
        assert response.json()["face"]["frames"] == 45
        page = client.get(done["report_url"] + "?format=html")
    assert page.text.startswith("<!doctype html>")
    assert "sandbox" in page.headers["content-security-policy"]


def test_the_openai_client_creates_polls_downloads_lists_and_deletes(server: Any, face_clip: Path, tmp_path: Path) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    video = client.videos.create_and_poll(
        prompt="Good morning.",
        input_reference=face_clip,
        model="fake",
        poll_interval_ms=50,
        size="256x256",
        extra_body={"report": False},
    )
    assert (video.status, video.object, video.prompt, video.progress) == ("completed", "video", "Good morning.", 100)
    assert client.videos.retrieve(video.id) == video
    client.videos.download_content(video.id).write_to_file(tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"
    assert client.videos.list(limit=1).data[0].id == video.id
    assert client.videos.delete(video.id).deleted
    assert video.id not in [one.id for one in client.videos.list()]
    assert not [name for name in server.files() if video.id in name], "its video and report are gone"


def test_the_openai_client_sends_our_fields_along(server: Any, face_clip: Path, speech_file: Path) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with server.client() as plain:
        sound = plain.post("/v1/assets", files={"file": speech_file.read_bytes()}).json()
    extra = {"audio": sound["id"], "metadata": {"for": "Ann"}, "options": {"expression": 0.8}, "report": False}
    video = client.videos.create(prompt="", input_reference=face_clip, model="fake", extra_body=extra)
    job = server.jobs.get(video.id)
    assert (job.metadata, job.spec.expression, job.spec.report) == ({"for": "Ann"}, 0.8, False)
    client.post(f"/videos/{video.id}/cancel", cast_to=object)


def test_an_avatar_is_fitted_once_and_then_speaks_without_its_clip(server: Any, face_clip: Path, speech_file: Path) -> None:
    with server.client() as client:
        avatar = client.post("/v1/avatars", data={"model": "fake"}, files={"video": face_clip.read_bytes()}).json()
        assert avatar["object"] == "avatar"
        assert kit.wait_for(client, f"/v1/avatars/{avatar['id']}")["status"] == "completed"
        files = {"audio_0": speech_file.read_bytes()}
        segments = json.dumps([{"start": 0.2, "end": "1.0", "audio": "audio_0"}])
        response = client.post("/v1/videos", data={"avatar_id": avatar["id"], "segments": segments, "report": "0"}, files=files)
        job = kit.wait_for(client, f"/v1/videos/{response.json()['id']}")
        assert (job["status"], job["model"], job["avatar_id"]) == ("completed", "fake", avatar["id"])
        kit.refusal(client.get(f"/v1/videos/{avatar['id']}"), 404, "not_found")
        assert [one["id"] for one in client.get("/v1/avatars").json()["data"]] == [avatar["id"]]
        wrong = client.post("/v1/videos", data={"avatar_id": avatar["id"], "model": "video_rewrite", "text": "Hello."})
        assert "avatar of video_rewrite, got one of fake" in kit.refusal(wrong, 400, "wrong_avatar", "avatar_id")
        assert client.delete(f"/v1/avatars/{avatar['id']}").json()["deleted"]
        kit.refusal(client.post("/v1/videos", data={"avatar_id": avatar["id"], "text": "Hello."}), 404, "not_found")


def test_assets_are_stored_once_and_used_in_json(server: Any, face_clip: Path) -> None:
    with server.client() as client:
        first, second = (client.post("/v1/assets", files={"file": ("../a.mp4", face_clip.read_bytes())}).json() for _ in "12")
        assert (first["kind"], first["name"], first["bytes"]) == ("video", "../a.mp4", face_clip.stat().st_size)
        assert first["id"] != second["id"]
        assert server.jobs.asset(first["id"], "anonymous").key == server.jobs.asset(second["id"], "anonymous").key
        job = client.post("/v1/videos", json={"video": first["id"], "text": "Hello.", "model": "fake", "report": False}).json()
        assert client.post(f"/v1/videos/{job['id']}/cancel").status_code == 200
        assert client.delete(f"/v1/assets/{second['id']}").json()["deleted"]
        kit.refusal(client.get(f"/v1/assets/{second['id']}"), 404)
        assert {first["id"]} <= {one["id"] for one in client.get("/v1/assets").json()["data"]}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Any]:
    """A server where nobody works."""
    with kit.serving(tmp_path) as server:
        yield server


@pytest.fixture
def waiting(idle: Any, face_clip: Path) -> Iterator[tuple[Any, httpx.Client, dict[str, Any]]]:
    """The same with a job in its queue."""
    with idle.client() as client:
        files = {"video": face_clip.read_bytes()}
        yield idle, client, client.post("/v1/videos", data={"model": "fake", "text": "Hello."}, files=files).json()


def test_a_waiting_job_has_no_content_and_is_cancelled_at_once(waiting: Any) -> None:
    server, client, job = waiting
    message = kit.refusal(client.get(f"/v1/videos/{job['id']}/content"), 409, "not_ready")
    assert "queued" in message
    kit.refusal(client.delete(f"/v1/videos/{job['id']}"), 409)
    cancelled = client.post(f"/v1/videos/{job['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    polled = OpenAI(base_url=f"{server.url}/v1", api_key="none").videos.poll(job["id"], poll_interval_ms=10)
    assert (polled.status, polled.error.code) == ("failed", "cancelled"), "poll ends, and says why"
    kit.refusal(client.get(f"/v1/videos/{job['id']}/content"), 409)
    assert "event: cancelled" in client.get(f"/v1/videos/{job['id']}/events").text
    assert client.delete(f"/v1/videos/{job['id']}").json() == {"id": job["id"], "object": "video.deleted", "deleted": True}
    kit.refusal(client.get(f"/v1/videos/{job['id']}"), 404, "not_found")


def test_the_stream_sends_chunks_in_order_as_they_are_committed_and_ends_with_the_job(waiting: Any) -> None:
    server, client, shown = waiting
    with client.stream("GET", f"/v1/videos/{shown['id']}/stream") as stream:
        pieces = stream.iter_raw()
        job = server.jobs.claim("tester", 60)
        server.commit(job, 9, 18, b"second")
        server.commit(job, 0, 9, b"first ")
        came = b""
        while len(came) < 12:
            came += next(pieces)
        assert came == b"first second"
        assert server.jobs.get(job.id).status == "running", "it was sent before the job ended"
        server.commit(job, 18, 45, b" last")
        (server.media.root / "whole.mp4").write_bytes(b"the whole file")
        server.jobs.succeed(job.id, job.fence, "whole.mp4", None, {}, 60)
        assert b"".join(pieces) == b" last"
    assert client.get(f"/v1/videos/{job.id}/stream").content == b"first second last"
    server.media.delete(f"jobs/{job.id}/chunk-0000009.m4s")
    assert client.get(f"/v1/videos/{job.id}/stream").content == b"the whole file", "chunks are not kept as long as results"


def test_events_tell_stage_fraction_frames_and_time_left(waiting: Any) -> None:
    server, client, shown = waiting
    with client.stream("GET", f"/v1/videos/{shown['id']}/events") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith(("event", "data")))
        assert (next(lines), json.loads(next(lines)[6:])["status"]) == ("event: progress", "queued")
        job = server.jobs.claim("tester", 60)
        server.jobs.progress(job.id, job.fence, "render", 9, 45, 0.5, 12.0)
        told: dict[str, Any] = {}
        while told.get("stage") != "render":
            assert next(lines) == "event: progress"
            told = json.loads(next(lines)[6:])
        assert (told["done"], told["total"], told["fraction"], told["progress"], told["eta"]) == (9, 45, 0.5, 50, 12.0)
        server.jobs.fail(job.id, job.fence, "no_face", "expected a face, got none")
        assert next(lines) == "event: failed"
        assert json.loads(next(lines)[6:])["error"] == {"code": "no_face", "message": "expected a face, got none"}
        assert list(lines) == []
    kit.refusal(client.get(f"/v1/videos/{job.id}/content"), 409, "no_face")
    kit.refusal(client.get(f"/v1/videos/{job.id}/stream"), 409, "no_face")


def test_jobs_are_listed_in_pages_by_order_and_status(idle: Any, face_clip: Path) -> None:
    with idle.client() as client:
        asset = client.post("/v1/assets", files={"file": face_clip.read_bytes()}).json()
        body = {"model": "fake", "video": asset["id"], "text": "Hello."}
        made = [client.post("/v1/videos", json=body).json()["id"] for _ in range(4)]
        client.post(f"/v1/videos/{made[1]}/cancel")
        first = client.get("/v1/videos", params={"limit": 3}).json()
        assert ([job["id"] for job in first["data"]], first["has_more"]) == (made[:0:-1], True)
        last = client.get("/v1/videos", params={"limit": 3, "after": first["last_id"]}).json()
        assert ([job["id"] for job in last["data"]], last["has_more"]) == (made[:1], False)
        rising = client.get("/v1/videos", params={"order": "asc", "status": "queued"}).json()
        assert [job["id"] for job in rising["data"]] == [made[0], made[2], made[3]]
        assert [job["id"] for job in client.get("/v1/videos?status=cancelled").json()["data"]] == [made[1]]
        kit.refusal(client.get("/v1/videos?limit=1000"), 400, param="limit")
        kit.refusal(client.get("/v1/videos?status=odd"), 400, param="status")


def test_an_idempotency_key_makes_one_job_of_equal_requests_and_refuses_another_body(idle: Any, face_clip: Path) -> None:
    with idle.client() as client:

        def send(text: str) -> httpx.Response:
            files = {"video": face_clip.read_bytes()}
            head = {"Idempotency-Key": "order-7"}
            return client.post("/v1/videos", data={"model": "fake", "text": text}, files=files, headers=head)

        first, second = send("Hello."), send("Hello.")
        assert first.json()["id"] == second.json()["id"]
        before = idle.files()
        kit.refusal(send("Goodbye."), 409, "idempotency_conflict")
        assert len(client.get("/v1/videos").json()["data"]) == 1
        assert idle.files() == before


def test_a_clip_behind_a_url_is_fetched_if_its_address_may_be_asked(tmp_path: Path, face_clip: Path) -> None:
    files = partial(SimpleHTTPRequestHandler, directory=str(face_clip.parent))
    with kit.running_files(files) as address, kit.serving(tmp_path / "a", allow_private_urls=True) as server:
        with server.client() as client:
            body = {"model": "fake", "text": "Hello.", "report": False, "callback_url": "http://127.0.0.1:9/done"}
            fetched = client.post("/v1/videos", json={**body, "video": {"url": f"{address}/{face_clip.name}"}}).json()
            sent = client.post("/v1/videos", data={**body, "report": "0"}, files={"video": face_clip.read_bytes()}).json()
            first, second = (server.jobs.get(job["id"]) for job in (fetched, sent))
            assert first.spec == second.spec
            assert first.callback_url == "http://127.0.0.1:9/done"
            kit.refusal(client.post("/v1/videos", json={**body, "video": f"{address}/none.mp4"}), 400, "url_failed", "video")
        with kit.serving(tmp_path / "b", allow_private_urls=True, max_upload_bytes=50_000) as small, small.client() as client:
            large = client.post("/v1/videos", json={**body, "video": f"{address}/{face_clip.name}"})
            kit.refusal(large, 413, "too_large", "video")
            assert not small.files()


def test_a_picture_makes_a_portrait_job(idle: Any, speech_file: Path) -> None:
    import cv2
    from skimage import data

    picture = cv2.imencode(".png", np.ascontiguousarray(data.astronaut()[:256, 90:346, ::-1]))[1].tobytes()
    with idle.client() as client:
        sound = {"audio": speech_file.read_bytes()}
        job = client.post("/v1/videos", files={"image": picture, **sound}).json()
        spec = idle.jobs.get(job["id"]).spec
        assert (spec.kind, spec.engine) == ("portrait", "portrait"), "the engine that takes pictures is chosen"
        other = client.post("/v1/videos", data={"prompt": "Hello."}, files={"input_reference": picture}).json()
        assert idle.jobs.get(other["id"]).spec.source == spec.source, "equal pictures are stored once"
        wrong = client.post("/v1/videos", data={"sync_mode": "loop"}, files={"image": picture, **sound})
        kit.refusal(wrong, 400)
        wrong = client.post("/v1/videos", data={"model": "fake"}, files={"image": picture, **sound})
        assert "takes an image" in kit.refusal(wrong, 400, param="model")
        wrong = client.post("/v1/videos", data={"options": '{"face": "0"}'}, files={"image": picture, **sound})
        kit.refusal(wrong, 400, param="options.face")
        kit.refusal(client.post("/v1/avatars", data={"model": "portrait"}, files={"video": picture}), 400, param="model")


def test_a_picture_is_told_how_to_look(idle: Any, speech_file: Path) -> None:
    import cv2
    from skimage import data

    picture = cv2.imencode(".png", np.ascontiguousarray(data.astronaut()[:256, 90:346, ::-1]))[1].tobytes()
    with idle.client() as client:

        def send(model: str, options: dict[str, Any]) -> httpx.Response:
            files = {"image": picture, "audio": speech_file.read_bytes()}
            return client.post("/v1/videos", data={"model": model, "options": json.dumps(options)}, files=files)

        asked = {"emotion": "happy:0.5", "gaze": [0.2, -0.1], "distance": 1.1, "expression": 1.2}
        spec = idle.jobs.get(send("vasa1", asked).json()["id"]).spec
        assert (spec.kind, spec.engine, spec.emotion, spec.gaze, spec.distance) == (
            "portrait",
            "vasa1",
            "happy:0.5",
            (0.2, -0.1),
            1.1,
        )
        plain = idle.jobs.get(send("portrait", {"gaze": "0.1,0"}).json()["id"]).spec
        assert (plain.emotion, plain.gaze, plain.distance) == ("neutral", (0.1, 0.0), 1.0)
        for name, value, expected in (
            ("emotion", "bored", "neutral, happy"),
            ("emotion", "happy:9", "0 to 1.5"),
            ("gaze", [1, 0], "0.3"),
            ("gaze", "left", "0.2,0"),
            ("gaze", [0.1], "two numbers"),
            ("gaze", [True, 0], "number"),
            ("distance", 3, "0.8 to 1.25"),
            ("distance", "far", "number"),
            ("guidance", 1, "distance, emotion, expression, gaze, quality"),
        ):
            assert expected in kit.refusal(send("vasa1", {name: value}), 400, param=f"options.{name}"), name
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        assert "gaze" in models["vasa1"]["picture_options"] and "gaze" not in models["vasa1"]["options"]
        assert not models["fake"]["picture_options"]


def test_a_clip_is_told_a_mood_by_its_name(idle: Any, face_clip: Path, speech_file: Path) -> None:
    with idle.client() as client:

        def send(model: str, **options: Any) -> httpx.Response:
            files = {"video": face_clip.read_bytes(), "audio": speech_file.read_bytes()}
            return client.post("/v1/videos", data={"model": model, "options": json.dumps(options)}, files=files)

        models = {model["id"]: model["options"] for model in client.get("/v1/models").json()["data"]}
        assert "emotion" in models["emo"] and "emotion" not in models["video_rewrite"]
        told = {"happy:0.5": {"happy": 0.5}, "sad": {"sad": 1.0}, "neutral": {}}
        for words, expected in told.items():
            assert idle.jobs.get(send("emo", emotion=words).json()["id"]).spec.options == expected
        assert idle.jobs.get(send("emo", angry=1.2).json()["id"]).spec.options == {"angry": 1.2}
        assert "neutral, happy" in kit.refusal(send("emo", emotion="bored"), 400, param="options.emotion")
        assert "0 to 1.5" in kit.refusal(send("emo", happy=2), 400, param="options.happy")
        kit.refusal(send("video_rewrite", emotion="happy"), 400, param="options.emotion")


def test_a_portrait_job_is_drawn_as_it_was_asked_for(tmp_path: Path) -> None:
    import cv2
    from skimage import data

    from deployments.contracts import Span
    from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
    from deployments.face.track import track_image
    from deployments.media.decode import decode
    from deployments.media.probe import probe

    photo = np.ascontiguousarray(data.astronaut()[:256, 90:346])
    picture = cv2.imencode(".png", photo[..., ::-1])[1].tobytes()
    with kit.serving(tmp_path) as server, server.client() as client, server.worker():
        body = {"model": "vasa1", "text": "Hello there.", "options": '{"distance": 1.2, "gaze": [0.2, 0]}'}
        job = client.post("/v1/videos", data=body, files={"image": picture}).json()
        for _ in range(600):
            if client.get(f"/v1/videos/{job['id']}").json()["status"] in ("completed", "failed"):
                break
            time.sleep(0.1)
        path = tmp_path / "out.mp4"
        path.write_bytes(client.get(f"/v1/videos/{job['id']}/content").content)
    last = list(decode(probe(path), Span(0, 20)))[-1].rgb()

    def eyes(picture: np.ndarray) -> float:
        points = track_image(picture).landmarks[0, :, :2]
        return float(np.linalg.norm(points[LEFT_EYE_OUTER] - points[RIGHT_EYE_OUTER]))

    assert eyes(last) == pytest.approx(eyes(photo) / 1.2, rel=0.05)
