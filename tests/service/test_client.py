"""`Remote` against a real server: the file that comes back, the errors, a broken connection, an interrupt."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from deployments.contracts import Segment
from deployments.errors import Cancelled, InputError, MediaError, NoFaceError, OptionError, OutputError
from serve_app.client import Remote, RemoteError
from serve_app.request import SpeechSource, SyncRequest

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server where nobody works, unless a test lets somebody."""
    with kit.serving(tmp_path_factory.mktemp("client"), max_upload_bytes=2_000_000) as server:
        yield server


@pytest.fixture
def request_(face_clip: Path, speech_file: Path, tmp_path: Path) -> SyncRequest:
    return SyncRequest(face_clip, (SpeechSource(audio=speech_file),), tmp_path / "out.mp4", "fake")


def left(request: SyncRequest) -> list[str]:
    """What lies in the output's folder."""
    return sorted(path.name for path in request.out.parent.iterdir())


def test_the_result_and_its_report_are_the_servers_own(idle: Any, request_: SyncRequest) -> None:
    told: list[tuple[str, int, int]] = []
    with idle.worker():
        asked = replace(request_, report=request_.out.with_name("report"), chunks=2, expression=0.8, quality="small")
        assert Remote(f"{idle.url}/v1/").sync(asked, lambda *news: told.append(news)) == request_.out
    job = idle.jobs.find(None, limit=1)[0]
    assert request_.out.read_bytes() == idle.media.fetch(job.result).read_bytes()
    assert (job.spec.chunks, job.spec.expression, job.spec.quality, job.spec.report) == (2, 0.8, "small", True)
    assert left(asked) == ["out.mp4", "report"]
    kept = idle.media.fetch_folder(job.report)
    for name in ("report.json", "report.html"):
        assert (asked.report / name).read_bytes() == (kept / name).read_bytes()
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[:2] == [f"send {request_.clip.name}", "send speech.wav"] and stages[-1] == "download"
    assert told[-1][1:] == (request_.out.stat().st_size,) * 2


def test_segments_of_words_and_sounds_arrive_as_written(idle: Any, request_: SyncRequest, speech_file: Path) -> None:
    parts = (
        SpeechSource(text="Hello John", segment=Segment(Fraction(1, 10), Fraction(7, 10))),
        SpeechSource(audio=speech_file, segment=Segment(Fraction(1), Fraction(3, 2))),
    )
    asked = replace(request_, speech=parts, sync_mode="cut_off", face="0")
    with pytest.raises(Cancelled):
        Remote(idle.url).sync(asked, stop_at("wait"))
    spec = idle.jobs.find(None, limit=1)[0].spec
    assert [(s.text, s.start, s.end) for s in spec.speech] == [("Hello John", "0.1", "0.7"), (None, "1", "1.5")]
    assert idle.media.fetch(spec.speech[1].audio).read_bytes() == speech_file.read_bytes()
    assert (spec.sync_mode, spec.face, spec.report) == ("cut_off", "0", False)


@pytest.mark.parametrize("reason", [Cancelled, KeyboardInterrupt])
def test_an_interrupt_ends_the_job_on_the_server_too(idle: Any, request_: SyncRequest, reason: type[BaseException]) -> None:
    with pytest.raises(reason):
        Remote(idle.url).sync(request_, stop_at("wait", reason))
    assert idle.jobs.find(None, limit=1)[0].status == "cancelled"
    assert left(request_) == []


def stop_at(stage: str, reason: type[BaseException] = Cancelled) -> Callable[[str, int, int], None]:
    """Progress that ends the work once a stage is there."""

    def progress(now: str, done: int, total: int) -> None:
        if now == stage:
            raise reason("enough")

    return progress


def test_a_job_that_fails_raises_the_error_of_its_code(idle: Any, request_: SyncRequest) -> None:
    for code, kind in (("no_face", NoFaceError), ("cancelled", Cancelled), ("attempts_exhausted", RemoteError)):

        def end(now: str, done: int, total: int, code: str = code) -> None:
            if now == "wait" and not done:
                job = idle.jobs.claim("tester", 60)
                idle.jobs.fail(job.id, job.fence, code, f"expected something else: {code}")

        with pytest.raises(kind, match=f"something else: {code}"):
            Remote(idle.url).sync(request_, end)
    assert left(request_) == []


