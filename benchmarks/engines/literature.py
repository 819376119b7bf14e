"""The protocol of the talking-head literature: fit on the first 10/11 of a clip, render the last 1/11, whole head at 512x512.

The head's square (one for the clip) is cut out and resized; PSNR over all of it, SSIM on luma, LMD = mean distance of the 40
lip points in pixels of the square, each frame's own mean taken off. Driven by the true landmarks of the test frames; our
picture is pasted back into the filmed frame, so hair, eyes and background are true: that flatters beside engines that draw
the whole head.

    python -m benchmarks.engines.literature CLIP [--engine NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.__main__ import tracked
from benchmarks.engines.self_reconstruction import LIPS, only, pasted
from deployments.contracts import Motion, Span, Track
from deployments.engines.registry import get_engine
from deployments.face.landmarks import Landmarker, roi_of_points
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import track_coefficients
from deployments.quality.metrics import psnr, ssim
from deployments.retrieval.bank import load_bank

SIDE = 512
HEAD = 1.7  # sides of the square in heights of the face


def measure(path: Path, name: str) -> dict[str, float]:
    """Figures of the engine called `name`."""
    clip = probe(path)
    track = tracked(clip)
    first = clip.frames * 10 // 11
    engine, span = get_engine(name), Span(first, clip.frames)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        avatar = engine.fit(clip, only(track, np.arange(first)), Path(folder))
        fit_seconds = time.process_time() - started
        motion = Motion(
            track_coefficients(track, load_bank(avatar.path).stable), (np.arange(clip.frames) >= first).astype(np.float32)
        )
        patches = list(engine.render(avatar, motion, decode(clip, span), track, span))
    box, landmarker, rows = square(track), Landmarker(), []
    for picture, patch in zip(decode(clip, span), patches, strict=True):
        if patch is None:
            continue
        out, truth = cut(pasted(picture.rgb(), patch), box), cut(picture.rgb(), box)
        points = (track.landmarks[picture.index, :, :2] - box[:2]) * SIDE / box[2]
        around = roi_of_points(np.concatenate([points, points[:, :1]], 1))
        lips = [landmarker.points(rgb, around, passes=3)[0][LIPS, :2] for rgb in (out, truth)]
        gap = np.linalg.norm((lips[0] - lips[0].mean(0)) - (lips[1] - lips[1].mean(0)), axis=1).mean()
        luma = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (out, truth)]
        rows.append((psnr(out, truth), ssim(*luma), float(gap)))
    means = np.mean(rows, axis=0)
    return {"psnr": means[0], "ssim": means[1], "lmd_px": means[2], "frames": len(rows), "fit_cpu_s": fit_seconds}


def square(track: Track) -> NDArray[np.float64]:
    """x, y and side of the head's square, of the usable frames' mean face."""
    points = track.landmarks[track.usable][..., :2]
    low, high = points.min(1).mean(0), points.max(1).mean(0)
    side = HEAD * float((high - low).max())
    return np.array([*((low + high) / 2 - side / 2), side])


def cut(rgb: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The square of a picture at 512x512."""
    scale = box[2] / SIDE
    matrix = np.array([[scale, 0, box[0]], [0, scale, box[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(rgb, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def main() -> None:
    """One row an engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", action="append", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for name in options.engine:
        found[name] = {key: float(value) for key, value in measure(options.clip, name).items()}
        print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
