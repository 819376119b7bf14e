"""How well an engine shows mouths that it has not seen, when it is told exactly where the lips are.

Temporal split: the avatar is fitted on the first part of a clip and renders the rest from the clip's own landmarks.
Measured in the stabilised 256-pixel face crop, so that clips of any size compare:
mask = PSNR in the hull below the nose base, dilated 9 px and 8 px downwards; shown = PSNR where the rendered picture
weighs more than half (nothing outside can flatter it); mouth = PSNR in the lip box + 4 px; lmd = mean distance of the
40 lip points of the re-tracked result in % of the outer-eye distance; sharp and flicker = result over truth, 1 = equal.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, Engine, Motion, Patch, Span, Speech, Track
from deployments.engines.registry import get_engine
from deployments.face.crop import CropTransform, crop_transforms
from deployments.face.landmarks import LIPS_INNER, LIPS_OUTER, Landmarker, roi_of_points
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import RATE, template_sound, track_coefficients
from deployments.quality.metrics import flicker_energy, landmark_distance, psnr, sharpness
from deployments.retrieval.bank import load_bank

SIDE = 256
LIPS = [*LIPS_OUTER, *LIPS_INNER]


@dataclass(frozen=True)
class Split:
    """Every `stride`-th frame; the first `train` of them fit, the next `test` are rendered (0: all that are left)."""

    stem: str
    stride: int = 1
    train: int = 160
    test: int = 40


SPLITS = (
    Split("closeup_512_podium_8s"),
    Split("portrait_1080x1920_20s", 2, 200, 51),
    Split("closeup_512_woman_8s"),
    Split("portrait_1080x1920_10s", 1, 200, 50),
)


def split_of(stem: str, frames: int) -> Split:
    """The split of a clip: a fixed one for those of the reference figures, else the first 80 % and the rest."""
    known = {split.stem: split for split in SPLITS}
    stride = 1 + frames // 600  # long clips: every second frame
    count = -(-frames // stride)
    return known.get(stem, Split(stem, stride, count * 4 // 5, 0))


@dataclass(frozen=True)
class View:
    """One test frame in the crop: result, truth, regions."""

    out: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    mouth: tuple[slice, slice]


def reconstruct(
    path: Path, split: Split, name: str, track: Track, save: Path | None = None, judge: Track | None = None
) -> dict[str, float]:
    """Figures of the engine called `name` on one clip with its track (`track_clip(clip, passes=3)`).

    `judge` says where the mouth is and what lip distance is measured from, if not the track: a result is tracked by the mesh
    model alone, so its truth should be.
    """
    clip = probe(path)
    frames = np.arange(0, clip.frames, split.stride)
    frames = frames[track.usable[frames]]
    fit, test = frames[: split.train], frames[split.train :][: split.test or None]
    engine = get_engine(name)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        avatar = engine.fit(clip, only(track, fit), Path(folder))
        fit_seconds = time.process_time() - started
        coefficients = track_coefficients(track, load_bank(avatar.path).stable)
        weight = np.isin(np.arange(clip.frames), test).astype(np.float32)
        motion = Motion(coefficients, weight, extra=heard(engine, clip, only(track, fit), avatar))
        judged = only(track, test) if split.stride > 1 else track
        span = Span(int(test[0]), int(test[-1]) + 1)
        started = time.process_time()
        patches = list(engine.render(avatar, motion, decode(clip, span), judged, span))
        milliseconds = (time.process_time() - started) / len(test) * 1000
    views, lmd = seen(clip, judge or track, span, patches)
    if save is not None:
        sheet(views, save / f"{split.stem}-{name}.png")
    cost = {"fit_cpu_s": fit_seconds, "render_cpu_ms": milliseconds, "test_frames": len(views)}
    return {**figures(views), "lmd": lmd, **cost}


def heard(engine: Engine, clip: Clip, track: Track, avatar: Avatar) -> dict[str, NDArray[np.float32]]:
    """What the engine takes from the clip's own sound besides the lips; the sound is moved to where the lips are."""
    sound = template_sound(clip)
    if sound is None:
        return {}
    motion = engine.animate(Speech(sound, RATE), clip, track, avatar, {})
    early = round(motion.info.get("template_offset_ms", 0) * RATE / 1000)
    if not motion.extra or not early:
        return motion.extra
    moved = np.pad(sound, (max(0, early), max(0, -early)))[max(0, -early) :][: len(sound)]
    return engine.animate(Speech(moved, RATE), clip, track, avatar, {}).extra


