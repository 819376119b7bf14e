"""Another mouth on a filmed frame: python -m benchmarks.engines.exchange CLIP [CLIP ...] [--engine NAME ...] [--json FILE].

Self-reconstruction leaves the filmed jaw where it was. Here frame i of a clip gets the lips of frame j, in which the head
is held nearly alike and the mouth is not, and the truth is frame j laid over frame i by the points that speech does not
move. Blocks of 20 frames fit the avatar, the inner 14 of the blocks between them are judged.
mask = PSNR below the nose base in the hull of both faces, dilated 9 px; jaw = PSNR within 6 px of both jaw lines; filmed =
the same for frame i as it is, which is what an engine has to beat. 256-pixel face crop. The two heads are never held quite
alike, so the figures are low; they compare engines and changes of one, not papers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.__main__ import BASE, tracked
from benchmarks.engines.self_reconstruction import SIDE, only, pasted
from deployments.contracts import Clip, Motion, Patch, Span, Track
from deployments.engines.registry import get_engine
from deployments.face.crop import crop_transforms
from deployments.face.mesh import JAW
from deployments.face.pose import STABLE, canonical
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import track_coefficients
from deployments.motion.lip_space import LipSpace
from deployments.quality.metrics import psnr
from deployments.retrieval.bank import load_bank

Floats = NDArray[np.float32]

BLOCK, EDGE = 20, 3
MOST_PAIRS, MOST_FRAMES = 24, 700
ALIKE = 4.0  # degrees of yaw and pitch
SAME_SIZE = 0.05  # of the logarithm of the scale
APART = 3  # frames between two judged ones


def measure(clip: Clip, track: Track, name: str, sheet: Path | None = None) -> dict[str, float]:
    """Figures of the engine called `name` on one clip."""
    frames = np.flatnonzero(track.usable)
    frames = frames[:: 1 + len(frames) // MOST_FRAMES]
    phase = np.arange(len(frames)) % (2 * BLOCK)
    fit, test = frames[phase < BLOCK], frames[(phase >= BLOCK + EDGE) & (phase < 2 * BLOCK - EDGE)]
    engine = get_engine(name)
    with tempfile.TemporaryDirectory() as folder:
        avatar = engine.fit(clip, only(track, fit), Path(folder))
        own = track_coefficients(track, load_bank(avatar.path).stable)
        pairs = alike(track, test, own)
        wanted, weight = own.copy(), np.zeros(clip.frames, np.float32)
        for i, j in pairs:
            wanted[i], weight[i] = own[j], 1
        span = Span(int(test[0]), int(test[-1]) + 1)
        pictures = {picture.index: picture.rgb().copy() for picture in decode(clip, span)}
        patches = engine.render(avatar, Motion(wanted, weight), decode(clip, span), track, span)
        made = dict(zip(range(span.start, span.stop), patches, strict=True))
    rows = [judge(track, pictures, made[i], i, j) for i, j in pairs]
    if sheet is not None:
        picked = [views for views, _ in rows[:8]]
        cv2.imwrite(str(sheet), cv2.cvtColor(np.hstack([np.vstack(views) for views in picked]), cv2.COLOR_RGB2BGR))
    names = ("mask", "jaw", "filmed_mask", "filmed_jaw")
    means = np.mean([figures for _, figures in rows], axis=0)
    return {"pairs": len(rows), **dict(zip(names, means.tolist(), strict=True))}


def alike(track: Track, frames: NDArray[np.int64], coefficients: Floats) -> list[tuple[int, int]]:
    """Pairs (i, j) of frames with heads held alike and mouths opened differently, the most different first."""
    faces = canonical(track.landmarks[frames])
    angles = np.degrees(faces.angles())[:, :2]
    turned = np.linalg.norm(angles[:, None] - angles[None], axis=-1)
    opening = LipSpace.load().aperture(coefficients[frames])
    gap = np.abs(opening[:, None] - opening[None])
    near = (turned < ALIKE) & (np.abs(np.log(faces.scale[:, None] / faces.scale[None])) < SAME_SIZE)
    score = np.where(near & (gap > 0.5 * np.std(opening)), gap - 0.01 * turned, -np.inf)
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-score, axis=None):
        i, j = (int(k) for k in np.unravel_index(flat, score.shape))
        if score[i, j] == -np.inf or len(pairs) == MOST_PAIRS:
            break
        if all(abs(int(frames[i]) - other) >= APART for other, _ in pairs):
            pairs.append((int(frames[i]), int(frames[j])))
    return pairs


def judge(
    track: Track, pictures: dict[int, NDArray[np.uint8]], patch: Patch | None, i: int, j: int
) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """Crops (filmed, made, truth) and figures of one pair."""
    here, there = track.landmarks[i], track.landmarks[j]
    matrix, _ = cv2.estimateAffinePartial2D(there[STABLE, :2], here[STABLE, :2], method=cv2.LMEDS)
    height, width = pictures[i].shape[:2]
    truth = cv2.warpAffine(pictures[j], matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = there.copy()
    moved[:, :2] = there[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    crop = crop_transforms(here[None], SIDE)[0]
    out = pictures[i] if patch is None else pasted(pictures[i], patch)
    filmed, made, wanted = (crop.cut(picture) for picture in (pictures[i], out, np.asarray(truth, np.uint8)))
    hull, jaw = regions([crop.points(here), crop.points(moved)])
    figures = [psnr(picture, wanted, region) for picture in (made, filmed) for region in (hull, jaw)]
    return [filmed, made, wanted], figures


def regions(faces: list[Floats]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The lower hull of the faces, and the part of it near their jaw lines."""
    hull, jaw = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    for points in faces:
        below = points[:468][points[:468, 1] > points[2, 1]]
        cv2.fillConvexPoly(hull, cv2.convexHull(below[:, :2].astype(np.int32)), 1)
        cv2.polylines(jaw, [np.rint(points[JAW, :2]).astype(np.int32)], False, 1, 13)
    hull = cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (19, 19)))
    return hull.astype(bool), (jaw & hull).astype(bool)


def main() -> None:
    """One row a clip and engine; the JSON is written after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--engine", action="append", help=f"default: {BASE}")
    parser.add_argument("--save", type=Path, help="folder for sheets: filmed, made, truth")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for path in options.clips:
        clip = probe(path)
        for name in options.engine or [BASE]:
            row = measure(clip, tracked(clip), name, options.save and options.save / f"{path.stem}-{name}-exchange.png")
            found.setdefault(path.stem, {})[name] = row
            print(f"{path.stem:28} {name:20}", *(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
