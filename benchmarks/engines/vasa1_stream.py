"""A portrait in real time: python -m benchmarks.engines.vasa1_stream [--image FILE] [--audio FILE] [--side N] [--json FILE].

Sound comes in pieces of 40 ms, each at its own time; work on a piece starts when it is there and the one before is done.
    first_frame_ms   from the beginning of the sound until the first frame is there; waited_ms of it is sound that had to come
    sustained_fps    frames over the time spent working
    late_ms          how long after its sound (the end of the frame's 40 ms) a frame is there: mean and 95th percentile
    wall_clock       what was seen, with whatever else the machine did (load_average); one_core counts the process's own time.
    lips_offline     correlation of the lips' opening with that of the offline portrait, and the ratio of their spread
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.audio.features import speech_at_16k
from deployments.contracts import Speech
from deployments.engines.vasa1.face import poses_of
from deployments.engines.vasa1.mood import FRAME
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.engines.vasa1.stream import PortraitStream, PoseStream
from deployments.motion.lip_space import LIP_JAW
from deployments.portrait.controls import Controls
from deployments.portrait.draw import Pose
from deployments.portrait.film import fit_picture
from deployments.portrait.model import PortraitModel

TEXT = (
    "The harbour was quiet that morning. Nobody had expected the letter, and when it came, it changed everything. "
    "We walked along the river for an hour, talking about what to do next, and in the end we decided to wait."
)
PIECE_SECONDS = 0.04
Clock = Callable[[], float]


def play(
    model: PortraitModel, samples: NDArray[np.float32], options: PortraitOptions, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Figures of one speech [N] at 16 kHz that comes in real time; `clock` tells the seconds that work takes."""
    stream, now, busy = PortraitStream(model, options), 0.0, 0.0
    ready: list[float] = []
    pieces = [samples[k : k + FRAME] for k in range(0, len(samples), FRAME)]
    for number, piece in enumerate([*pieces, None]):
        now = max(now, min(number + 1, len(pieces)) * PIECE_SECONDS)
        frames = stream.finish() if piece is None else stream.push(piece)
        began = clock()
        for _ in frames:
            ready.append(now + clock() - began)
        spent = clock() - began
        now, busy = now + spent, busy + spent
    config = stream.poses.config
    late = np.array(ready) - PIECE_SECONDS * (1 + np.arange(len(ready)))
    return {
        "first_frame_ms": 1000 * ready[0],
        "waited_ms": 1000 * PIECE_SECONDS * (config.first + config.ahead),
        "sustained_fps": len(ready) / busy,
        "late_ms_mean": 1000 * float(late.mean()),
        "late_ms_p95": 1000 * float(np.percentile(late, 95)),
        "frames": float(len(ready)),
    }


def motion_fps(model: PortraitModel, samples: NDArray[np.float32], options: PortraitOptions) -> float:
    """Poses per second of a core's own time, without drawing."""
    stream, began = PoseStream(model, options), time.process_time()
    count = sum(1 for k in range(0, len(samples), FRAME) for _ in stream.push(samples[k : k + FRAME]))
    return count / (time.process_time() - began)


def lips_offline(model: PortraitModel, samples: NDArray[np.float32]) -> dict[str, float]:
    """How the streamed lips go with the offline ones."""
    stream, options = PoseStream(model), PortraitOptions()
    live = [*stream.push(samples), *stream.finish()]
    made = poses_of(model, *face_motion(Speech(samples, 16000), options), options.controls)
    a, b = openings(live), openings(made)
    return {"correlation": float(np.corrcoef(a, b)[0, 1]), "spread": float(np.std(a) / np.std(b))}


def openings(poses: Sequence[Pose]) -> list[float]:
    """Gap between the inner lips of every pose."""
    upper, lower = LIP_JAW.tolist().index(13), LIP_JAW.tolist().index(14)
    return [float(pose.displacement[lower, 1] - pose.displacement[upper, 1]) for pose in poses]


def picture(path: Path | None, side: int) -> NDArray[np.uint8]:
    """The picture with a larger side of `side` pixels; the public-domain astronaut's face unless one is given."""
    if path is None:
        from skimage import data

        found = data.astronaut()[:400, 20:420]
    else:
        from serve_app.portrait import read_picture

        found = read_picture(path)
    scale = side / max(found.shape[:2])
    return np.asarray(cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def sound_of(path: Path | None) -> NDArray[np.float32]:
    """Speech at 16 kHz: the file's, or the embedded voice's."""
    from deployments.audio.tts import synthesize

    if path is None:
        return speech_at_16k(synthesize(TEXT))
    from serve_app.request import SpeechSource
    from serve_app.speech import load_source

    return speech_at_16k(load_source(SpeechSource(audio=path), "default"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    model, samples = fit_picture(picture(args.image, args.side), "largest"), sound_of(args.audio)
    play(model, samples[: 40 * FRAME], PortraitOptions())  # compiles and loads what is loaded once
    asked = PortraitOptions(controls=Controls("happy", (0.1, 0.0), 1.05))
    found: dict[str, Any] = {
        "device": "cpu",
        "cores": os.cpu_count(),
        "threads": args.threads,
        "load_average": round(os.getloadavg()[0], 2),
        "side": args.side,
        "face_px": round(model.scale),
        "seconds": len(samples) / 16000,
        "wall_clock": {"nothing_asked": play(model, samples, PortraitOptions()), "all_asked": play(model, samples, asked)},
        "one_core": {
            "nothing_asked": play(model, samples, PortraitOptions(), time.process_time),
            "all_asked": play(model, samples, asked, time.process_time),
        },
        "motion_fps": motion_fps(model, samples, PortraitOptions()),
        "lips_offline": lips_offline(model, samples),
    }
    text = json.dumps(found, indent=1, sort_keys=True)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
