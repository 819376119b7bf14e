"""The server at its limits: bodies of two gigabytes, how soon a cancelled job has ended, and the command line against it.

    python -m benchmarks.service_limits [--out benchmarks/results/service_limits.json] [--engines fake video_rewrite]

Starts `lipsync serve` as a user does, with its default cap of 2 GiB for an upload. While a body is sent, the resident
size of the API, the router and what stands before them (HAProxy, Serve's own proxy) is read every 50 ms. A body is
refused by what its head tells, refused on the way, refused for what it holds, or stored; afterwards the files of the
server's folder are counted. Requests go to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service import COST, URL, asset, finish, make_clip, post, server

PROCESSES = {
    "api": "ray::ServeReplica:lipsync:api",
    "router": "ray::ServeReplica:lipsync:router",
    "proxy": "ray::ProxyActor",
    "haproxy": "haproxy",
}
LOOK_SECONDS = 0.05
BLOCK = 1 << 20
CAP = 2 << 30  # the server's default
TWO_GB = 2_000_000_000
BOUNDARY = "limits-of-the-server"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.mp4"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
TRIES = 5


def resident() -> dict[str, int]:
    """Resident MiB of the processes that a body passes, or might."""
    found = dict.fromkeys(PROCESSES, 0)
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")[0]
            pages = int((place / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        for name, start in PROCESSES.items():
            if words.startswith(start) or Path(words).name == start:
                found[name] += pages * os.sysconf("SC_PAGESIZE") // BLOCK
    return found


@contextmanager
def watched() -> Iterator[dict[str, dict[str, int]]]:
    """Sizes before, at most during, and after what happens inside."""
    seen = {"before": resident(), "most": resident(), "after": {}}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            now = resident()
            seen["most"] = {name: max(size, seen["most"][name]) for name, size in now.items()}

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        time.sleep(2)
        seen["after"] = resident()


def body(start: bytes, size: int) -> Iterator[bytes]:
    """A form with one file of that size: `start`, then zeros."""
    yield HEAD
    yield start
    left, zeros = size - len(start), bytes(BLOCK)
    while left > 0:
        yield zeros[: min(BLOCK, left)]
        left -= BLOCK
    yield TAIL


def padded(clip: Path, size: int) -> bytes:
    """The start of a true MP4 of that size: the clip, and the head of a box that players skip."""
    data = clip.read_bytes()
    return data + (size - len(data)).to_bytes(4, "big") + b"free"


def send(store: Path, start: bytes, size: int, tell: bool) -> dict[str, Any]:
    """One upload to `/v1/assets`: the answer, the sizes, and what is left of it."""
    before = files(store)
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    if tell:
        head["Content-Length"] = str(len(HEAD) + size + len(TAIL))
    begun = time.monotonic()
    with watched() as seen:
        answer = httpx.post(f"{URL}/v1/assets", content=body(start, size), headers=head, timeout=600)
        took = time.monotonic() - begun
    said = answer.json()
    left = files(store) - before
    if answer.is_success:
        httpx.delete(f"{URL}/v1/assets/{said['id']}")
    return {
        "bytes": size,
        "length_told": tell,
        "status": answer.status_code,
        "code": said.get("error", {}).get("code"),
        "answered_in_s": round(took, 2),
        "resident_mib": seen,
        "files_left": len(left),
        "bytes_left": sum(path.stat().st_size for path in left),
    }


def files(store: Path) -> set[Path]:
    """All files of a server, but those of its job table."""
    return {path for path in store.rglob("*") if path.is_file() and not path.name.startswith("jobs.db")}


def uploads(store: Path, clip: Path) -> dict[str, Any]:
    """The four fates of a large body."""
    return {
        "refused_by_its_head": send(store, b"", CAP + (1 << 28), tell=True),
        "refused_on_the_way": send(store, b"", CAP + (1 << 28), tell=False),
        "refused_for_what_it_holds": send(store, b"", TWO_GB, tell=True),
        "stored": send(store, padded(clip, TWO_GB), TWO_GB, tell=True),
    }


def cancelling(engine: str, clip: str) -> dict[str, Any]:
    """Seconds from the request to the state, while chunks render."""
    took = []
    for number in range(TRIES):
        own = {"cost": COST} if engine == "fake" else {}
        job = post(clip, {"audio": clip}, model=engine, options={"expression": 1 + number / 10, **own})["id"]
        wait_rendering(job)
        asked = time.monotonic()
        httpx.post(f"{URL}/v1/videos/{job}/cancel").raise_for_status()
        ended = finish(job, 0.02)
        took.append(round(time.monotonic() - asked, 3))
        if ended["error"]["code"] != "cancelled":
            raise SystemExit(f"expected a cancelled job, got {ended}")
    return {"engine": engine, "seconds": took, "most": max(took)}


def wait_rendering(job: str) -> None:
    """Until frames are painted and most are still to come."""
    while True:
        state = httpx.get(f"{URL}/v1/videos/{job}").json()
        if state["stage"] == "render" and state["done"] > 0:
            return
        if state["status"] in ("completed", "failed"):
            raise SystemExit(f"expected a job that renders, got {state}; take a longer clip")
        time.sleep(0.05)


def remote_and_local(folder: Path, clip: Path) -> dict[str, Any]:
    """`lipsync sync` with and without `--server`: the same frames, sound and tags?"""
    command = [sys.executable, "-m", "serve_app", "sync", str(clip), "--text", "Good morning, John.", "--no-report"]
    for name, extra in (("local", []), ("remote", ["--server", URL])):
        done = subprocess.run([*command, "-o", str(folder / f"{name}.mp4"), *extra], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    local, remote = (contents(folder / f"{name}.mp4") for name in ("local", "remote"))
    return {"frames": local["frames"], **{f"same_{what}": local[what] == remote[what] for what in local}}


def contents(path: Path) -> dict[str, Any]:
    """What a file shows, sounds and says."""
    import av

    pictures, sound = hashlib.sha256(), hashlib.sha256()
    with av.open(str(path)) as container:
        tags = dict(container.metadata)
        frames = [(frame.pts, pictures.update(frame.to_ndarray().tobytes())) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        packets = [(packet.pts, sound.update(bytes(packet))) for packet in container.demux(audio=0) if packet.size]
    times = [[pts for pts, _ in rows] for rows in (frames, packets)]
    return {"frames": len(frames), "times": times, "pictures": pictures.digest(), "sound": sound.digest(), "tags": tags}


def gpu_memory(engines: list[str]) -> dict[str, float | None]:
    """What `/metrics` says; None where a series is missing."""
    time.sleep(12)  # the replicas are asked every ten seconds
    told = dict(line.rsplit(" ", 1) for line in httpx.get(f"{URL}/metrics").text.splitlines() if not line.startswith("#"))
    series = {name: told.get(f'lipsync_gpu_memory_bytes{{engine="{name}"}}') for name in engines}
    return {name: None if value is None else float(value) for name, value in series.items()}


def main() -> None:
    """Measure and print; write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--engines", nargs="+", default=["fake", "video_rewrite"])
    args = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_average_before": os.getloadavg()[0], "cap_bytes": CAP}
    with tempfile.TemporaryDirectory(prefix="lipsync-limits-") as name:
        folder = Path(name)
        minute, second = make_clip(60, folder / "minute.mp4"), make_clip(1, folder / "second.mp4")
        with server(folder, 1, args.engines):
            known = asset(minute)
            found["gpu_memory_bytes"] = gpu_memory(args.engines)
            if "video_rewrite" in args.engines:
                found["remote_and_local"] = remote_and_local(folder, make_clip(4, folder / "four.mp4"))
            found["cancel"] = [cancelling(engine, known) for engine in args.engines]
            found["uploads"] = uploads(folder / "store", second)
    found["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
