"""Every bad input is a 4xx that says what was expected and what came; nothing is queued and no file stays."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import wave
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
assert _SPEC and _SPEC.loader
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with kit.serving(tmp_path_factory.mktemp("service")) as server:
        yield server


@pytest.fixture
def client(server: Any) -> Iterator[httpx.Client]:
    """A client; afterwards nothing may have been queued or kept."""
    before, queued = server.files(), len(server.jobs.find(None, limit=100))
    with server.client() as client:
        yield client
    assert len(server.jobs.find(None, limit=100)) == queued
    assert server.files() == before, "a refusal leaves no file"


@pytest.fixture(scope="module")
def blank_clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips of grey frames by their names."""
    from deployments.media.encode import EncodeOptions, encode_new
    from deployments.media.sound import SoundPlan

    folder = tmp_path_factory.mktemp("blank")
    tone = np.zeros(48000, np.float32)

    def make(name: str, side: int, rate: int, count: int) -> Path:
        frames = (np.full((side, side, 3), 128, np.uint8) for _ in range(count))
        encode_new(side, side, Fraction(rate), frames, SoundPlan(tone, 48000), EncodeOptions("small"), folder / name)
        return folder / name

    return {"grey": make("grey.mp4", 256, 25, 25), "fast": make("fast.mp4", 64, 480, 48), "large": make("large.mp4", 2048, 25, 1)}


def post(client: httpx.Client, video: bytes | None, data: dict[str, Any] | None = None, **files: bytes) -> httpx.Response:
    """A request with a clip and words to speak."""
    parts = {**({} if video is None else {"video": video}), **files}
    return client.post("/v1/videos", data={"model": "fake", "text": "Hello.", **(data or {})}, files=parts or None)


def silence(seconds: float, folder: Path) -> bytes:
    """A WAV file."""
    with wave.open(str(folder / "s.wav"), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(2 * round(16000 * seconds)))
    return (folder / "s.wav").read_bytes()


