"""`/v1/portraits/live`: a photo that speaks while its sound is still coming, over one WebSocket.

    caller  {"type": "start", "image": …, "rate": 24000, …}   sound: binary, 16-bit little-endian mono   {"type": "end"}
    server  {"type": "started", …}                            film: binary                              {"type": "done", …}

or at any time `{"type": "error", "error": {…}}` and the end, with the code 4000 + the HTTP status that it would have and the
error's code as its reason. While all replicas speak for others and another one may start, a caller waits for it; then, or where
there can be no more, it is refused with 4503 and `streams_full`, and may try again in five seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import asdict, replace
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from deployments.engines.live import FPS, LiveTask, Piece, Started
from deployments.engines.registry import ENGINES
from deployments.errors import LipSyncError, OptionError
from serve_app.api.auth import owner_by
from serve_app.api.check import find_avatar, find_manner, pick_engine, read_options
from serve_app.api.errors import ApiError, answer, from_validation, unexpected
from serve_app.api.inputs import Intake
from serve_app.api.metrics import FULL
from serve_app.api.schemas import MEDIA, MediaInput
from serve_app.api.services import Services, run_check
from serve_app.api.uploads import Form
from serve_app.live import Event, Sound

log = logging.getLogger("lipsync.api")
router = APIRouter()

DEFAULT_ENGINE = "vasa1"
FIRST_SECONDS = 10.0  # until a caller says what it wants
SPARE_SECONDS = 60.0  # that a stream may take longer than its sound: somebody who thinks between two sentences
READY_SECONDS = 10.0  # until a replica that lives takes a caller
BUSY_SECONDS, BUSY_WAIT = 1.5, 0.2  # other replicas are tried for so long, so often
AGAIN_SECONDS = 5
AGAIN = f"try again in {AGAIN_SECONDS} seconds"
MOST_BYTES = 1 << 20  # of one message
OPTIONS = ("emotion", "gaze", "distance", "expression")
CLOSE = 4000
LEFT = "left"  # how a live portrait ended that its caller did not wait for


class LiveStart(BaseModel):
    """The first message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["start"]
    image: MediaInput = Field(description=MEDIA)
    rate: int = Field(description="of the sound, Hz: 8000, 16000, 22050, 24000, 32000, 44100 or 48000")
    model: str | None = None
    format: Literal["mp4", "jpeg"] = "mp4"
    side: int = Field(default=512, description="the picture is made smaller until its larger side is this; 128 to 1024")
    options: dict[str, Any] = Field(default_factory=dict, description="expression, emotion, gaze, distance")
    avatar_id: str | None = Field(default=None, description="a fitted person, whose way of moving the head is taken")
    api_key: str = Field(default="", max_length=1000, description="for browsers, which cannot send an Authorization header")


@router.websocket("/v1/portraits/live")
async def speak_live(socket: WebSocket) -> None:
    """One live portrait."""
    services: Services = socket.app.state.services
    if is_foreign(socket) and not services.settings.api_keys:
        await socket.close(1008)  # before it is accepted: an HTTP 403
        return
    await socket.accept()
    session = Session(socket, services)
    response: Response | None = None
    code = ""
    try:
        await session.run()
    except WebSocketDisconnect:
        log.info("live portrait %s: the caller left", session.id)
        code = LEFT
    except LipSyncError as refusal:
        response = answer(refusal)
    except Exception:
        log.exception("live portrait %s failed", session.id)
        response = unexpected(RuntimeError())
    if response is not None:
        told = json.loads(bytes(response.body))
        code = told["error"]["code"]
        await hang_up(socket, told, response.status_code)
    socket.app.state.metrics.count_live(code)


async def hang_up(socket: WebSocket, told: dict[str, Any], status: int) -> None:
    """The last word to a caller who may be gone; the reason beside the code, for those who look only there."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({"type": "error", **told})
        await socket.close(CLOSE + status, told["error"]["code"])


def is_foreign(socket: WebSocket) -> bool:
    """Whether another site's page opens this: browsers let it, and no key stops it here."""
    origin = socket.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != socket.headers.get("host")