def seen(clip: Clip, track: Track, span: Span, patches: list[Patch | None]) -> tuple[list[View], float]:
    """Test frames with and without the patch, and the mean lip distance of the re-tracked result in percent."""
    rows = np.flatnonzero(track.usable)
    crops = dict(zip(rows.tolist(), crop_transforms(track.landmarks[rows], SIDE), strict=True))
    views, lmd = [], []
    landmarker = Landmarker()
    for picture, patch in zip(decode(clip, span), patches, strict=True):
        if patch is None:
            continue
        points = track.landmarks[picture.index]
        out = pasted(picture.rgb(), patch)
        views.append(view(out, picture.rgb(), patch, crops[picture.index], points))
        found, _ = landmarker.points(out, roi_of_points(points), passes=3)
        share, _ = landmark_distance(found[None, LIPS, :2], points[None, LIPS, :2], points[None, [33, 263], :2])
        lmd.append(float(share[0]))
    return views, float(np.mean(lmd))


def only(track: Track, frames: NDArray[np.int64]) -> Track:
    """The track with all other frames unusable."""
    return replace(track, usable=track.usable & np.isin(np.arange(len(track.usable)), frames))


def pasted(rgb: NDArray[np.uint8], patch: Patch) -> NDArray[np.uint8]:
    """The picture with the patch on it."""
    out = rgb.astype(np.float32)
    height, width = patch.alpha.shape
    window = out[patch.y : patch.y + height, patch.x : patch.x + width]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def view(
    out: NDArray[np.uint8], truth: NDArray[np.uint8], patch: Patch, crop: CropTransform, points: NDArray[np.float32]
) -> View:
    """Crops and regions of one frame."""
    alpha = np.zeros((*truth.shape[:2], 3), np.uint8)
    height, width = patch.alpha.shape
    alpha[patch.y : patch.y + height, patch.x : patch.x + width] = (patch.alpha[..., None] * 255).astype(np.uint8)
    local = crop.points(points)
    below = local[:468][local[:468, 1] > local[2, 1]]
    hull = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(below.astype(np.int32)), 1)
    hull = cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (19, 19)))
    hull = cv2.dilate(hull, np.ones((9, 1), np.uint8), anchor=(0, 8))
    low, high = np.floor(local[list(LIPS_OUTER)].min(0) - 4).astype(int), np.ceil(local[list(LIPS_OUTER)].max(0) + 4).astype(int)
    box = (slice(max(0, low[1]), high[1]), slice(max(0, low[0]), high[0]))
    return View(crop.cut(out), crop.cut(truth), hull.astype(bool), crop.cut(alpha)[..., 0] > 127, box)


def figures(views: list[View]) -> dict[str, float]:
    """Means over the frames."""
    grey = [[cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (v.out, v.truth)] for v in views]
    sharp = [sharpness(out[v.mouth]) / sharpness(truth[v.mouth]) for v, (out, truth) in zip(views, grey, strict=True)]
    energy = [
        [flicker_energy(*(grey[k + step][side][v.mouth] for step in (-1, 0, 1))) for side in (0, 1)]
        for k, v in list(enumerate(views))[1:-1]
    ]
    out, truth = np.sqrt(np.mean(energy, axis=0))
    return {
        "mask": float(np.mean([psnr(v.out, v.truth, v.mask) for v in views])),
        "shown": float(np.mean([psnr(v.out, v.truth, v.shown) for v in views])),
        "mouth": float(np.mean([psnr(v.out[v.mouth], v.truth[v.mouth]) for v in views])),
        "sharp": float(np.mean(sharp)),
        "flicker": float(out / truth),
    }


def sheet(views: list[View], path: Path) -> None:
    """Truth above result for eight frames."""
    chosen = [views[k] for k in np.linspace(0, len(views) - 1, 8).astype(int)]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.hstack([np.vstack([v.truth[112:], v.out[112:]]) for v in chosen])
    cv2.imwrite(str(path), cv2.cvtColor(rows, cv2.COLOR_RGB2BGR))
