"""Who may come in, and how much: keys, caps, a full queue, and what operators see."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
assert _SPEC and _SPEC.loader
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

BOUNDARY = "b0undary"
KIND = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="kind"\r\n\r\nvideo\r\n'
HEAD = f'{KIND}--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.mp4"\r\n\r\n'.encode()
SERVER = """
import sys, importlib.util
from pathlib import Path
spec = importlib.util.spec_from_file_location("api_kit", sys.argv[1])
kit = sys.modules["api_kit"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kit)
with kit.serving(Path(sys.argv[2])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def body(mebibytes: int) -> Iterator[bytes]:
    """A multipart body that is made while it is sent."""
    yield HEAD
    for _ in range(mebibytes):
        yield bytes(1 << 20)
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def send(client: httpx.Client, mebibytes: int) -> httpx.Response:
    """A large file as an asset."""
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return client.post("/v1/assets", headers={"Content-Type": kind}, content=body(mebibytes))


def peak_mebibytes(pid: int) -> int:
    """The most memory that a process ever held."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="resident size is read from /proc")
def test_a_large_upload_never_lies_in_memory_and_leaves_nothing_when_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(Path(__file__).with_name("api_kit.py")), str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=60) as client:
            kit.refusal(send(client, 1), 400, param="file")  # everything that a request needs is loaded now
            before = peak_mebibytes(process.pid)
            kit.refusal(send(client, 300), 400, param="file")
            assert peak_mebibytes(process.pid) - before < 40
        assert not [path for path in (tmp_path / "media").rglob("*") if path.is_file()]
    finally:
        process.stdin.close()
        process.wait(15)
        process.stdout.close()


def test_a_body_over_the_cap_is_refused_while_it_streams(tmp_path: Path) -> None:
    with kit.serving(tmp_path, max_upload_bytes=4 << 20) as server, server.client() as client:
        message = kit.refusal(send(client, 8), 413, "too_large")
        assert str(4 << 20) in message
        told = client.post("/v1/assets", files={"file": bytes(5 << 20)})
        kit.refusal(told, 413, "too_large")
        assert not server.files()
        assert not list((server.media.root / "incoming").glob("*"))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, usual[1]))  # no file can grow further
        try:
            response = send(client, 8)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        message = kit.refusal(response, 507, "output_not_writable")
        assert response.json()["error"]["retryable"]
        assert "expected room" not in message and str(tmp_path) not in message, "the operator's log has that"
        assert not list((server.media.root / "incoming").glob("*"))


def test_a_caller_who_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server:
        incoming = server.media.root / "incoming"
        host, port = server.url.removeprefix("http://").split(":")
        head = f"POST /v1/assets HTTP/1.1\r\nHost: x\r\nContent-Length: {9 << 20}\r\n"
        with socket.create_connection((host, int(port))) as line:
            line.sendall(f"{head}Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode())
            line.sendall(HEAD + bytes(3 << 20))
            wait_until(lambda: any(path.is_file() for path in incoming.rglob("*")))
        wait_until(lambda: not list(incoming.glob("*")))
        assert not server.files()


def wait_until(true: Callable[[], bool]) -> None:
    """Return once something is so."""
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_only_callers_with_a_key_come_in_and_each_sees_its_own_jobs(tmp_path: Path, face_clip: Path) -> None:
    keys = tuple(hashlib.sha256(key.encode()).hexdigest() for key in ("ann-key", "bob-key"))
    with kit.serving(tmp_path, api_keys=keys) as server, server.client() as nobody:
        response = nobody.get("/v1/videos")
        kit.refusal(response, 401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        for key in ("wrong", keys[0]):
            kit.refusal(nobody.get("/v1/models", headers={"Authorization": f"Bearer {key}"}), 401)
        kit.refusal(nobody.get("/v1/models", headers={"Authorization": "Basic ann-key"}), 401)
        kit.refusal(nobody.get("/v1/models", headers={"Authorization": "Bearer"}), 401)
        kit.refusal(nobody.post("/v1/assets", files={"file": face_clip.read_bytes()}), 401)
        assert nobody.get("/health").status_code == 200
        with server.client("ann-key") as ann, server.client("bob-key") as bob:
            files = {"video": face_clip.read_bytes()}
            job = ann.post("/v1/videos", data={"model": "fake", "text": "Hello."}, files=files).json()
            assert ann.get(f"/v1/videos/{job['id']}").status_code == 200
            assert bob.get("/v1/videos").json()["data"] == []
            for path in ("", "/content", "/events", "/stream", "/report"):
                kit.refusal(bob.get(f"/v1/videos/{job['id']}{path}"), 404)
            kit.refusal(bob.post(f"/v1/videos/{job['id']}/cancel"), 404)
            kit.refusal(bob.delete(f"/v1/videos/{job['id']}"), 404)


def test_a_full_queue_and_an_unready_service_say_when_to_come_again(tmp_path: Path, face_clip: Path) -> None:
    with kit.serving(tmp_path, max_queue=1, retry_after_seconds=7) as server, server.client() as client:
        asset = client.post("/v1/assets", files={"file": face_clip.read_bytes()}).json()["id"]
        body = {"model": "fake", "video": asset, "text": "Hello."}
        first = client.post("/v1/videos", json=body).json()
        full = client.post("/v1/videos", json=body)
        kit.refusal(full, 429, "queue_full")
        assert (full.headers["retry-after"], full.json()["error"]["retryable"]) == ("7", True)
        client.post(f"/v1/videos/{first['id']}/cancel")
        server.why_not_ready.append("fake is starting")
        for response in (client.post("/v1/videos", json=body), client.get("/ready")):
            assert "fake is starting" in kit.refusal(response, 503, "not_ready")
            assert response.headers["retry-after"] == "7"
        server.why_not_ready.clear()
        assert client.get("/ready").json()["status"] == "ready"
        assert client.post("/v1/videos", json=body).status_code == 200


def test_a_request_that_was_taken_is_answered_again_also_while_no_new_one_is(tmp_path: Path, face_clip: Path) -> None:
    with kit.serving(tmp_path, max_queue=1) as server, server.client() as client:
        asset = client.post("/v1/assets", files={"file": face_clip.read_bytes()}).json()["id"]
        body, mine = {"model": "fake", "video": asset, "text": "Hello."}, {"Idempotency-Key": "order-7"}
        first = client.post("/v1/videos", json=body, headers=mine).json()
        for trouble in ([], ["fake is starting"]):
            server.why_not_ready.extend(trouble)
            assert client.post("/v1/videos", json=body, headers=mine).json()["id"] == first["id"]
            other = {**body, "text": "Goodbye."}
            kit.refusal(client.post("/v1/videos", json=other, headers=mine), 409, "idempotency_conflict")
            new = client.post("/v1/videos", json=body, headers={"Idempotency-Key": "order-8"})
            kit.refusal(new, 503 if trouble else 429)
        assert len(client.get("/v1/videos").json()["data"]) == 1


def test_operators_see_jobs_requests_and_bytes(tmp_path: Path, face_clip: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        files = {"video": face_clip.read_bytes()}
        job = client.post("/v1/videos", data={"model": "fake", "text": "Hello."}, files=files).json()
        client.get(f"/v1/videos/{job['id']}")
        client.get("/v1/odd")
        text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['lipsync_jobs{status="queued"}'] == "1.0"
    assert float(values["lipsync_queue_seconds"]) > 0
    assert values['lipsync_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="200"}'] == "1.0"
    assert float(values["lipsync_upload_bytes_total"]) > face_clip.stat().st_size
    assert not [name for name in values if job["id"] in name or "odd" in name]


def test_models_tell_their_options_and_pages_need_no_other_host(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        assert models["fake"]["options"] == ["expression", "face", "quality"]
        assert models["portrait"]["takes"] == "image"
        kit.refusal(client.get("/v1/models/odd"), 404)
        docs = client.get("/docs")
        assert "POST /v1/videos" in docs.text and "sync_mode" in docs.text
        assert "default-src 'none'" in docs.headers["content-security-policy"]
        known = client.get("/openapi.json").json()
        content = known["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        assert {"VideoRequest", "SegmentInput", "AvatarRequest"} <= set(known["components"]["schemas"])
        page = client.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        style = client.get("/web/style.css")
        assert (style.status_code, style.headers["content-security-policy"]) == (200, page.headers["content-security-policy"])
        kit.refusal(client.get("/web/..%2fapi%2fauth.py"), 404)


def test_a_request_id_is_kept_if_it_is_harmless_and_made_otherwise(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        assert client.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
        assert client.get("/health", headers={"X-Request-ID": "a b<"}).headers["x-request-id"].startswith("req_")


def test_an_error_that_nobody_expected_tells_nothing(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:

        @server.app.get("/v1/broken")
        def broken() -> None:
            raise RuntimeError(f"a secret in {tmp_path}")

        response = client.get("/v1/broken")
        message = kit.refusal(response, 500, "internal_error")
        assert "secret" not in response.text and str(tmp_path) not in response.text
        assert "X-Request-ID" in message


def test_a_database_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        server.jobs.close()
        for path in tmp_path.glob("jobs.db*"):
            path.unlink()
        (tmp_path / "jobs.db").mkdir()
        message = kit.refusal(client.get("/v1/videos"), 503, "database_unavailable")
        assert "sqlite" not in message.lower()
        assert client.get("/health").status_code == 200


def test_a_page_of_another_site_cannot_post(tmp_path: Path) -> None:
    with kit.serving(tmp_path) as server, server.client() as client:
        for site, status in (("cross-site", 403), ("same-origin", 400), ("none", 400)):
            response = client.post("/v1/videos", json={"text": "Hi."}, headers={"Sec-Fetch-Site": site})
            kit.refusal(response, status)
