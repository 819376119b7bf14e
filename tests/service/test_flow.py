"""Bodies wait in the network, not in memory, while the application is slower than the caller."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import flow

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

SIZE = 12 * flow.WAITING
SLACK = 1 << 20  # one message of the HTTP server


class Pump:
    """What a replica of Serve does: it empties the socket into a queue while the application works."""

    def __init__(self, app: Any) -> None:
        self._app, self.most = app, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        line: asyncio.Queue[Any] = asyncio.Queue()
        waiting = 0

        async def fill() -> None:
            nonlocal waiting
            message: dict[str, Any] = {}
            while message.get("type") not in ("http.disconnect", "websocket.disconnect"):
                message = await receive()
                waiting += flow.size_of(message)
                self.most = max(self.most, waiting)
                await line.put(message)

        async def take() -> Any:
            nonlocal waiting
            message = await line.get()
            waiting -= flow.size_of(message)
            return message

        filling = asyncio.create_task(fill())
        try:
            await self._app(scope, take, send)
        finally:
            filling.cancel()


def test_a_body_that_comes_faster_than_it_is_read_waits_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_told", threading.Event())
    flow.enable()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        receive = flow.telling(scope, receive)
        while pump.most <= flow.WAITING:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # for what comes nevertheless
        size, message = 0, {"more_body": True}
        while message["more_body"]:
            message = await receive()
            size += len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})

    pump = Pump(slow)
    with kit.running(flow.Throttle(pump)) as url:
        answer = httpx.post(url, content=(bytes(1 << 20) for _ in range(SIZE >> 20)), timeout=60)
    assert answer.text == str(SIZE), "nothing is lost on the way"
    assert pump.most <= flow.WAITING + SLACK


def test_messages_that_come_faster_than_they_are_read_wait_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.sync.client import connect

    monkeypatch.setattr(flow, "_told", threading.Event())
    flow.enable()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        receive = flow.telling(scope, receive)
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.5)  # for all that comes nevertheless
        size = 0
        while size < SIZE:
            size += flow.size_of(await receive())
        await send({"type": "websocket.close"})

    pump = Pump(slow)
    with kit.running(flow.Throttle(pump)) as url, connect(url.replace("http", "ws")) as socket:
        for _ in range(SIZE >> 20):
            socket.send(bytes(1 << 20))
        assert list(socket) == []
    assert 0 < pump.most <= flow.WAITING + SLACK


def test_an_upload_through_the_throttle_arrives_whole(tmp_path: Path, face_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_told", threading.Event())
    monkeypatch.setattr(flow, "WAITING", 10_000)
    flow.enable()
    with kit.serving(tmp_path) as server:
        pump = Pump(server.app)
        with kit.running(flow.Throttle(pump)) as url:
            sent = face_clip.read_bytes()
            asset = httpx.post(f"{url}/v1/assets", files={"file": sent}, timeout=60).json()
    assert asset["bytes"] == len(sent)
    assert server.media.fetch(server.jobs.asset(asset["id"], "anonymous").key).read_bytes() == sent