def test_a_file_that_is_no_video_is_refused(client: httpx.Client, face_clip: Path) -> None:
    whole = face_clip.read_bytes()
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    for content in (b"just words " * 100, playlist, whole[: len(whole) // 2], b"", b"\x89PNG\r\n\x1a\n" + bytes(50)):
        message = kit.refusal(post(client, content), 400, param="video")
        assert "expected" in message
        assert "/" not in message.replace("25/1", ""), f"no path of the server is told: {message}"


def test_a_header_that_claims_three_hours_is_refused(client: httpx.Client, face_clip: Path) -> None:
    whole = bytearray(face_clip.read_bytes())
    for box in (b"mvhd", b"mdhd", b"tkhd"):  # version 0: time scale at +16 and length at +20, in tkhd length at +24
        at = whole.find(box)
        while at >= 0:
            scale = struct.unpack_from(">I", whole, at + 16)[0] if box != b"tkhd" else 1000
            struct.pack_into(">I", whole, at + (24 if box == b"tkhd" else 20), min(scale * 3 * 3600 + scale, 2**32 - 1))
            at = whole.find(box, at + 4)
    kit.refusal(post(client, bytes(whole)), 400, param="video")


def test_too_many_pixels_or_frames_per_second_are_refused(blank_clip: dict[str, Path], tmp_path: Path) -> None:
    with kit.serving(tmp_path, max_side=1920) as server, server.client() as client:
        assert "1920" in kit.refusal(post(client, blank_clip["large"].read_bytes()), 400, param="video")
        assert "240" in kit.refusal(post(client, blank_clip["fast"].read_bytes()), 400, param="video")
        assert not server.files()


def test_a_clip_that_shows_nobody_is_refused(client: httpx.Client, blank_clip: dict[str, Path]) -> None:
    whole = blank_clip["grey"].read_bytes()
    assert "face" in kit.refusal(post(client, whole), 400, "no_face", "video")
    kit.refusal(client.post("/v1/avatars", data={"model": "fake"}, files={"video": whole}), 400, "no_face", "video")


def test_a_clip_of_twelve_people_is_taken_and_one_of_them_chosen(tmp_path: Path) -> None:
    from skimage import data

    from deployments.media.encode import EncodeOptions, encode_new
    from deployments.media.sound import SoundPlan

    crowd = np.tile(np.ascontiguousarray(data.astronaut()[:192, 128:320]), (3, 4, 1))
    sound = SoundPlan(np.zeros(48000, np.float32), 48000)
    encode_new(768, 576, Fraction(25), [crowd] * 5, sound, EncodeOptions("small"), tmp_path / "crowd.mp4")
    with kit.serving(tmp_path / "service") as server, server.client() as client:
        job = post(client, (tmp_path / "crowd.mp4").read_bytes(), {"options": '{"face": 7}'}).json()
        assert server.jobs.get(job["id"]).spec.face == "7"


def test_a_sound_without_samples_is_refused(client: httpx.Client, face_clip: Path, tmp_path: Path) -> None:
    response = client.post(
        "/v1/videos", data={"model": "fake"}, files={"video": face_clip.read_bytes(), "audio": silence(0, tmp_path)}
    )
    kit.refusal(response, 400, param="audio")


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([{"start": -1, "end": 1, "text": "Hi."}], "0 <= start < end"),
        ([{"start": 1, "end": 1, "text": "Hi."}], "0 <= start < end"),
        ([{"start": 0, "end": 1, "text": "Hi."}, {"start": 0.9, "end": 1.5, "text": "Ho."}], "segments apart"),
        ([{"start": 1, "end": 1.9, "text": "Hi."}], "inside 0-1.8"),
        ([{"start": 1, "end": "1e999999999", "text": "Hi."}], "seconds like 1.5"),
        ([{"start": 1, "end": float("nan"), "text": "Hi."}], "segments[0].end"),
        ([{"start": 0, "end": 1}], "either audio or text"),
        ([{"start": 0, "end": 1, "audio": "audio_7"}], "'audio_7'"),
        ([{"start": 0, "end": 1, "text": "Hi.", "colour": "red"}], "segments[0].colour"),
        ("0-1", "segments"),
    ],
)
def test_segments_must_lie_apart_inside_the_clip(client: httpx.Client, face_clip: Path, segments: Any, expected: str) -> None:
    data = {"model": "fake", "segments": json.dumps(segments)}
    message = kit.refusal(client.post("/v1/videos", data=data, files={"video": face_clip.read_bytes()}), 400)
    assert expected in message


@pytest.mark.parametrize(
    ("data", "param", "expected"),
    [
        ({"model": "nobody"}, "model", "fake, portrait, vasa1, video_rewrite"),
        ({"model": "portrait"}, "model", "takes an image"),
        ({"options": '{"gaze": 1}'}, "options.gaze", "expression, face, quality"),
        ({"options": '{"expression": 3}'}, "options.expression", "0 to 2"),
        ({"options": '{"expression": NaN}'}, "options.expression", "number"),
        ({"model": "vasa1", "options": '{"guidance": 5}'}, "options.guidance", "0 to 4"),
        ({"options": '{"quality": "best"}'}, "options.quality", "high, lossless, small"),
        ({"options[face]": "left"}, "face", "largest"),
        ({"options": "{"}, "options", "JSON"),
        ({"sync_mode": "odd"}, "sync_mode", "cut_off"),
        ({"text": " "}, "text", "text to speak"),
        ({"text": "x" * 30_000}, "text", "characters"),
        ({"voice": "Ann"}, "voice", "default"),
        ({"size": "720x1280"}, "size", "256x256"),
        ({"seconds": "8"}, "seconds", "1.8"),
        ({"chunks": "0"}, "chunks", "greater"),
        ({"callback_url": "ftp://host/x"}, "callback_url", "https://"),
        ({"callback_url": "http://10.0.0.7/x"}, "callback_url", "internet"),
        ({"metadata": json.dumps({str(n): "" for n in range(17)})}, "metadata", "16"),
        ({"colour": "red"}, "colour", "not permitted"),
        ({"avatar_id": "avatar_1"}, "video", "video and avatar_id"),
        ({"audio": "asset_1"}, "audio", "both"),
    ],
)
def test_fields_that_mean_nothing_are_refused_by_name(
    client: httpx.Client, face_clip: Path, data: dict[str, str], param: str, expected: str
) -> None:
    message = kit.refusal(post(client, face_clip.read_bytes(), data), 400, param=param)
    assert expected in message