class Session:
    """One connection from its first message to its end."""

    def __init__(self, socket: WebSocket, services: Services) -> None:
        self.id = f"live_{uuid4().hex}"
        self._socket, self._services, self._settings = socket, services, services.settings
        self._frames = 0
        self._ended = False
        self._started = False
        self._quiet = 0.0  # since when the caller is waited for; 0: it is not

    async def run(self) -> None:
        """Raises the errors that the caller is told, WebSocketDisconnect if it left."""
        start = await self._first()
        owner = owner_by(self._services, self._socket.headers.get("authorization") or f"Bearer {start.api_key}".strip())
        live = self._socket.app.state
        if self._services.live is None or live.streams >= self._settings.max_streams:
            raise busy(f"expected fewer than {self._settings.max_streams} live portraits, got as many; {AGAIN}")
        live.streams += 1
        intake = Intake(self._services, owner, Form(self._services.incoming / self.id))
        try:
            await self._talk(await run_check(self._socket, prepare, self._services, intake, start, owner))
        finally:
            live.streams -= 1
            await run_in_threadpool(intake.take_back)

    async def _first(self) -> LiveStart:
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                words = text_of(await self._receive())
        except TimeoutError:
            raise ApiError(f"expected a start message within {FIRST_SECONDS:g} s, got none", 408, "timeout") from None
        try:
            return LiveStart.model_validate(words)
        except ValidationError as error:
            raise from_validation(error) from None

    async def _talk(self, task: LiveTask) -> None:
        """Until the film has ended, the caller has left, or one of them is wrong."""
        sound, started = Sound(task.rate), time.monotonic()
        parts = (self._write(sound, task), self._read(sound, task), self._watch())
        work = [asyncio.create_task(part) for part in parts]
        log.info("live portrait %s: %s, %d Hz", self.id, task.engine, task.rate)
        try:
            async with asyncio.timeout(self._settings.stream_start_seconds + task.seconds + SPARE_SECONDS):
                await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            next(part for part in work if part.done()).result()
        except TimeoutError:
            raise ApiError("expected a shorter live portrait; open another one", 408, "timeout") from None
        finally:
            for part in work:
                part.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            log.info("live portrait %s: %d frames, %.1f s", self.id, self._frames, time.monotonic() - started)
        await self._socket.send_json({"type": "done", "frames": self._frames, "seconds": sound.seconds})
        await self._socket.close()

    async def _read(self, sound: Sound, task: LiveTask) -> None:
        """All that the caller sends; never ends by itself, so that a caller who leaves is seen."""
        while True:
            self._quiet = time.monotonic()
            message = await self._receive()
            self._quiet = 0.0
            if self._ended:
                raise ApiError("expected nothing after the end of the sound, got more")
            piece = message.get("bytes")
            if piece is None:
                expect_end(text_of(message))
                self._ended = True
                await sound.end()
                continue
            if len(piece) % 2:
                raise ApiError(f"expected whole samples of 2 bytes, got a message of {len(piece)} bytes")
            if sound.seconds + len(piece) / (2 * task.rate) > task.seconds:
                raise ApiError(f"expected at most {task.seconds:g} s of sound, got more; open another one", 413, "too_large")
            await sound.put(piece)

    async def _watch(self) -> None:
        """Raise ApiError once a caller whose stream has started says nothing for too long."""
        most = self._settings.stream_idle_seconds
        while self._ended or not self._started or not self._quiet or time.monotonic() - self._quiet < most:
            await asyncio.sleep(min(1.0, most / 4))
        raise ApiError(f"expected sound within {most:g} s, got none; send silence to keep it open", 408, "timeout")

    async def _receive(self) -> dict[str, Any]:
        message = dict(await self._socket.receive())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1000)
        size = len(message.get("bytes") or message.get("text") or b"")
        if size > MOST_BYTES:
            raise ApiError(f"expected messages of at most {MOST_BYTES} bytes, got {size}", 413, "too_large")
        return message

    async def _write(self, sound: Sound, task: LiveTask) -> None:
        """All that the engine makes. Raises what it raised."""
        async with aclosing(self._events(sound, task)) as events:
            async for event in events:
                if event[0] == "error":
                    raise event[1]
                if event[0] == "done":
                    return
                news = event[1] if event[0] == "live" else None
                if isinstance(news, Started):
                    self._started, self._quiet = True, self._quiet and time.monotonic()
                    await self._socket.send_json({"type": "started", "id": self.id, **asdict(news)})
                elif isinstance(news, Piece):
                    for data in news.data:
                        await self._socket.send_bytes(data)
                    self._frames = news.frames
                    await sound.show(news.frames / FPS)

    async def _events(self, sound: Sound, task: LiveTask) -> AsyncGenerator[Event, None]:
        """The first replica's that speaks for nobody else. Raises ApiError where there is none, or none starts in time."""
        speak = self._services.live
        assert speak is not None
        began, engine = time.monotonic(), self._services.engines()[task.engine]
        patience = min(self._settings.stream_start_seconds, READY_SECONDS if engine.replicas > 0 else math.inf)
        while True:
            async with aclosing(speak(task, sound.take)) as events:
                try:
                    async with asyncio.timeout(patience):
                        event = await anext(events)
                except TimeoutError:
                    raise busy(f"expected a replica that speaks, got none in time; {AGAIN}") from None
                if event[0] != "busy":
                    yield event
                    async for event in events:
                        yield event
                    return
            engine = self._services.engines()[task.engine]
            growing = max(engine.replicas, 1) < engine.most  # those that speak have one more started: see `service.policy`
            if time.monotonic() - began > (self._settings.stream_start_seconds if growing else BUSY_SECONDS):
                raise busy(f"expected a free replica, got only such as speak for others; {AGAIN}")
            await asyncio.sleep(BUSY_WAIT)


