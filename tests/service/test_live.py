"""A live portrait over a real socket: sound in, film out while it comes; and everything that a caller can do wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import struct
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from deployments.engines.replica import EngineReplica
from serve_app.api import ApiSettings, Services, create_api
from serve_app.api.live import BUSY_SECONDS
from serve_app.jobs.store import open_jobs
from serve_app.live import Sound
from serve_app.media_store import MediaStore

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

RATE = 24000
KEY = "open sesame"


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Any]:
    """The API with one replica of vasa1 in this process."""
    jobs, media = open_jobs(f"sqlite:///{folder / 'jobs.db'}"), MediaStore(str(folder / "media"))
    replica = EngineReplica("vasa1", lambda: media)

    async def live(task: Any, take: Any) -> AsyncGenerator[Any, None]:
        async for event in replica.speak(task, take):
            yield event

    services = Services(jobs, media, ApiSettings(**settings), lambda: kit.ENGINES, lambda: None, live)
    app = create_api(services)
    with kit.running(app) as url:
        yield kit.Server(url, jobs, media, app)
    jobs.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("live"), stream_seconds=8.0) as server:
        yield server


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A public-domain face, 256x256."""
    import cv2
    from skimage import data

    rgb = np.ascontiguousarray(data.astronaut()[20:276, 100:356])
    return bytes(cv2.imencode(".png", rgb[:, :, ::-1])[1])


@pytest.fixture(scope="module")
def asset(server: Any, photo: bytes) -> str:
    return upload(server.url, photo)


@pytest.fixture(scope="module")
def words() -> NDArray[np.float32]:
    import soxr

    from deployments.audio.tts import synthesize

    spoken = synthesize("Five fresh loaves.")
    return np.asarray(soxr.resample(spoken.samples, spoken.rate, RATE), np.float32)


def upload(url: str, photo: bytes, key: str = "") -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(f"{url}/v1/assets", files={"file": ("face.png", photo)}, headers=headers, timeout=60)
    return str(answer.json()["id"])


@contextmanager
def calling(server: Any, **kwargs: Any) -> Iterator[ClientConnection]:
    with connect(server.url.replace("http", "ws") + "/v1/portraits/live", max_size=None, **kwargs) as socket:
        yield socket


def start(socket: ClientConnection, asset: str, **more: Any) -> None:
    socket.send(json.dumps({"type": "start", "image": asset, "rate": RATE, "side": 128, **more}))


def pcm(samples: NDArray[np.float32]) -> bytes:
    return bytes((samples * 32767).astype("<i2").tobytes())


def heard(socket: ClientConnection) -> tuple[list[bytes], list[dict[str, Any]]]:
    """All until the server hangs up: binary messages, and words."""
    film, said = [], []
    try:
        while True:
            message = socket.recv(timeout=60)
            if isinstance(message, bytes):
                film.append(message)
            else:
                said.append(json.loads(message))
    except ConnectionClosed:
        return film, said