def test_a_request_without_a_clip_or_without_speech_or_with_stray_files_is_refused(client: httpx.Client, face_clip: Path) -> None:
    kit.refusal(post(client, None), 400, param="video")
    whole = face_clip.read_bytes()
    kit.refusal(client.post("/v1/videos", data={"model": "fake"}, files={"video": whole}), 400, param="audio")
    kit.refusal(post(client, whole, note=b"x"), 400, param="note")
    kit.refusal(client.post("/v1/videos", json={"video": "asset_1", "text": "Hello.", "model": "fake"}), 404, param="video")
    kit.refusal(client.post("/v1/videos", json={"video": "clip.mp4", "text": "Hello.", "model": "fake"}), 400, param="video")


def test_bodies_that_are_not_what_they_say_are_refused(client: httpx.Client) -> None:
    def send(kind: str, content: bytes) -> httpx.Response:
        return client.post("/v1/videos", headers={"Content-Type": kind}, content=content)

    kit.refusal(send("text/plain", b"hello"), 415)
    kit.refusal(send("application/json", b"[" * 100_000), 400, "invalid_json")
    kit.refusal(send("application/json", b"[]"), 400, "invalid_json")
    kit.refusal(send("application/json", b'{"text": "' + b"x" * (2 << 20) + b'"}'), 413)
    kit.refusal(send("multipart/form-data", b"x"), 400, "invalid_multipart")
    kit.refusal(send("multipart/form-data; boundary=b", b"rubbish"), 400, "invalid_multipart")
    torn = b'--b\r\nContent-Disposition: form-data; name="video"; filename="x"\r\n\r\nabc'
    kit.refusal(send("multipart/form-data; boundary=b", torn), 400, "invalid_multipart")


class _Redirect(BaseHTTPRequestHandler):
    """Sends everybody to an address inside."""

    def do_GET(self) -> None:
        """One request."""
        self.send_response(302)
        self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def redirecting() -> Iterator[str]:
    """The address of a host that redirects."""
    with kit.running_files(_Redirect) as address:
        yield f"{address}/clip.mp4"


def test_urls_to_addresses_inside_are_refused(client: httpx.Client, redirecting: str) -> None:
    for url in ("http://169.254.169.254/latest/", redirecting, "http://[::1]/a", "http://127.0.0.1.:80/", "http://0/"):
        response = client.post("/v1/videos", json={"model": "fake", "video": {"url": url}, "text": "Hello."})
        kit.refusal(response, 400, param="video")
        as_text = client.post("/v1/videos", json={"model": "fake", "video": url, "text": "Hello."})
        kit.refusal(as_text, 400, param="video")


def test_urls_of_other_kinds_are_refused(client: httpx.Client) -> None:
    for url in ("file:///etc/passwd", "ftp://example.org/a.mp4", "gopher://x"):
        response = client.post("/v1/videos", json={"model": "fake", "video": {"url": url}, "text": "Hello."})
        kit.refusal(response, 400, param="video")


def test_assets_are_checked_like_all_input(client: httpx.Client, face_clip: Path) -> None:
    kit.refusal(client.post("/v1/assets", files={"file": b"just words"}), 400, param="file")
    kit.refusal(client.post("/v1/assets", files={"file": face_clip.read_bytes()}, data={"kind": "image"}), 400, param="file")
    kit.refusal(client.post("/v1/assets", data={"kind": "audio"}), 400, param="file")
    kit.refusal(client.get("/v1/assets/asset_1"), 404, "not_found")


def test_unknown_ids_and_routes_and_methods_answer_in_the_same_shape(client: httpx.Client) -> None:
    for path in ("/v1/videos/video_1", "/v1/videos/video_1/content", "/v1/videos/video_1/stream", "/v1/videos/video_1/events"):
        kit.refusal(client.get(path), 404, "not_found")
    kit.refusal(client.get("/v1/nothing"), 404, "not_found")
    kit.refusal(client.put("/v1/videos"), 405, "method_not_allowed")
    kit.refusal(client.get("/v1/videos/..%2F..%2Fetc/content"), 404)
