"""The whole job on a long portrait clip: seconds per stage, real-time factor, memory.

The template is played forwards and backwards until it is long enough (re-encoded once, not measured); the speech is
repeated to the same length. For each engine, first run: empty cache. Second run: other speech
position, avatar and track cached. The JSON is written after each engine.

    python -m benchmarks.pipeline CLIP SPEECH [--engine NAME ...] [--seconds 30] [--out benchmarks/results/pipeline.json]

Times are wall clock on whatever else the machine does; the load average is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip
from deployments.media.decode import YuvPicture, decode_order
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from deployments.media.stitch import stitch
from serve_app.cache import Cache
from serve_app.executor import make_executor
from serve_app.pipeline import run_sync
from serve_app.request import SpeechSource, SyncRequest

BASE = "video_rewrite"
RATE = 16000
WORKERS = 2


def bounced(clip: Clip, frames: int) -> Iterator[YuvPicture]:
    """The clip forwards and backwards until `frames` are reached."""
    there_and_back = [*range(clip.frames), *range(clip.frames - 2, 0, -1)]
    order = (there_and_back * (frames // len(there_and_back) + 1))[:frames]
    for index, picture in enumerate(decode_order(clip, order)):
        picture.index = index
        yield picture


def long_template(source: Path, seconds: float, folder: Path) -> Clip:
    """A clip of the wanted length at constant frame rate, without sound."""
    clip = probe(source)
    count = round(seconds * float(clip.average_rate))
    step = round(1 / (clip.average_rate * clip.time_base))
    encode_chunk(clip, bounced(clip, count), EncodeOptions("high"), folder / "chunk.mkv")
    out = folder / "template.mp4"
    stitch(clip, [folder / "chunk.mkv"], np.arange(count, dtype=np.int64) * step, None, out)
    return probe(out)


def long_speech(source: Path, seconds: float, shift: float, folder: Path) -> Path:
    """The speech, started `shift` seconds late and repeated."""
    samples = np.roll(read_sound(source, RATE), -round(shift * RATE))
    samples = np.resize(samples, round(seconds * RATE))
    path = folder / f"speech_{shift}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm(samples))
    return path


def pcm(samples: NDArray[np.float32]) -> bytes:
    """16-bit little-endian samples."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def measure(clip: Clip, speech: Path, engine: str, cache: Cache, out: Path) -> dict[str, object]:
    """One job without a report."""
    with make_executor(WORKERS) as executor:
        job = run_sync(SyncRequest(clip.path, (SpeechSource(audio=speech),), out, engine), cache, executor)
    total = sum(job.seconds.values())
    stages = {name: round(spent, 2) for name, spent in job.seconds.items()}
    factor = float(clip.duration) / total
    size = round(out.stat().st_size / 2**20, 1)
    told = {"seconds": stages, "total": round(total, 2), "real_time": round(factor, 3), "megabytes": size}
    return {**told, "load": os.getloadavg()[0]}


def peak_megabytes() -> dict[str, float]:
    """Largest resident set so far: of this process, and of the largest worker."""
    kinds = {"main": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(kind).ru_maxrss / 1024, 1) for name, kind in kinds.items()}


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--engine", action="append", help=f"default: {BASE}")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"engines": {}}
    if options.out is not None and options.out.is_file():
        result = json.loads(options.out.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = long_template(options.clip, options.seconds, folder)
        speech = [long_speech(options.speech, float(clip.duration), shift, folder) for shift in (0.0, 1.0)]
        size = {"width": clip.width, "height": clip.height, "frames": clip.frames}
        result["clip"] = {**size, "seconds": float(clip.duration), "workers": WORKERS}
        for engine in options.engine or [BASE]:
            cache, row = Cache(folder / engine), {}
            for stage, sound in zip(("first_run", "avatar_cached"), speech, strict=True):
                row[stage] = measure(clip, sound, engine, cache, folder / f"{engine}_{stage}.mp4")
                print(engine, stage, row[stage], flush=True)
            result["engines"][engine] = {**row, "peak_megabytes_so_far": peak_megabytes()}
            if options.out is not None:
                options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
