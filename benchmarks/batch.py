"""Rows of a batch against the same rows as jobs of their own: CPU seconds, rows an hour, scaling.

The template is the clip, played forwards and backwards to 30 s, encoded once in closed groups of two seconds (not
measured), with two slots of two seconds each. Three ways to make a row:

- a job of its own: `lipsync sync` in a new process with an empty cache, every picture encoded again (`--chunks`);
- the same with track and avatar in the cache;
- a row of a batch: all rows together, and a further row (the median) where the batch is long.

Scaling: an engine of fixed cost (it sleeps), one worker against two, processes already started.

    python -m benchmarks.batch CLIP [--rows 6] [--out benchmarks/results/batch.json]

CPU seconds count all processes of a way. The load average is written beside every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipeline import bounced
from deployments.media.encode import EncodeOptions, encode_chunk, encode_new
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan, read_sound
from deployments.media.stitch import stitch
from serve_app.batches.rows import Place
from serve_app.batches.run import Batch, run_batch
from serve_app.cache import Cache
from serve_app.executor import SerialExecutor, make_executor
from serve_app.personalize import Wanted, create_template
from serve_app.templates import Templates

RATE = 48000
SLOTS = (("3.2", "5.2", "Hello {{customer_name}}, good to see you"), ("17.1", "19.1", "your trip to {{destination}} is ready"))
NAMES = ("John", "Ann", "Peter", "Maria", "David", "Laura", "Simon", "Emma", "Oscar", "Julia")
CITIES = ("Paris", "Rome", "Oslo", "Madrid", "Vienna")
COST_ROWS, COST_SECONDS = 12, 0.4  # seconds a frame: much more than what a busy machine adds
ROOT = Path(__file__).resolve().parents[1]


def make_message(source: Path, seconds: float, folder: Path) -> Path:
    """The clip at the wanted length, with its sound repeated."""
    clip = probe(source)
    count = round(seconds * float(clip.average_rate))
    step = round(1 / (clip.average_rate * clip.time_base))
    encode_chunk(clip, bounced(clip, count), EncodeOptions("high"), folder / "chunk.mkv")
    sound = SoundPlan(np.resize(read_sound(source, RATE), round(seconds * RATE)), RATE)
    stitch(clip, [folder / "chunk.mkv"], np.arange(count, dtype=np.int64) * step, sound, folder / "message.mp4")
    return folder / "message.mp4"


@contextmanager
def measured(into: dict[str, Any]) -> Iterator[None]:
    """Wall and CPU seconds of this process and of those that it started and that have ended."""
    before, started = cpu(), time.monotonic()
    yield
    into.update(seconds=round(time.monotonic() - started, 2), cpu_seconds=round(cpu() - before, 2), load=os.getloadavg()[0])


def cpu() -> float:
    """CPU seconds so far."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def own_job(message: Path, cache: Path, name: str, city: str, out: Path) -> dict[str, Any]:
    """One row as a job of its own."""
    words = [text.replace("{{customer_name}}", name).replace("{{destination}}", city) for _, _, text in SLOTS]
    parts = [part for (start, end, _), text in zip(SLOTS, words, strict=True) for part in ("-s", f"{start}-{end}", "-t", text)]
    command = [
        sys.executable,
        "-m",
        "serve_app",
        "sync",
        str(message),
        *parts,
        "-o",
        str(out),
        "--chunks",
        "2",
        "--no-report",
        "-q",
    ]
    found: dict[str, Any] = {}
    with measured(found):
        subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            capture_output=True,
            env={**os.environ, "LIPSYNC_CACHE": str(cache), "LIPSYNC_WORKERS": "2"},
        )
    return found


def write_manifest(path: Path, rows: int) -> Path:
    """Customers, no two alike."""
    lines = [f"{NAMES[k % len(NAMES)]},{CITIES[k // len(NAMES) % len(CITIES)]}" for k in range(rows)]
    path.write_text("\n".join(["customer_name,destination", *lines]) + "\n")
    return path