def prepare(services: Services, intake: Intake, start: LiveStart, owner: str) -> LiveTask:
    """Check what was asked for and store the picture. Blocking. Raises ApiError."""
    avatar = find_avatar(services, start.avatar_id, owner)
    engine = pick_engine(services, start.model or DEFAULT_ENGINE, avatar, picture=True)
    if not ENGINES[engine.name].live:
        able = [name for name in services.engines() if ENGINES[name].live]
        raise ApiError(f"expected a model that speaks live, of {', '.join(able)}; got {engine.name!r}", param="model")
    unknown = sorted(set(start.options) - set(OPTIONS))
    if unknown:
        raise ApiError(f"expected an option of {', '.join(OPTIONS)}, got {unknown[0][:40]!r}", param=f"options.{unknown[0][:40]}")
    found = read_options(engine, start.options, None, picture=True)
    options = {name: found[name] for name in OPTIONS if name in found}
    try:
        task = LiveTask(engine.name, "", start.rate, start.format, start.side, services.settings.stream_seconds, options)
    except OptionError as error:
        raise ApiError(str(error), code=error.code, param="rate" if "rate" in str(error) else "side") from None
    manner = find_manner(services, engine, avatar)
    item = intake.check(start.image, "image", "image", face=True)
    intake.store([item])
    return replace(task, image=item.key, avatar=manner or "")


def text_of(message: dict[str, Any]) -> dict[str, Any]:
    """A message's JSON object. Raises ApiError."""
    try:
        words = json.loads(message.get("text") or "")
    except ValueError:
        words = None
    if not isinstance(words, dict):
        raise ApiError("expected a JSON object as text, got something else")
    return words


def expect_end(words: dict[str, Any]) -> None:
    """Raise ApiError unless the sound ends here."""
    if words != {"type": "end"}:
        raise ApiError('expected sound as binary messages, or {"type": "end"}, got other words')


def busy(message: str) -> ApiError:
    """503: later there may be room."""
    return ApiError(message, 503, FULL, retry_after=AGAIN_SECONDS)
