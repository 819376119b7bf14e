"""`lipsync sync --server URL`: the same job on a server. Files are streamed both ways; progress is followed."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from deployments import errors
from deployments.aside import aside
from deployments.contracts import Progress, no_progress
from deployments.errors import Cancelled, InputError, LipSyncError, OptionError, OutputError
from serve_app.request import SyncRequest, check_request

SUFFIXES = (".mp4", ".m4v")
ENDS = ("completed", "failed", "cancelled")
TIMEOUT = httpx.Timeout(60, connect=10, write=120)
SEND_TIMEOUT = httpx.Timeout(600, connect=10)  # the server reads the inputs before it answers an upload
REPORT_SECONDS = 600
CANCEL_SECONDS = 5
FIRST_SECONDS = 3  # a server that was never there is a wrong address
FIRST_WAIT, MOST_WAIT = 0.5, 10.0  # seconds between tries to reach a server that is away
PIECE_BYTES = 1 << 18


class RemoteError(LipSyncError):
    """The server refused for a reason of its own, or cannot be reached."""

    exit_code = 6
    http_status = 502
    code = "server_error"

    def __init__(self, message: str, code: str = "server_error", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after = code, retry_after


KINDS: dict[str, type[LipSyncError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LipSyncError) and kind is not LipSyncError
}


class Remote:
    """A server that makes videos. `patience`: seconds that it may be away, or too busy for a job, before this gives up."""

    def __init__(self, url: str, api_key: str | None = None, patience: float = 120) -> None:
        try:
            parts = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            parts = httpx.URL("")
        if parts.scheme not in ("http", "https") or not parts.host:
            raise OptionError(f"expected a server like http://127.0.0.1:8000, got {url!r}")
        self._url, self._patience = url.rstrip("/").removesuffix("/v1"), patience  # OpenAI clients are given /v1
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def sync(self, request: SyncRequest, progress: Progress = no_progress) -> Path:
        """Make the video on the server; it lies at `request.out` then, and its report in `request.report`.

        Raises the errors of `deployments.errors`, or RemoteError. An interrupt, or Cancelled from `progress`, ends the
        job on the server too. Nothing is left at `request.out` then.
        """
        check_request(request)
        if request.out.suffix.lower() not in SUFFIXES:
            raise OptionError(f"expected an output that ends in {' or '.join(SUFFIXES)} from a server, got {request.out.name!r}")
        paths = {"video": request.clip, **{part_name(request, i): s.audio for i, s in enumerate(request.speech) if s.audio}}
        with self._client() as client:
            tries = self._tries(away=min(FIRST_SECONDS, self._patience))
            job = create(client, fields_of(request), paths, uuid.uuid4().hex, tries, progress)
            try:
                self._take(client, job, request.out, request.report, progress)
            except (KeyboardInterrupt, Cancelled):
                cancel(client, job["id"])
                raise
        return request.out

    def template(self, template_id: str) -> dict[str, Any]:
        """What the server tells of a template. Raises the errors of `deployments.errors`, or RemoteError."""
        with self._client() as client:
            for again in self._tries(away=min(FIRST_SECONDS, self._patience)):
                with again:
                    return checked(client.get(f"/v1/templates/{quote(template_id, safe='')}"))
        raise AssertionError("the last try raises")

    def create(self, fields: dict[str, str], recordings: dict[str, Path], key: str) -> dict[str, Any]:
        """The job of these fields and file parts: a new one, or the one that the same idempotency key made before."""
        with self._client() as client:
            return create(client, fields, recordings, key, self._tries(), no_progress)

    def take(
        self, job: dict[str, Any], out: Path, report: Path | None = None, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """The job once it is done, its video at `out`. An interrupt leaves it to the server: its key finds it again."""
        with self._client() as client:
            return self._take(client, job, out, report, progress)

    def _take(
        self, client: httpx.Client, job: dict[str, Any], out: Path, report: Path | None, progress: Progress
    ) -> dict[str, Any]:
        job = self._follow(client, job["id"], progress)
        if job["status"] != "completed":
            raise error_of(job.get("error") or {}, 500)
        self._download(client, job["content_url"], out, progress)
        if report is not None and job.get("report_url"):
            self._fetch_report(client, job["report_url"], report)
        return job

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=TIMEOUT)

    def _follow(self, client: httpx.Client, job_id: str, progress: Progress) -> dict[str, Any]:
        """The job once it is final. Joins its events again when the connection breaks."""
        tries = self._tries()
        for again in tries:
            with again, client.stream("GET", f"/v1/videos/{job_id}/events") as stream:
                if not stream.is_success:
                    stream.read()
                    checked(stream)
                for name, state in events(stream):
                    tries.reached()
                    if name in ENDS:
                        return state
                    tell(state, progress)
                raise httpx.ReadError("the events ended before the job")
        raise AssertionError("the last try raises")

    def _download(self, client: httpx.Client, url: str, out: Path, progress: Progress) -> None:
        """The result, whole or not at all."""
        for again in self._tries():
            with again, written(out) as file, client.stream("GET", url) as stream:
                if not stream.is_success:
                    stream.read()
                    checked(stream)
                size = int(stream.headers["content-length"])
                for piece in stream.iter_bytes(PIECE_BYTES):
                    file.write(piece)
                    progress("download", file.tell(), size)
                return

    def _fetch_report(self, client: httpx.Client, url: str, folder: Path) -> None:
        """The quality report, which follows the video. A report that does not come is no reason to fail: the video is there."""
        limit = time.monotonic() + REPORT_SECONDS
        while True:
            try:
                pages = {f"report.{kind}": client.get(url, params={"format": kind}) for kind in ("json", "html")}
            except httpx.TransportError:
                return
            if any(page.status_code != 409 for page in pages.values()) or time.monotonic() > limit:
                break
            time.sleep(float(pages["report.json"].headers.get("retry-after", 2)))
        if all(page.is_success for page in pages.values()):
            folder.mkdir(parents=True, exist_ok=True)
            for name, page in pages.items():
                with written(folder / name) as file:
                    file.write(page.content)

    def _tries(self, away: float | None = None) -> _Tries:
        return _Tries(self._url, self._patience if away is None else away, self._patience)


class _Tries:
    """Tries of one request: `for again in tries: with again: …`. Passes on what a new try cannot mend.

    `away`, `busy`: seconds for which the server may be unreachable, or answer that it has no room.
    """

    def __init__(self, url: str, away: float, busy: float) -> None:
        self._url, self._away, self._busy = url, away, busy
        self.reached()

    def reached(self) -> None:
        """The server is there: patience starts anew."""
        self._wait, self._start = FIRST_WAIT, time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self._once()

    @contextmanager
    def _once(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            why = f"expected a server at {self._url}, got {str(error) or type(error).__name__}; is it running?"
            self._pause(RemoteError(why, "server_away"), self._wait, self._away)
        except RemoteError as error:
            if error.retry_after is None:
                raise
            self._pause(error, error.retry_after, self._busy)

    def _pause(self, error: RemoteError, wait: float, patience: float) -> None:
        if time.monotonic() + wait > self._start + patience:
            raise error
        time.sleep(wait)
        self._wait = min(MOST_WAIT, 2 * self._wait)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, name: str, progress: Progress) -> None:
        self._file, self._stage, self._progress = file, f"send {name}", progress
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """See `BinaryIO.read`."""
        data = self._file.read(size)
        self._progress(self._stage, self._file.tell(), self._size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `BinaryIO.seek`."""
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        """Tells its size to the HTTP client."""
        return self._file.fileno()