def test_a_refusal_is_the_same_error_as_without_a_server(idle: Any, request_: SyncRequest, tmp_path: Path) -> None:
    text = tmp_path / "in" / "words.mp4"
    text.parent.mkdir()
    text.write_text("these are words\n" * 50)
    remote = Remote(idle.url)
    with pytest.raises(MediaError):
        remote.sync(replace(request_, clip=text))
    with pytest.raises(OptionError, match="expected a model of"):
        remote.sync(replace(request_, engine="nobody"))
    with pytest.raises(InputError, match="expected a video file"):
        remote.sync(replace(request_, clip=tmp_path / "nothing.mp4"))
    with pytest.raises(OptionError, match=r"\.mp4"):
        remote.sync(replace(request_, out=tmp_path / "out.mkv"))
    text.write_bytes(bytes(3_000_000))
    with pytest.raises(InputError, match="at most 2000000 bytes"):
        remote.sync(replace(request_, clip=text))
    assert left(request_) == ["in"]


def test_a_key_lets_in_and_a_wrong_one_is_said(tmp_path: Path, request_: SyncRequest) -> None:
    import hashlib

    known = hashlib.sha256(b"open sesame").hexdigest()
    with kit.serving(tmp_path / "locked", api_keys=(known,)) as server:
        with pytest.raises(RemoteError, match="got another key") as caught:
            Remote(server.url, "wrong").sync(request_)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(Cancelled):
            Remote(server.url, "open sesame").sync(request_, stop_at("wait"))
        assert [job.status for job in server.jobs.find(None)] == ["cancelled"], "the cancellation carries the key too"


def test_an_address_without_a_server_is_said(request_: SyncRequest) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteError, match="is it running"):
            Remote(f"http://127.0.0.1:{unused.getsockname()[1]}", patience=0).sync(request_)
    for wrong in ("127.0.0.1:8000", "ftp://host", "http://", "http://host:port"):
        with pytest.raises(OptionError, match="expected a server like"):
            Remote(wrong)


def test_a_full_server_is_asked_again_and_then_said(idle: Any, request_: SyncRequest) -> None:
    idle.why_not_ready.append("no engine yet")
    try:
        with pytest.raises(RemoteError, match="no engine yet"):
            Remote(idle.url, patience=0).sync(request_)
    finally:
        idle.why_not_ready.clear()


def test_a_connection_that_breaks_everywhere_still_gives_one_job_and_the_whole_file(idle: Any, request_: SyncRequest) -> None:
    before = len(idle.jobs.find(None, limit=100))
    with idle.worker(), cutting(idle.url, "POST /v1/videos ", "/events ", "/content ") as (url, cuts):
        Remote(url).sync(request_)
    assert sorted(cuts) == ["/content ", "/events ", "POST /v1/videos "], "each was cut once"
    jobs = idle.jobs.find(None, limit=100)
    assert len(jobs) == before + 1
    assert request_.out.read_bytes() == idle.media.fetch(jobs[0].result).read_bytes()
    assert left(request_) == ["out.mp4"]


def test_a_result_that_cannot_be_written_leaves_nothing(idle: Any, request_: SyncRequest, tmp_path: Path) -> None:
    out = tmp_path / "gone" / "out.mp4"
    out.parent.mkdir()

    def move(now: str, done: int, total: int) -> None:
        if now == "wait" and out.parent.is_dir():
            out.parent.rename(tmp_path / "moved")

    with idle.worker(), pytest.raises(OutputError, match="expected to write"):
        Remote(idle.url).sync(replace(request_, out=out), move)
    assert list((tmp_path / "moved").iterdir()) == []


@contextmanager
def cutting(url: str, *requests: str) -> Iterator[tuple[str, list[str]]]:
    """A way to a server that breaks off the first answer to each of these requests after 300 bytes of it."""
    port = int(url.rpartition(":")[2])
    cuts: list[str] = []
    door = socket.create_server(("127.0.0.1", 0))

    def carry(caller: socket.socket) -> None:
        with caller, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=answer, args=(server, caller, heard := [b""]), daemon=True)
            back.start()
            with suppress(OSError):
                while piece := caller.recv(65536):
                    heard[0] = piece[:100] if piece.startswith((b"GET ", b"POST ")) else heard[0]
                    server.sendall(piece)
            server.close()

    def answer(server: socket.socket, caller: socket.socket, heard: list[bytes]) -> None:
        with suppress(OSError):
            while piece := server.recv(65536):
                asked = heard[0].decode("latin-1")
                hit = next((words for words in requests if words not in cuts and words in asked), None)
                if hit is not None:
                    cuts.append(hit)
                    caller.sendall(piece[:300])
                    caller.shutdown(socket.SHUT_RDWR)
                    return
                caller.sendall(piece)
            caller.shutdown(socket.SHUT_RDWR)

    def take() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(door.accept()[0],), daemon=True).start()

    threading.Thread(target=take, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", cuts
    finally:
        door.close()
