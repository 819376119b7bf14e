"""A caller is told once that its job ended: signed, again after a failure, and never at an address inside."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serve_app.callbacks import MAX_TRIES, CallbackSender, SignatureError, sign, verify
from serve_app.intake import AddressRule
from serve_app.jobs.records import Job
from serve_app.jobs.spec import JobSpec
from serve_app.jobs.store import JobStore, open_jobs

HERE = AddressRule(networks=("127.0.0.1/32",))
SECRET = b"between us"


class Receiver(ThreadingHTTPServer):
    """Remembers what it is told; answers with the first of `answers`, the last one for good."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.answers = [204]
        self.told: list[tuple[dict[str, str], bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Page(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((dict(self.headers), content))
        status = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.server.url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


class Clock:
    """Time that goes on when it is told to, for the store and the sender alike."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    store = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}", clock)
    yield store
    store.close()


def ended(jobs: JobStore, url: str | None, how: str = "succeeded", kind: str = "video") -> Job:
    """A job that came to its end."""
    spec = JobSpec.model_validate({"engine": "fake", "source": "inputs/aa/clip.mp4", "kind": kind})
    job, _ = jobs.create(spec, "me", metadata={"order": "7"}, callback_url=url)
    if how == "cancelled":
        return jobs.request_cancel(job.id)
    mine = jobs.claim("worker", 60)
    assert mine is not None
    if how == "failed":
        return jobs.fail(mine.id, mine.fence, "no_face", "expected a face, got none")
    return jobs.succeed(mine.id, mine.fence, "results/x.mp4", None, {}, keep=3600)


def test_a_receiver_that_was_down_is_told_the_same_event_later(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    job = ended(jobs, receiver.url)
    sender = CallbackSender(jobs, SECRET, HERE, clock)
    receiver.answers = [503, 302, 200]  # a redirect is no answer, and is not followed
    sent = [sender.send_due()]
    for wait, enough in ((4.9, False), (1.2, True), (14.9, False), (3.2, True), (10**6, False)):
        clock.now += wait
        before = len(receiver.told)
        sent.append(sender.send_due())
        assert (len(receiver.told) > before) is enough
    assert sent == [0, 0, 0, 0, 1, 0] and len(receiver.told) == 3
    assert len({content for _, content in receiver.told}) == 1
    assert len({headers["X-Lipsync-Event-Id"] for headers, _ in receiver.told}) == 1
    headers, content = receiver.told[-1]
    told = json.loads(content)
    assert told["id"] == headers["X-Lipsync-Event-Id"] and told["type"] == "video.completed"
    assert told["data"]["id"] == job.id and told["data"]["status"] == "completed"
    assert told["data"]["metadata"] == {"order": "7"} and told["data"]["error"] is None
    assert headers["Content-Type"] == "application/json"


def test_a_receiver_that_is_away_is_given_up_after_eight_tries(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    ended(jobs, receiver.url)
    receiver.answers = [500]
    sender = CallbackSender(jobs, SECRET, HERE, clock)
    for _ in range(MAX_TRIES + 3):
        assert sender.send_due() == 0
        clock.now += 10**6
    assert len(receiver.told) == MAX_TRIES == 8


def test_nobody_at_the_door_is_tried_again(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    gone = Receiver()
    gone.shutdown()
    gone.server_close()
    ended(jobs, gone.url)
    sender = CallbackSender(jobs, SECRET, HERE, clock)
    assert sender.send_due() == 0
    assert jobs.due_callbacks(clock() + 10, 1), "it waits for its second try"


@pytest.mark.parametrize(
    ("how", "kind", "name", "code"),
    [
        ("failed", "video", "video.failed", "no_face"),
        ("cancelled", "portrait", "video.cancelled", None),
        ("succeeded", "avatar", "avatar.completed", None),
    ],
)
def test_every_end_has_its_name(
    how: str, kind: str, name: str, code: str | None, jobs: JobStore, receiver: Receiver, clock: Clock
) -> None:
    ended(jobs, receiver.url, how, kind)
    assert CallbackSender(jobs, SECRET, HERE, clock).send_due() == 1
    told = json.loads(receiver.told[0][1])
    assert told["type"] == name
    assert (told["data"]["error"] or {}).get("code") == code


def test_addresses_inside_are_not_told_and_not_tried_again(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    ended(jobs, receiver.url)
    ended(jobs, None)
    sender = CallbackSender(jobs, SECRET, AddressRule(), clock)
    assert sender.send_due() == 0
    clock.now += 10**6
    assert CallbackSender(jobs, SECRET, HERE, clock).send_due() == 0
    assert receiver.told == []


def test_a_deleted_job_has_nothing_to_tell(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    job = ended(jobs, receiver.url)
    jobs.delete(job.id)
    assert CallbackSender(jobs, SECRET, HERE, clock).send_due() == 0
    assert receiver.told == []


def test_a_receiver_can_tell_our_messages_from_others(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    ended(jobs, receiver.url)
    CallbackSender(jobs, SECRET, HERE, clock).send_due()
    headers, content = receiver.told[0]
    verify(SECRET, headers, content, now=clock() + 200)
    late = {**headers, "X-Lipsync-Timestamp": str(int(clock()) + 5)}
    for secret, given, body, now in (
        (b"another", headers, content, clock()),
        (SECRET, headers, content + b" ", clock()),
        (SECRET, late, content, clock()),  # the time is signed too
        (SECRET, {}, content, clock()),
        (SECRET, headers, content, clock() + 301),
        (SECRET, headers, content, clock() - 301),
        (b"", {**headers, "X-Lipsync-Signature": sign(b"", str(int(clock())), content)}, content, clock()),
    ):
        with pytest.raises(SignatureError):
            verify(secret, given, body, now=now)


def test_the_signature_is_hmac_sha256_of_time_and_body() -> None:
    # printf '1800000000.{}' | openssl dgst -sha256 -hmac key
    expected = "7321475872b03ff21bdc2dfd86ea2d99ec29c479fbe4a77aa6acf4509505493f"
    assert sign(b"key", "1800000000", b"{}") == f"v1={expected}"


def test_without_a_secret_nothing_looks_signed(jobs: JobStore, receiver: Receiver, clock: Clock) -> None:
    ended(jobs, receiver.url)
    assert CallbackSender(jobs, b"", HERE, clock).send_due() == 1
    assert "X-Lipsync-Signature" not in receiver.told[0][0]