def create(
    client: httpx.Client, fields: dict[str, str], paths: dict[str, Path], key: str, tries: _Tries, progress: Progress
) -> dict[str, Any]:
    """The queued job. Sent again after a broken connection, it is still one job, by its idempotency key."""
    for again in tries:
        with again, ExitStack() as stack:
            parts = {**{name: (None, value) for name, value in fields.items()}, **opened(paths, stack, progress)}
            head = {"Idempotency-Key": key}
            return checked(client.post("/v1/videos", files=parts, headers=head, timeout=SEND_TIMEOUT))
    raise AssertionError("the last try raises")


def opened(paths: dict[str, Path], stack: ExitStack, progress: Progress) -> dict[str, Any]:
    """Files by the name of their part, read while they are sent."""
    counted = {name: _Counted(stack.enter_context(path.open("rb")), path.name, progress) for name, path in paths.items()}
    return {name: (paths[name].name, file, "application/octet-stream") for name, file in counted.items()}


def part_name(request: SyncRequest, number: int) -> str:
    """What the file part of a speech is called: `audio` stands for the whole clip."""
    return "audio" if request.speech[number].segment is None else f"speech-{number}"


def fields_of(request: SyncRequest) -> dict[str, str]:
    """The request as form fields."""
    options = {"quality": request.quality, "face": request.face, "expression": request.expression, **request.options}
    fields = {
        "model": request.engine,
        "sync_mode": request.sync_mode,
        "voice": listed_voice(request.voice),
        "report": "true" if request.report is not None else "false",
        "options": json.dumps(options),
    }
    if request.chunks is not None:
        fields["chunks"] = str(request.chunks)
    parts = []
    for number, source in enumerate(request.speech):
        said = {"text": source.text} if source.audio is None else {"audio": part_name(request, number)}
        if source.segment is None:
            fields |= {"text": source.text} if source.text is not None else {}
        else:
            parts.append({"start": decimal(source.segment.start), "end": decimal(source.segment.end), **said})
    return {**fields, **({"segments": json.dumps(parts)} if parts else {})}


