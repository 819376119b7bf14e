"""The server under work: chunk speed-up on two replicas, load, and the time until the first streamed frame.

    python -m benchmarks.service [--out benchmarks/results/service.json] [--jobs 200] [--rate 20]

Starts `lipsync serve` with the `fake` engine, a device of known speed: every frame takes a fixed time. What is measured
is therefore the router, the chunks, the table and HTTP, never an engine. Times are wall clock; the load average and the
number of cores are printed beside them. Requests go to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.sound import SoundPlan
from serve_app.jobs.store import open_jobs

PORT = 8471
URL = f"http://127.0.0.1:{PORT}"
COST = 0.04  # seconds per frame: a 25 fps device
FINAL = ("completed", "failed", "cancelled")


def make_clip(seconds: int, path: Path) -> Path:
    """A public-domain face that drifts through the picture, 256x256 at 25 fps, with a tone."""
    from skimage import data

    photo = data.astronaut()
    drift = [45 - abs(45 - k % 90) for k in range(25 * seconds)]
    frames = (np.ascontiguousarray(photo[d % 20 : d % 20 + 256, 90 + d : 346 + d]) for d in drift)
    tone = (0.2 * np.sin(np.arange(seconds * 48000) / 30)).astype(np.float32)
    encode_new(256, 256, Fraction(25), frames, SoundPlan(tone, 48000), EncodeOptions("small"), path)
    return path


@contextmanager
def server(folder: Path, replicas: int, names: Sequence[str] = ("fake",)) -> Iterator[int]:
    """`lipsync serve` with so many replicas of each engine; yields its process number."""
    config = folder / "serve.yaml"
    engines = {name: {"min_replicas": replicas, "max_replicas": replicas} for name in names}
    config.write_text(yaml.safe_dump({"port": PORT, "store": str(folder / "store"), "engines": engines, "router": {"slots": 4}}))
    command = [sys.executable, "-m", "serve_app", "serve", "--config", str(config)]
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_ready(process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_ready(process: subprocess.Popen[bytes]) -> None:
    """Until /ready says 200."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the server ended; see serve.log")
        try:
            if httpx.get(f"{URL}/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server was not ready in two minutes")


def asset(path: Path) -> str:
    """Id of an uploaded file."""
    with path.open("rb") as file:
        answer = httpx.post(f"{URL}/v1/assets", files={"file": (path.name, file)}, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["id"])


def post(clip: str, text_or_audio: dict[str, str], **options: Any) -> dict[str, Any]:
    """A new job."""
    body = {"model": "fake", "video": clip, **text_or_audio, "report": False, **options}
    answer = httpx.post(f"{URL}/v1/videos", json=body, timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def finish(job: str, pause: float = 0.1) -> dict[str, Any]:
    """The job once it has ended."""
    while True:
        found: dict[str, Any] = httpx.get(f"{URL}/v1/videos/{job}").json()
        if found["status"] in FINAL:
            return found
        time.sleep(pause)


def speed_up(folder: Path, clip: Path) -> dict[str, Any]:
    """One 60 s job on one and on two replicas: seconds of the render stage, and what each chunk cost beside its work."""
    found: dict[str, Any] = {"frames": 1500, "seconds_per_frame": COST}
    for replicas in (1, 2):
        with server(folder, replicas):
            known = asset(clip)
            finish(post(known, {"audio": known})["id"])  # track and avatar are made once, and not measured
            job = finish(post(known, {"audio": known}, options={"cost": COST, "expression": 1 + replicas / 10})["id"])
            jobs = open_jobs(f"sqlite:///{folder / 'store' / 'jobs.db'}")
            chunks, seconds = jobs.chunks(job["id"]), jobs.get(job["id"]).info["stage_seconds"]["render"]
            jobs.close()
        work = sum(chunk.seconds for chunk in chunks)
        found[f"render_seconds_{replicas}"] = round(seconds, 2)
        found[f"chunks_{replicas}"] = len(chunks)
        found[f"overhead_ms_per_chunk_{replicas}"] = round(1e3 * (seconds * replicas - work) / len(chunks), 1)
    found["speed_up"] = round(found["render_seconds_1"] / found["render_seconds_2"], 2)
    return found


def first_frame(clip: Path) -> dict[str, Any]:
    """Seconds from POST to the first bytes of pictures in `/stream`, and to the end of the job."""
    known = asset(clip)
    started = time.monotonic()
    job = post(known, {"audio": known}, options={"cost": COST, "expression": 0.7})
    with httpx.stream("GET", f"{URL}/v1/videos/{job['id']}/stream", timeout=None) as answer:
        seen, first = b"", 0.0
        for block in answer.iter_bytes():
            seen = (seen + block)[:1_000_000]
            if not first and b"moof" in seen:
                first = time.monotonic() - started
    finish(job["id"])
    return {"first_streamed_frame_s": round(first, 2), "whole_job_s": round(time.monotonic() - started, 2)}


def load(clip: Path, count: int, rate: float, pid: int) -> dict[str, Any]:
    """Jobs queued at a steady rate while others render: answers' latency, memory of API and router, and all must end."""
    known = asset(clip)
    ids: list[str] = []
    took: list[float] = []
    memory = {"start": resident(pid)}
    started = time.monotonic()
    client = httpx.Client(base_url=URL, timeout=60)

    def timed(method: str, path: str, **words: Any) -> httpx.Response:
        begun = time.monotonic()
        answer = client.request(method, path, **words)
        took.append(time.monotonic() - begun)
        return answer

    for number in range(count):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        body = {"model": "fake", "video": known, "audio": known, "report": False, "options": {"expression": number / count}}
        answer = timed("POST", "/v1/videos", json=body)
        answer.raise_for_status()
        ids.append(answer.json()["id"])
    queued = time.monotonic() - started
    memory["queued"] = resident(pid)
    left, ended = list(ids), {}
    while left:
        for job in left[:20]:
            found = timed("GET", f"/v1/videos/{job}").json()
            if found["status"] in FINAL:
                ended[job] = found["status"]
        left = [job for job in left if job not in ended]
        time.sleep(0.5)
    memory["end"] = resident(pid)
    took.sort()
    return {
        "jobs": count,
        "completed": sum(status == "completed" for status in ended.values()),
        "queued_in_s": round(queued, 1),
        "all_done_in_s": round(time.monotonic() - started, 1),
        "requests": len(took),
        "api_p50_ms": round(1e3 * statistics.median(took), 1),
        "api_p99_ms": round(1e3 * took[int(0.99 * len(took))], 1),
        "resident_mib": memory,
    }


def resident(pid: int) -> dict[str, int]:
    """Resident MiB of the API and the router processes."""
    found: dict[str, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text()
            pages = int((place / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        for name in ("api", "router"):
            if words.startswith(f"ray::ServeReplica:lipsync:{name}"):
                found[name] = found.get(name, 0) + pages * os.sysconf("SC_PAGESIZE") // 2**20
    return found


def main() -> None:
    """Measure and print; write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--only", choices=("speed_up", "load", "first_frame"))
    args = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_average_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as name:
        folder = Path(name)
        minute, second = make_clip(60, folder / "minute.mp4"), make_clip(1, folder / "second.mp4")
        if args.only in (None, "speed_up"):
            found["chunk_speed_up"] = speed_up(folder, minute)
        if args.only != "speed_up":
            with server(folder, 2) as pid:
                if args.only in (None, "first_frame"):
                    found["first_frame"] = first_frame(minute)
                if args.only in (None, "load"):
                    finish(post(asset(second), {"audio": asset(second)})["id"])
                    found["load"] = load(second, args.jobs, args.rate, pid)
    found["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
