"""Request bodies: files go to disk while they stream in, under one cap; the rest is small and capped too."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl
from uuid import uuid4

from anyio import CancelScope
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from deployments.errors import OutputError
from serve_app.api.errors import ApiError

FIELD_BYTES = 1 << 20  # of one field that is not a file, and of a JSON body
MAX_FILES = 64
MAX_FIELDS = 256
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
WRITE_BYTES = 1 << 20  # gathered before a thread writes them
ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Upload:
    """A file part, on disk."""

    path: Path
    filename: str  # as the caller called it; never used as a path
    content_type: str
    size: int


@dataclass
class Form:
    """What a request body held. `folder` is this request's own and goes when the request is answered."""

    folder: Path
    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)
    is_json: bool = False


@dataclass
class _Part:
    """A multipart part while it arrives."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    filename: str | None = None
    buffer: bytearray = field(default_factory=bytearray)
    path: Path | None = None
    file: IO[bytes] | None = None
    size: int = 0


@asynccontextmanager
async def read_form(request: Request, incoming: Path, limit: int, count: Callable[[int], None]) -> AsyncIterator[Form]:
    """The body of a request: multipart, JSON or urlencoded. Its files are deleted at the end, whatever happens."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limit:
        raise too_large(limit, int(told))
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    folder = incoming / uuid4().hex
    form = Form(folder)
    try:
        if kind == b"multipart/form-data":
            folder.mkdir(parents=True)
            await _Multipart(form, options.get(b"boundary", b""), limit).read(request, count)
        elif kind == b"application/json":
            form.is_json, form.fields = True, read_object(await read_small(request, count))
        elif kind == b"application/x-www-form-urlencoded":
            form.fields = dict(parse_qsl((await read_small(request, count)).decode("utf-8", "replace"), keep_blank_values=True))
        else:
            raise ApiError(
                f"expected a body of multipart/form-data or application/json, got {kind.decode('latin-1') or 'no content type'}",
                415,
                "unsupported_media_type",
            )
        yield form
    finally:
        with CancelScope(shield=True):  # also where the caller left
            await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


def too_large(limit: int, came: int) -> ApiError:
    """The refusal of a body over the cap."""
    return ApiError(
        f"expected a request of at most {limit} bytes, got {came} or more; send a shorter or smaller file", 413, "too_large"
    )


async def read_small(request: Request, count: Callable[[int], None]) -> bytes:
    """A body that is held in memory. Raises ApiError over `FIELD_BYTES`."""
    found = bytearray()
    async for piece in request.stream():
        found += piece
        count(len(piece))
        if len(found) > FIELD_BYTES:
            raise too_large(FIELD_BYTES, len(found))
    return bytes(found)


def read_object(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises ApiError."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"expected a JSON object, got {str(error)[:120]}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise ApiError(f"expected a JSON object, got {type(found).__name__}", code="invalid_json")
    return found


class _Multipart:
    """One pass over a multipart body. The parser's callbacks only sort bytes; files are written from `read`."""

    def __init__(self, form: Form, boundary: bytes, limit: int) -> None:
        if not boundary:
            raise ApiError("expected a boundary in the multipart content type, got none", code="invalid_multipart")
        self.form, self.limit = form, limit
        self.part = _Part()
        self.finished: list[_Part] = []
        self.names: set[str] = set()
        self._header = (bytearray(), bytearray())
        self.fields = self.files = self.size = 0
        self.ended = False
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self.on_part_begin,
                "on_part_data": self.on_part_data,
                "on_part_end": self.on_part_end,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self.on_header_end,
                "on_headers_finished": self.on_headers_finished,
                "on_end": self.on_end,
            },
        )

    async def read(self, request: Request, count: Callable[[int], None]) -> None:
        """Take the whole body. Raises ApiError; open files are closed."""
        try:
            async for piece in request.stream():
                self.size += len(piece)
                count(len(piece))
                if self.size > self.limit:
                    raise too_large(self.limit, self.size)
                self.parser.write(piece)
                if self.finished or len(self.part.buffer) >= WRITE_BYTES:
                    await run_in_threadpool(self.flush)
            self.parser.finalize()
            await run_in_threadpool(self.flush)
        except FormParserError as error:
            raise ApiError(f"expected a multipart body, got a broken one: {error}", code="invalid_multipart") from None
        finally:
            for part in (*self.finished, self.part):
                if part.file is not None:
                    with suppress(OSError):  # what it could not write, it tries again
                        part.file.close()
        if not self.ended:
            raise ApiError("expected a whole multipart body, got one that ends early; send it again", code="invalid_multipart")

    def flush(self) -> None:
        """Write what has gathered; runs in a thread."""
        for part in self.finished:
            self.write(part)
            if part.file is not None and part.path is not None:
                part.file.close()
                kind = part.headers.get(b"content-type", b"").decode("latin-1")
                self.form.files[part.name] = Upload(part.path, part.filename or "", kind, part.size)
        self.finished.clear()
        self.write(self.part)

    @staticmethod
    def write(part: _Part) -> None:
        """The gathered bytes of a file part, to its file. Raises OutputError."""
        try:
            if part.path is not None and part.file is None:
                part.path.parent.mkdir()
                part.file = part.path.open("wb")
            if part.file is not None:
                part.file.write(part.buffer)
                part.buffer.clear()
        except OSError as error:
            raise OutputError(f"expected room for an upload, got {error}; free some space") from error

    def on_part_begin(self) -> None:
        """A new part."""
        self.part = _Part()

    def on_header_end(self) -> None:
        """One header line of a part."""
        name, value = (bytes(piece) for piece in self._header)
        self.part.headers[name.lower()] = value
        self._header = (bytearray(), bytearray())

    def on_headers_finished(self) -> None:
        """What the part is: a file if it has a file name."""
        _, options = parse_options_header(self.part.headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise ApiError("expected a name on every multipart part, got one without", code="invalid_multipart")
        self.part.name = options[b"name"].decode("utf-8", "replace")[:200]
        if b"filename" in options:
            self.files += 1
            self.part.filename = options[b"filename"].decode("utf-8", "replace")[:200]
            # named after the field, for messages; in a folder of its own, for two that look alike
            self.part.path = self.form.folder / str(self.files) / (UNSAFE.sub("_", self.part.name)[:60] or "file")
        else:
            self.fields += 1
        if self.files > MAX_FILES or self.fields > MAX_FIELDS:
            raise ApiError(f"expected at most {MAX_FILES} files and {MAX_FIELDS} fields, got more", 413, "too_large")
        if self.part.name in self.names:
            raise ApiError(f"expected every field once, got {self.part.name!r} again", 400, "invalid_multipart", self.part.name)
        self.names.add(self.part.name)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Bytes of a part."""
        part = self.part
        part.buffer += data[start:end]
        part.size += end - start
        if part.path is None and part.size > FIELD_BYTES:
            raise ApiError(
                f"expected fields of at most {FIELD_BYTES} bytes, got more in {part.name!r}", 413, "too_large", part.name
            )

    def on_part_end(self) -> None:
        """The part is whole."""
        if self.part.path is None:
            self.form.fields[self.part.name] = self.part.buffer.decode("utf-8", "replace")
        else:
            self.finished.append(self.part)
        self.part = _Part()

    def on_end(self) -> None:
        """The closing boundary."""
        self.ended = True


def sweep(incoming: Path) -> None:
    """Delete what requests left that a crash ended a day ago."""
    for folder in incoming.glob("*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