def listed_voice(voice: str | Path) -> str:
    """A voice's name. Raises OptionError for a file: a server speaks with the voices that its operator listed."""
    if isinstance(voice, Path):
        raise OptionError(f"expected the name of a voice of the server, got the file {voice.name}; leave --voice or --server out")
    return voice


def decimal(seconds: Any) -> str:
    """Exact seconds as the server reads them: to the nanosecond."""
    return f"{float(seconds):.9f}".rstrip("0").rstrip(".")


def events(stream: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events: name and data."""
    name = ""
    for line in stream.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def tell(state: dict[str, Any], progress: Progress) -> None:
    """Pass on how far a job is."""
    waits = state["status"] == "queued"
    progress("wait", 0 if waits else 1, 1)
    if not waits and state["stage"] and state["total"]:
        progress(state["stage"], state["done"], state["total"])


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer. Raises the error that it tells of."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_success and isinstance(body, dict):
        return body
    about = body.get("error") if isinstance(body, dict) else None
    raise error_of(about if isinstance(about, dict) else {}, answer.status_code, answer.headers.get("retry-after"))


def error_of(about: dict[str, Any], status: int, retry_after: str | None = None) -> LipSyncError:
    """The error of an answer or a failed job, as the class that has its code."""
    code = str(about.get("code") or "server_error")
    message = str(about.get("message") or f"expected an answer of lipsync-serve, got status {status}; check the address")
    if code in KINDS and status not in (429, 503):
        return KINDS[code](message)
    if status in (400, 413, 415, 422):
        return InputError(message)
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return RemoteError(message, code, seconds if about.get("retryable") else None)


def cancel(client: httpx.Client, job_id: str) -> None:
    """Ask the server to stop a job; an answer is not waited for long."""
    with suppress(httpx.TransportError):
        client.post(f"/v1/videos/{job_id}/cancel", timeout=CANCEL_SECONDS)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` only once it is whole. Raises OutputError."""
    try:
        with aside(path) as part, part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"expected to write {path}, got {error.strerror or error}; free some space") from error
