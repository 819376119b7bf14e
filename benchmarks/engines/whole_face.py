"""The whole face drawn by its Gaussians alone, on unseen frames: python -m benchmarks.engines.whole_face CLIP [CLIP ...]

The avatar and the whole face are fitted on the first 80 % of a clip; the rest is drawn as it was filmed, with pose and gaze 0,
from its own landmarks. Measured in the stabilised 256-pixel face crop inside the oval of the face: PSNR, SSIM; LMD is the mean
distance of the 468 points of the re-tracked result in % of the outer-eye distance; what the tracker says when it looks at the
truth again stands beside it. A job mixes the Gaussians with the frame's own moved pixels and filmed mouths; here they are alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.__main__ import tracked
from benchmarks.engines.self_reconstruction import SIDE, only
from deployments.contracts import Clip, Motion, Picture, Span, Track
from deployments.engines.gaussian_splatting.avatar import load_head
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.engine import GaussianSplatting
from deployments.engines.gaussian_splatting.face import fit_face, load_face
from deployments.engines.gaussian_splatting.options import Turn
from deployments.engines.gaussian_splatting.whole import FaceStage, HeadPiece
from deployments.face.composite import across
from deployments.face.crop import crop_transforms
from deployments.face.landmarks import FACE_OVAL, Landmarker, roi_of_points
from deployments.face.mesh import FACE_POINTS
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import track_coefficients
from deployments.quality.metrics import landmark_distance, psnr, ssim

TURNS = {"pose": Turn(yaw=8, pitch=3), "gaze": Turn(gaze_x=0.15), "both": Turn(yaw=8, pitch=3, gaze_x=0.15)}
TIMED = 12  # frames

Floats = NDArray[np.float32]


def measure(path: Path, sheet: Path | None = None) -> dict[str, float]:
    """Figures of one clip."""
    clip, config = probe(path), GaussianConfig()
    track = tracked(clip)
    frames = np.flatnonzero(track.usable)
    taught, test = frames[: len(frames) * 4 // 5], frames[len(frames) * 4 // 5 :]
    with tempfile.TemporaryDirectory() as folder:
        avatar = GaussianSplatting(config).fit(clip, only(track, taught), Path(folder))
        started = time.process_time()
        fit_face(avatar.path, clip, config)
        found = {"fit_cpu_s": time.process_time() - started}
        head, face = load_head(avatar.path), load_face(avatar.path)
        coefficients = track_coefficients(track, head.bank.stable)
        motion = Motion(coefficients, np.isin(np.arange(clip.frames), test).astype(np.float32))
        stage = FaceStage(head, face, motion, track, Turn(), config)
        found |= judge(clip, track, stage, Span(int(test[0]), int(test[-1]) + 1), sheet)
        for name, turn in TURNS.items():
            found[f"{name}_cpu_ms"] = cost(clip, FaceStage(head, face, motion, track, turn, config), int(test[0]))
    return {**found, "test_frames": len(test), "load": os.getloadavg()[0]}


def judge(clip: Clip, track: Track, stage: FaceStage, span: Span, sheet: Path | None) -> dict[str, float]:
    """Means over the frames of a span."""
    landmarker, rows, views = Landmarker(), [], []
    crops = dict(zip(range(span.start, span.stop), crop_transforms(track.landmarks[span.start : span.stop], SIDE), strict=True))
    for picture in decode(clip, span):
        piece = stage.piece(picture)
        if piece is None:
            continue
        points, crop = track.landmarks[picture.index], crops[picture.index]
        truth = picture.rgb()
        out = alone(stage, piece, picture)
        hull = np.zeros((SIDE, SIDE), np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(crop.points(points)[list(FACE_OVAL)].astype(np.int32)), 1)
        new, old = crop.cut(out), crop.cut(truth)
        lmd = []
        for shown in (out, truth):
            found, _ = landmarker.points(shown, roi_of_points(points), passes=3)
            near, _ = landmark_distance(
                found[None, :FACE_POINTS, :2], points[None, :FACE_POINTS, :2], points[None, [33, 263], :2]
            )
            lmd.append(float(near[0]))
        rows.append((psnr(new, old, hull > 0), ssim(new, old, hull > 0), *lmd))
        views.append(np.vstack([old, new]))
    if sheet is not None:
        chosen = np.hstack([views[k] for k in np.linspace(0, len(views) - 1, 6).astype(int)])
        cv2.imwrite(str(sheet), cv2.cvtColor(chosen, cv2.COLOR_RGB2BGR))
    return dict(zip(("psnr", "ssim", "lmd", "lmd_of_truth"), np.mean(rows, axis=0).tolist(), strict=True))


def alone(stage: FaceStage, piece: HeadPiece, picture: Picture) -> NDArray[np.uint8]:
    """The frame with the face drawn by Gaussians alone, up to the soft border of its oval."""
    out, box = picture.rgb().astype(np.float32), piece.box
    window = out[box.y : box.y + box.height, box.x : box.x + box.width]
    alpha = piece.where.here.alpha[box.inside(piece.where.here)][..., None]
    rgb, shift = piece.drawn(stage.windows([piece])[0], window)
    x, y = across(alpha.shape)
    window += alpha * (rgb + shift[0] + x[:, None] * shift[1] + (y[:, None] * shift[2])[:, None] - window)
    return np.rint(np.clip(out, 0, 255)).astype(np.uint8)


def cost(clip: Clip, stage: FaceStage, first: int) -> float:
    """Milliseconds of one core for one frame, without its decoding."""
    pictures = list(decode(clip, Span(first, first + TIMED)))
    list(stage.patches(pictures[:2]))
    started = time.process_time()
    list(stage.patches(pictures[2:]))
    return (time.process_time() - started) / (TIMED - 2) * 1000


def main() -> None:
    """One row a clip; the JSON is written after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    found = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for path in options.clips:
        found[path.stem] = row = measure(path, options.save and options.save / f"face-{path.stem}.png")
        print(f"{path.stem:28}", *(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