def batch_of(message: Path, folder: Path, cache: Path, rows: int) -> dict[str, Any]:
    """The rows as a batch on two workers; what all rows share is measured with them."""
    segments = "\n".join(f'  - {{start: {start}, end: {end}, text: "{text}"}}' for start, end, text in SLOTS)
    (folder / "script.yaml").write_text(f"segments:\n{segments}\n")
    found: dict[str, Any] = {"rows": rows}
    shared: dict[str, Any] = {}
    home = Cache(cache)
    with measured(shared):
        parts = (message, folder / "script.yaml")
        create_template(Templates(cache), "trip", parts, "video_rewrite", "largest", home, SerialExecutor())
    place = Place("trip", str(cache), str(folder / "out"), folder / "mirror")
    with measured(found), make_executor(2) as pool:
        _, results = run_batch(Batch(write_manifest(folder / "rows.csv", rows), place, Wanted()), pool)
    made = [result for result in results if result.status == "done"]
    assert len(made) == rows, [result.error for result in results]
    found["learn_once"] = shared
    found["cpu_seconds_per_row"] = round(found["cpu_seconds"] / rows, 2)
    found["cpu_seconds_of_each_row"] = [result.cpu_seconds for result in made]
    found["cpu_seconds_per_further_row"] = round(float(np.median(found["cpu_seconds_of_each_row"])), 2)
    found["frames_copied"], found["frames_changed"] = made[0].copied, made[0].changed
    found["rows_per_hour"] = round(3600 * rows / found["seconds"], 1)
    return found


def cheaper(alone: float, rows: dict[str, Any]) -> dict[str, float]:
    """How many times: all that these few rows cost, with the start of two processes; and one row more."""
    return {
        "all_rows": round(alone / rows["cpu_seconds_per_row"], 2),
        "a_further_row": round(alone / rows["cpu_seconds_per_further_row"], 2),
    }


def scaling(folder: Path, weights: Path) -> dict[str, Any]:
    """An engine that costs the same on any machine: seconds of the same rows on one worker and on two."""
    from skimage import data

    photo = data.astronaut()
    frames = [np.ascontiguousarray(photo[k % 20 : k % 20 + 256, 90 + k : 346 + k]) for k in range(45)]
    encode_new(256, 256, Fraction(25), frames, None, EncodeOptions(), folder / "small.mp4")
    (folder / "small.yaml").write_text('segments:\n  - {start: 0.4, end: 1.4, text: "Hello {{customer_name}}"}\n')
    cache = Cache(weights)
    create_template(
        Templates(cache.folder),
        "small",
        (folder / "small.mp4", folder / "small.yaml"),
        "fake",
        "largest",
        cache,
        SerialExecutor(),
    )
    wanted = Wanted("fake", options={"cost": COST_SECONDS})
    found: dict[str, Any] = {"rows": COST_ROWS, "seconds_a_row_at_least": round(24 * COST_SECONDS, 2)}
    for workers in (1, 2):
        with make_executor(workers) as pool:
            for turn, rows in (("warm", 2 * workers), ("measured", COST_ROWS)):
                manifest = write_names(folder / f"{workers}-{turn}.csv", rows)
                place = Place("small", str(cache.folder), str(folder / f"out-{workers}-{turn}"), folder / "mirror")
                part: dict[str, Any] = {}
                with measured(part):
                    run_batch(Batch(manifest, place, wanted), pool)
            found[f"workers_{workers}"] = part
    found["speed_up"] = round(found["workers_1"]["seconds"] / found["workers_2"]["seconds"], 3)
    return found


def write_names(path: Path, rows: int) -> Path:
    """Customers of the small message, no two alike."""
    path.write_text(
        "\n".join(["customer_name", *(f"{NAMES[k % len(NAMES)]} {'x' if k >= len(NAMES) else ''}" for k in range(rows))])
    )
    return path


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--weights", type=Path, help="Cache folder whose model files are used; else they are fetched.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        message = make_message(options.clip, options.seconds, folder)
        caches = [folder / kind for kind in ("alone", "batch")]
        for cache in caches:
            if options.weights is not None:
                shutil.copytree(options.weights / "weights", cache / "weights")
        cold = own_job(message, caches[0], "John", "Paris", folder / "cold.mp4")
        warm = own_job(message, caches[0], "Ann", "Rome", folder / "warm.mp4")
        os.environ["LIPSYNC_CACHE"] = str(caches[1])
        rows = batch_of(message, folder, caches[1], options.rows)
        clip = probe(message)
        facts = {
            "width": clip.width,
            "height": clip.height,
            "frames": clip.frames,
            "seconds": float(clip.duration),
            "slot_seconds": 4.0,
        }
        result = {
            "clip": facts,
            "cores": os.cpu_count(),
            "independent_job": cold,
            "independent_job_track_and_avatar_cached": warm,
            "batch": rows,
            "times_cheaper": cheaper(cold["cpu_seconds"], rows),
            "times_cheaper_than_with_track_and_avatar_cached": cheaper(warm["cpu_seconds"], rows),
            "fixed_cost_engine": scaling(folder, caches[1]),
            "note": "measured while other work ran on the same cores; CPU seconds suffer less from that than seconds",
        }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
