"""Tell callers that a job ended: signed messages, sent again until they arrive or too many tries failed.

A receiver checks what came with `verify`; the same event can arrive twice and has the same id then.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from deployments.errors import InputError
from serve_app.intake import AddressRule, UrlFailed, UrlRefused
from serve_app.jobs.records import Callback as Message
from serve_app.jobs.records import Job, JobNotFound, Status
from serve_app.jobs.store import JobStore

log = logging.getLogger("lipsync.callbacks")

TIMESTAMP, SIGNATURE, EVENT_ID = "X-Lipsync-Timestamp", "X-Lipsync-Signature", "X-Lipsync-Event-Id"
SEND_SECONDS = 10.0
THREADS = 8
A_ROUND = 4 * THREADS  # messages: even if none is answered, the round is over before its lease of 60 s is
MAX_TRIES = 8
FIRST_WAIT, WAIT_FACTOR, JITTER = 5.0, 3, 0.2
TOLERANCE_SECONDS = 300.0
NAMES: dict[Status, str] = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}


class SignatureError(InputError):
    """A message that the secret's owner did not sign, or signed too long ago."""

    code = "invalid_signature"


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """Signature of a message: `v1=` and the hex HMAC-SHA256 of `<timestamp>.<body>`."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(
    secret: bytes, headers: Mapping[str, str], body: bytes, now: float | None = None, tolerance: float = TOLERANCE_SECONDS
) -> None:
    """For receivers: raise SignatureError unless the message is ours and not older than `tolerance` seconds."""
    found = {name.lower(): value for name, value in headers.items()}
    timestamp, signature = found.get(TIMESTAMP.lower(), ""), found.get(SIGNATURE.lower(), "")
    if not secret or not hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode()):
        raise SignatureError(f"expected a message signed with our secret in {SIGNATURE}, got another one; do not act on it")
    age = abs((time.time() if now is None else now) - int(timestamp))
    if age > tolerance:
        raise SignatureError(f"expected a message of the last {tolerance:g} s, got one signed {age:.0f} s ago; is a clock wrong?")


class CallbackSender:
    """Sends what is due. Many processes may each have one: a message is leased to one of them."""

    def __init__(self, jobs: JobStore, secret: bytes, allow: AddressRule, clock: Callable[[], float] = time.time) -> None:
        self._jobs, self._secret, self._allow, self._clock = jobs, secret, allow, clock

    def send_due(self) -> int:
        """Send the messages that are due; how many arrived."""
        due = self._jobs.due_callbacks(self._clock(), A_ROUND)
        if not due:
            return 0
        with ThreadPoolExecutor(THREADS) as pool:  # a receiver that does not answer holds up no other one
            return sum(pool.map(self._deliver, due))

    def _deliver(self, message: Message) -> bool:
        try:
            job = self._jobs.get(message.job)
        except JobNotFound:
            self._jobs.callback_done(message.id)  # the job was deleted: there is nothing left to tell
            return False
        try:
            self._post(message.url, event_id(message), json.dumps(event(message, job)).encode())
        except UrlRefused as error:
            self._give_up(message, error)
        except UrlFailed as error:
            self._fail(message, error)
        else:
            self._jobs.callback_done(message.id)
            return True
        return False

    def _post(self, url: str, id: str, body: bytes) -> None:
        """Raises UrlRefused, or UrlFailed unless a status of 200 to 299 comes back."""
        from serve_app.intake.pinned import ask

        headers = {"Content-Type": "application/json", EVENT_ID: id}
        headers[TIMESTAMP] = str(int(self._clock()))
        if self._secret:  # a signature with an empty secret would look like one, and anybody can make it
            headers[SIGNATURE] = sign(self._secret, headers[TIMESTAMP], body)
        with ask("POST", url, self._allow, time.monotonic() + SEND_SECONDS, headers, body) as answer:
            if not 200 <= answer.status < 300:
                raise UrlFailed(f"expected a status of 200 to 299, got {answer.status}")

    def _fail(self, message: Message, error: Exception) -> None:
        if message.attempt + 1 >= MAX_TRIES:
            self._give_up(message, error)
            return
        wait = FIRST_WAIT * WAIT_FACTOR**message.attempt * random.uniform(1, 1 + JITTER)
        self._jobs.callback_failed(message.id, self._clock() + wait)

    def _give_up(self, message: Message, error: Exception) -> None:
        log.warning("callback of %s given up after %d tries: %s", message.job, message.attempt + 1, error)
        self._jobs.callback_failed(message.id, None)


def event_id(message: Message) -> str:
    """The same at every try: a receiver that saw it can ignore it."""
    return f"evt_{message.job}_{message.id}"


def event(message: Message, job: Job) -> dict[str, object]:
    """What a receiver is told. The rest is at GET /v1/videos/<id>."""
    status = NAMES[job.status]
    data: dict[str, object] = {
        "id": job.id,
        "status": status,
        "created_at": int(job.created_at),
        "completed_at": None if job.completed_at is None else int(job.completed_at),
        "metadata": job.metadata,
        "error": None if job.error_code is None else {"code": job.error_code, "message": job.error},
    }
    thing = job.spec.kind if job.spec.kind in ("avatar", "template") else "video"
    return {"id": event_id(message), "type": f"{thing}.{status}", "data": data}
