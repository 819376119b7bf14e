"""Memory of a job on a long clip: the largest sum over all its processes, and each of them, stage by stage.

Counted is PSS, in which a page that several processes share counts once: own memory and mapped files (those can be taken
back by the system). The clip is played again and again until it is long enough (re-encoded once, not measured; `--as-is`
takes it as it is), the speech is repeated to the same length. The job is the one of `lipsync sync`, first run, empty cache.
With `--cache FOLDER` what is there is used: tracking alone takes as long as the clip.

    python -m benchmarks.memory CLIP SPEECH [--seconds 600] [--engine NAME] [--no-report] [--cache FOLDER] [--out FILE.json]

Linux only. Samples are half a second apart, so shorter peaks are missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pipeline import BASE, WORKERS, long_speech, long_template
from deployments.media.probe import probe

EVERY = 0.5  # seconds
KINDS = {"Pss": "megabytes", "Pss_Anon": "own", "Pss_File": "files"}  # of /proc/PID/smaps_rollup
STARTING = "starting"


@dataclass
class Peak:
    """The moment of a stage at which all processes together held most."""

    total: int = 0
    processes: list[dict[str, int]] = field(default_factory=list)
    largest: int = 0  # process at any moment of the stage

    def see(self, processes: list[dict[str, int]]) -> None:
        """Take one sample in."""
        sizes = [process["megabytes"] for process in processes]
        self.largest = max(self.largest, *sizes, 0)
        if sum(sizes) > self.total:
            self.total, self.processes = sum(sizes), processes


def family(root: int) -> list[int]:
    """A process and all that it started, and so on."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def held(process: int) -> dict[str, int] | None:
    """Megabytes that a process holds; None if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = {name.rstrip(":"): int(size) for name, size, unit in map(str.split, lines[1:]) if unit == "kB"}
    return {KINDS[name]: size // 1024 for name, size in sizes.items() if name in KINDS} or None


def measure(command: list[str]) -> dict[str, Any]:
    """Peaks by stage of a program that prints the names of its stages."""
    peaks: dict[str, Peak] = {}
    stage, loads = [STARTING], [0.0]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        reader = threading.Thread(target=stage.extend, args=(map(str.strip, job.stdout),))
        reader.start()
        started = time.monotonic()
        while job.poll() is None:
            processes = [sizes for sizes in map(held, family(job.pid)) if sizes]
            peaks.setdefault(stage[-1], Peak()).see(sorted(processes, key=lambda sizes: -sizes["megabytes"]))
            loads.append(os.getloadavg()[0])
            time.sleep(EVERY)
        reader.join()
    if job.returncode:
        raise SystemExit(f"the job ended with {job.returncode}")
    stages = {name: {"sum": peak.total, "largest": peak.largest, "processes": peak.processes} for name, peak in peaks.items()}
    most = {"sum": max(p.total for p in peaks.values()), "largest_process": max(p.largest for p in peaks.values())}
    return {"peak_megabytes": most, "stages": stages, "wall_seconds": round(time.monotonic() - started), "load": max(loads)}


def run_job(clip: Path, speech: Path, out: Path, engine: str, report: bool) -> None:
    """In the measured process: the job, saying which stage it is in."""
    from serve_app.request import SpeechSource, SyncRequest
    from serve_app.unified import LipSync

    said = STARTING

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal said
        if stage != said:
            said = stage
            print(stage, flush=True)

    folder = out.with_suffix(".report") if report else None
    LipSync(engine, workers=WORKERS, progress=progress).run(
        SyncRequest(clip, (SpeechSource(audio=speech),), out, engine, report=folder)
    )


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--engine", default=BASE)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--as-is", action="store_true")
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)  # in the measured process: where its result goes
    options = parser.parse_args()
    if options.job is not None:
        run_job(options.clip, options.speech, options.job, options.engine, not options.no_report)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = probe(options.clip) if options.as_is else long_template(options.clip, options.seconds, folder)
        speech = long_speech(options.speech, float(clip.duration), 0.0, folder)
        os.environ["LIPSYNC_CACHE"] = str(options.cache or folder / "cache")
        words = [str(clip.path), str(speech), "--job", str(folder / "out.mp4"), "--engine", options.engine]
        found = measure([sys.executable, "-m", "benchmarks.memory", *words, *(["--no-report"] if options.no_report else [])])
    facts = {"width": clip.width, "height": clip.height, "frames": clip.frames, "seconds": round(float(clip.duration), 1)}
    told = {"clip": facts, "engine": options.engine, "workers": WORKERS, "report": not options.no_report}
    result = {**told, "cache": "some" if options.cache else "empty", **found}
    if options.out is not None:
        rows = json.loads(options.out.read_text()) if options.out.is_file() else {}
        rows[f"{options.engine}, {clip.frames} frames"] = result
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