def speak(server: Any, asset: str, samples: NDArray[np.float32], **more: Any) -> tuple[list[bytes], list[dict[str, Any]]]:
    with calling(server) as socket:
        start(socket, asset, **more)
        for first in range(0, len(samples), RATE // 25):
            socket.send(pcm(samples[first : first + RATE // 25]))
        socket.send('{"type": "end"}')
        return heard(socket)


def refused(server: Any, *messages: Any, **kwargs: Any) -> tuple[dict[str, Any], int]:
    """The error and the close code that some messages get."""
    with calling(server, **kwargs) as socket:
        for message in messages:
            socket.send(message if isinstance(message, (bytes, str)) else json.dumps(message))
        said = heard(socket)[1]
        assert said[-1]["type"] == "error" and set(said[-1]["error"]) == {"message", "type", "param", "code", "retryable"}
        assert socket.protocol.close_rcvd is not None and socket.protocol.close_rcvd.reason == said[-1]["error"]["code"]
        return said[-1]["error"], socket.protocol.close_rcvd.code


def test_the_pieces_joined_are_a_film_with_its_sound_in_step(server: Any, asset: str, words: NDArray[np.float32]) -> None:
    clicks = words.copy()
    clicks[RATE // 2] = 1.0
    film, said = speak(server, asset, clicks)
    frames = -(-len(words) * 25 // RATE)
    assert [message["type"] for message in said] == ["started", "done"] and said[1]["frames"] == frames
    assert (said[0]["width"], said[0]["height"], said[0]["fps"], said[0]["sound_rate"]) == (128, 128, 25, RATE)
    assert said[0]["mime"].startswith('video/mp4; codecs="avc1.') and len(film) > 3
    with av.open(io.BytesIO(b"".join(film))) as container:
        shown = list(container.decode(video=0))
    assert [round(25 * float(frame.time)) for frame in shown] == list(range(frames))
    moved = np.std([frame.to_ndarray(format="gray").astype(np.float32) for frame in shown], axis=0)
    assert moved[80:110, 40:90].max() > 8, "the mouth moves"
    with av.open(io.BytesIO(b"".join(film))) as container:
        blocks = list(container.decode(audio=0))
        sound = np.concatenate([block.to_ndarray()[0] for block in blocks])
    lag = np.argmax(np.abs(sound)) / RATE + float(blocks[0].time) - 0.5
    assert abs(lag) < 0.002 and np.corrcoef(sound[: len(words)], clicks)[0, 1] > 0.9


def test_jpegs_carry_the_time_of_their_sound_and_are_those_of_the_film(
    server: Any, asset: str, words: NDArray[np.float32]
) -> None:
    film, said = speak(server, asset, words[: RATE // 2], format="jpeg")
    stamps = [struct.unpack(">Q", data[:8])[0] for data in film]
    assert stamps == [40_000 * k for k in range(13)] and all(data[8:10] == b"\xff\xd8" for data in film)
    assert said[0]["mime"] == "image/jpeg" and said[0]["sound_rate"] == 0


def test_frames_leave_while_sound_still_comes(server: Any, asset: str, words: NDArray[np.float32]) -> None:
    with calling(server) as socket:
        start(socket, asset, format="jpeg")
        assert json.loads(socket.recv(timeout=60))["type"] == "started"
        socket.send(pcm(words[: RATE // 2]))
        assert isinstance(socket.recv(timeout=60), bytes), "the end was not told yet"


def test_what_is_asked_for_is_seen(server: Any, asset: str, words: NDArray[np.float32]) -> None:
    import cv2

    def last(**options: Any) -> NDArray[np.uint8]:
        film, _ = speak(server, asset, np.zeros(RATE, np.float32), format="jpeg", options=options)
        return np.asarray(cv2.imdecode(np.frombuffer(film[-1][8:], np.uint8), cv2.IMREAD_GRAYSCALE))

    plain, near = last(), last(distance=0.85)
    assert np.abs(near.astype(int) - plain).mean() > 2


def test_a_head_moves_as_the_avatars_person_does(server: Any, asset: str) -> None:
    from deployments.engines.vasa1.manner import FILE, Manner, save_manner
    from serve_app.jobs.spec import JobSpec

    scale = np.ones(18, np.float32)
    scale[8:13] = 5
    folder = server.media.root / "avatars" / "lively"
    folder.mkdir(parents=True)
    save_manner(Manner(scale), folder / FILE)
    server.jobs.create(JobSpec(kind="avatar", engine="vasa1", source="inputs/aa/clip.mp4", report=False), "anonymous")
    job = server.jobs.claim("worker", 60)
    with calling(server) as socket:
        start(socket, asset, avatar_id=job.id)
        assert heard(socket)[1][-1]["error"]["code"] == "avatar_not_ready"
    server.jobs.succeed(job.id, job.fence, None, None, {"avatar": "lively"}, 60)
    silence = np.zeros(3 * RATE // 2, np.float32)
    still, lively = (speak(server, asset, silence, format="jpeg", **more)[0][-1] for more in ({}, {"avatar_id": job.id}))
    assert still[8:] != lively[8:] and still[:8] == lively[:8]


def learned(server: Any, name: str, engine: str = "vasa1", turns: float = 0.0) -> str:
    """Id of a fitted avatar; with `turns`, its person turns and nods so many times as far as everybody."""
    from deployments.contracts import Avatar
    from deployments.engines.vasa1.manner import FILE, Manner, save_manner
    from serve_app.cache import Cache
    from serve_app.jobs.spec import JobSpec

    def fit(place: Path) -> Avatar:
        (place / "weights").write_bytes(b"what was learned")
        if turns:
            save_manner(Manner(np.where(np.isin(np.arange(18), (8, 9)), turns, 1).astype(np.float32)), place / FILE)
        return Avatar(engine, place, "d")

    Cache(server.media.root).avatar(name, fit)
    server.jobs.create(JobSpec(kind="avatar", engine=engine, source="inputs/aa/clip.mp4", report=False), "anonymous")
    job = server.jobs.claim("worker", 60)
    server.jobs.succeed(job.id, job.fence, None, None, {"avatar": name, "seconds": 3.0}, 60)
    return str(job.id)


def test_a_portrait_job_moves_as_the_avatars_person_does(server: Any, asset: str) -> None:
    lively = learned(server, "turning", turns=5)
    asked = {"image": asset, "model": "vasa1", "text": "Hello."}
    with server.client() as client:
        ids = [client.post("/v1/videos", json={**asked, **more}).json()["id"] for more in ({}, {"avatar_id": lively})]
        spec = server.jobs.get(ids[1]).spec
        assert (spec.kind, spec.engine, spec.manner, spec.avatar_id) == ("portrait", "vasa1", "avatars/turning", lively)
        with server.worker():
            films = [kit.wait_for(client, f"/v1/videos/{id_}", 120) for id_ in ids]
        assert [film["status"] for film in films] == ["completed"] * 2, films
        first, last = [], []
        for id_ in ids:
            with av.open(io.BytesIO(client.get(f"/v1/videos/{id_}/content").content)) as film:
                frames = [frame.to_ndarray(format="gray").astype(int) for frame in film.decode(video=0)]
            first.append(frames[0])
            last.append(frames[-1])
    apart = [float(np.abs(two[0] - two[1]).mean()) for two in (first, last)]
    assert max(apart) > 1.0, "the head is elsewhere"


def test_an_avatar_without_a_manner_is_refused_for_pictures(server: Any, asset: str) -> None:
    shared, other = learned(server, "shared"), learned(server, "other", "video_rewrite", turns=3)
    own = learned(server, "own", turns=3)
    asked = {"image": asset, "model": "vasa1", "text": "Hello."}
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"avatar_id": shared}, "no_manner", "leave the manner out"),
        ({"avatar_id": other}, "wrong_avatar", "an avatar of vasa1"),
        ({"avatar_id": own, "model": "portrait"}, "wrong_avatar", "an avatar of portrait"),
        ({"avatar_id": "job_0"}, "not_found", "job_0"),
        ({"avatar_id": own, "video": asset}, "invalid_request", "image with avatar_id"),
    ]
    with server.client() as client:
        for more, code, words in wrong:
            answer = client.post("/v1/videos", json={**asked, **more})
            assert words in kit.refusal(answer, 404 if code == "not_found" else 400, code), more
    with calling(server) as socket:
        start(socket, asset, avatar_id=shared)
        assert heard(socket)[1][-1]["error"]["code"] == "no_manner"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"rate": 11000}, "rate", "invalid_option"),
        ({"side": 20}, "side", "invalid_option"),
        ({"model": "portrait"}, "model", "invalid_request"),
        ({"model": "nobody"}, "model", "invalid_option"),
        ({"image": "asset_0"}, "image", "not_found"),
        ({"options": {"gaze": [9, 9]}}, "options.gaze", "invalid_option"),
        ({"options": {"quality": "high"}}, "options.quality", "invalid_request"),
        ({"colour": 1}, "colour", "invalid_request"),
        ({"type": "begin"}, "type", "invalid_request"),
    ],
)
def test_a_wrong_start_is_refused_before_anything_begins(
    server: Any, asset: str, change: dict[str, Any], param: str, code: str
) -> None:
    error, closed = refused(server, {"type": "start", "image": asset, "rate": RATE, **change})
    assert (error["param"], error["code"]) == (param, code), error
    assert closed == (4404 if code == "not_found" else 4400) and server.app.state.streams == 0


@pytest.mark.parametrize("first", [b"\x00\x00", "not JSON", "[1]"])
def test_a_first_message_that_is_no_start_is_refused(server: Any, first: Any) -> None:
    assert refused(server, first)[1] == 4400


def test_wrong_sound_ends_a_stream_with_a_reason(server: Any, asset: str) -> None:
    begin = {"type": "start", "image": asset, "rate": RATE, "side": 128}
    assert "whole samples" in refused(server, begin, b"\x00")[0]["message"]
    assert "8 s of sound" in refused(server, begin, *[bytes(2 * RATE)] * 9)[0]["message"]
    assert "other words" in refused(server, begin, {"type": "finish"})[0]["message"]
    assert "after the end" in refused(server, begin, bytes(2 * RATE), {"type": "end"}, b"\x00\x00")[0]["message"]


def test_a_caller_who_says_nothing_is_told_so_once_it_could_speak(tmp_path: Path, photo: bytes) -> None:
    with served(tmp_path, stream_idle_seconds=0.4) as short:
        error, closed = refused(short, {"type": "start", "image": upload(short.url, photo), "rate": RATE, "side": 128})
    assert "send silence" in error["message"] and closed == 4408


def test_one_replica_speaks_for_one_caller_and_is_free_again_when_it_leaves(server: Any, asset: str) -> None:
    with calling(server) as first:
        start(first, asset)
        assert json.loads(first.recv(timeout=60))["type"] == "started"
        before = ended(server, "streams_full")
        error, closed = refused(server, {"type": "start", "image": asset, "rate": RATE}, bytes(2000))
        assert (error["code"], error["retryable"], closed) == ("streams_full", True, 4503)
        assert "try again in 5 seconds" in error["message"] and ended(server, "streams_full") == before + 1
    limit = time.monotonic() + 20
    while server.app.state.streams and time.monotonic() < limit:
        time.sleep(0.02)
    assert server.app.state.streams == 0
    assert speak(server, asset, np.zeros(RATE // 5, np.float32))[1][-1]["type"] == "done"


def ended(server: Any, code: str) -> float:
    """Live portraits that ended so, as Prometheus would read it."""
    (line,) = [
        line
        for line in httpx.get(f"{server.url}/metrics").text.splitlines()
        if line.startswith(f'lipsync_live_ended_total{{code="{code}"}}')
    ]
    return float(line.split()[-1])


def test_a_caller_waits_for_a_replica_that_is_started_because_all_others_speak(tmp_path: Path, photo: bytes) -> None:
    jobs, media = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}"), MediaStore(str(tmp_path / "media"))
    replicas = [EngineReplica("vasa1", lambda: media)]
    turned_away: list[float] = []

    async def live(task: Any, take: Any) -> AsyncGenerator[Any, None]:
        async for event in replicas[-1].speak(task, take):
            if event[0] == "busy":
                turned_away.append(time.monotonic())
            yield event

    def engines() -> dict[str, Any]:
        return {"vasa1": replace(kit.ENGINES["vasa1"], replicas=len(replicas), most=2)}

    app = create_api(Services(jobs, media, ApiSettings(), engines, lambda: None, live))
    with kit.running(app) as url:
        server = kit.Server(url, jobs, media, app)
        asset = upload(url, photo)
        with calling(server) as first, calling(server) as second:
            start(first, asset)
            assert json.loads(first.recv(timeout=60))["type"] == "started"
            start(second, asset)
            while len(turned_away) < 2 or turned_away[-1] - turned_away[0] < BUSY_SECONDS + 0.5:
                time.sleep(0.05)
            replicas.append(EngineReplica("vasa1", lambda: media))
            assert json.loads(second.recv(timeout=60))["type"] == "started"
    jobs.close()


def test_a_key_is_asked_for_and_other_sites_are_not_let_in(tmp_path: Path, photo: bytes, server: Any) -> None:
    with served(tmp_path, api_keys=(hashlib.sha256(KEY.encode()).hexdigest(),), max_streams=0) as closed:
        asset = upload(closed.url, photo, KEY)
        begin = {"type": "start", "image": asset, "rate": RATE}
        assert refused(closed, begin)[0]["code"] == "invalid_api_key"
        assert refused(closed, {**begin, "api_key": "sesame"})[1] == 4401
        for told in ({"additional_headers": {"Authorization": f"Bearer {KEY}"}}, {}):
            error, _ = refused(closed, begin if told else {**begin, "api_key": KEY}, **told)
            assert error["code"] == "streams_full", "the key fits, but nobody may speak here"
    with pytest.raises(InvalidStatus), calling(server, origin="http://evil.example"):
        pass


@pytest.mark.anyio
async def test_sound_waits_for_the_frames_before_it() -> None:
    import asyncio

    sound = Sound(100, window=2.0)
    for _ in range(2):
        await sound.put(bytes(200))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sound.put(bytes(200)), 0.05)
    assert await sound.take() == bytes(400)
    await sound.put(bytes(200))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sound.take(), 0.05)
    await sound.show(1.0)
    assert await sound.take() == bytes(200)
    await sound.end()
    await sound.show(3.0)
    assert await sound.take() is None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.slow
def test_the_page_shows_a_photo_that_speaks_what_the_microphone_hears(photo: bytes, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser here: expected chromium or google-chrome on PATH")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a microphone that beeps
    (tmp_path / "face.png").write_bytes(photo)
    with served(tmp_path) as server, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", *fake])
        page, wrong = browser.new_page(), []
        page.set_default_timeout(90_000)  # only a failing test waits so long
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
        page.goto(server.url)
        page.get_by_role("button", name="Start speaking").click()
        page.get_by_text("Choose a photo of a face first.").wait_for()
        assert not page.locator("#live-manner").is_visible(), "there is nobody to choose"
        learned(server, "filmed", "video_rewrite", turns=3)
        shared, lively = learned(server, "shared"), learned(server, "lively", turns=5)
        page.set_input_files("#live-photo", tmp_path / "face.png")
        page.locator(f"#live-manner option[value={lively}]").wait_for(state="attached")
        offered = page.locator("#live-manner option").evaluate_all("all => all.map(one => one.value)")
        assert sorted(offered) == sorted(["", shared, lively]), "people of the engine that takes a manner"
        page.select_option("#live-manner", shared)
        page.get_by_role("button", name="Start speaking").click()
        page.get_by_text("expected an avatar with a manner of its own").wait_for()
        page.select_option("#live-manner", lively)
        page.get_by_role("button", name="Start speaking").click()
        shown = "document.getElementById('live-video')"
        limit = time.monotonic() + 90
        while not page.evaluate(f"{shown}.videoWidth === 256 && {shown}.currentTime > 0.4"):
            assert time.monotonic() < limit, page.locator("#live").inner_text()
            page.wait_for_timeout(100)
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Start speaking").wait_for()
        assert not page.locator("#live-error").is_visible(), page.locator("#live-error").inner_text()
        assert wrong == []
        browser.close()
        while server.app.state.streams and time.monotonic() < limit:
            time.sleep(0.02)
        assert server.app.state.streams == 0
