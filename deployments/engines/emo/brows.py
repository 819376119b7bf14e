"""Brows rise with the stress of the new speech and move with an emotion; all else above the mouth stays as it was filmed.

In their own clips, people whose brows move at all raise them with what is louder than the speech around it, a little before it
is heard. A rise is as high as the person's own brows move in the template; lids, nose, temples and hairline stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Patch, Picture, Speech, Track
from deployments.errors import OptionError
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.mesh import smoothstep
from deployments.face.pose import canonical

LIFT = "lift"  # in Motion.extra [T], eye distances
RATE = 16000
HOP = 0.01  # seconds between loudness values
SYLLABLE, PHRASE = 0.3, 1.6  # seconds: what is stressed, against what; brows take a third of a second to rise
AHEAD = 0.15  # seconds by which brows are before the voice
QUIET = np.log(10**-4.5)  # power below which nothing is said
EVEN = 0.5  # logarithm of power: speech that varies less has no stress
FULL = 2.0  # spreads of loudness: the highest stress
PEAK = 1.5  # of the person's spread: the highest rise
LEAST, MOST = 0.003, 0.012  # eye distances: the person's own spread, within what is a move and not the tracker's noise

# upper edge of the brows and the lids' upper rim, from the right brow's outer end to the left one's
BROW = (46, 53, 52, 65, 55, 285, 295, 282, 283, 276)
TOP = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
LID = (246, 161, 160, 159, 158, 157, 173, 398, 384, 385, 386, 387, 388, 466)
SHARES = (0.55, 0.85, 1.0, 1.0, 0.9, 0.9, 1.0, 1.0, 0.85, 0.55)  # of the rise
INNER = (0.0, 0.0, 0.2, 0.65, 1.0, 1.0, 0.65, 0.2, 0.0, 0.0)  # and of what the inner ends rise beyond that
LASHES = 0.3  # of the way from the lid up to the brow: lashes and the lid's crease, which stay
HIGHEST, DEEPEST = 0.2, 0.3  # of that way, for brows that rise and sink: skin looks stretched with more, and would fold
FOREHEAD, SIDE = 0.5, 0.22  # eye distances over which a rise fades upwards and sideways
STEP = 4  # pixels: the field is smooth
SEEN = 0.02  # share of the rise from which on the moved picture shows alone

Floats = NDArray[np.float32]


def liveliness_of(options: dict[str, Any]) -> float:
    """How much brows rise with the stress of the speech. Raises OptionError."""
    asked = float(options.get("liveliness", 1.0))
    if not 0 <= asked <= 2:
        raise OptionError(f"expected a liveliness of 0 to 2, got {asked:g}; 0 leaves the brows as filmed")
    return asked


def lift_of(speech: Speech, times: NDArray[np.float64], track: Track, stable: Floats, amount: float) -> dict[str, Floats]:
    """What a motion carries of the brows for frames at times [T]; nothing for an amount of 0."""
    from deployments.audio.features import speech_at_16k

    if amount == 0:
        return {}
    peak = amount * PEAK * own_spread(track, stable, times)
    return {LIFT: np.asarray(peak * stress(speech_at_16k(speech), times), np.float32)}


def stress(samples: Floats, times: NDArray[np.float64]) -> Floats:
    """How stressed [T] the speech (mono 16 kHz) is at times [T]: 0 for quiet and unstressed, 1 for the loudest syllables."""
    if not len(samples):
        return np.zeros(len(times), np.float32)
    hop = int(RATE * HOP)
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % hop))
    power = np.log((padded.reshape(-1, hop) ** 2).mean(1) + 1e-9)
    said = np.maximum(power, QUIET)
    over = soft(said, SYLLABLE) - soft(said, PHRASE)
    spread = max(EVEN, float(over[power > QUIET].std())) if (power > QUIET).any() else np.inf
    found = np.interp(times + AHEAD, (np.arange(len(over)) + 0.5) * HOP, over / spread, 0.0, 0.0)
    return np.clip(found / FULL, 0, 1).astype(np.float32)


def soft(values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Values at every HOP, blurred over some seconds."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(values, 0.4 * seconds / HOP, mode="nearest"), np.float64)


def own_spread(track: Track, stable: Floats, times: NDArray[np.float64]) -> float:
    """How far the person's brows move in the clip, in eye distances; what is slow is bearing, not speech."""
    from scipy.ndimage import gaussian_filter1d

    kept = np.flatnonzero(track.usable)
    if len(kept) < 2:
        return LEAST
    height = canonical(track.landmarks[kept], stable).points[:, [*BROW, *TOP], 1].mean(1)
    frames = 1 / max(float(np.median(np.diff(times[kept]))), 1e-3)
    return float(np.clip((height - gaussian_filter1d(height, frames, mode="nearest")).std(), LEAST, MOST))


def axis(points: Floats) -> tuple[NDArray[np.float64], float]:
    """Direction from the right eye to the left one (x, y; to the right in the picture), and their distance in pixels."""
    way = points[LEFT_EYE_OUTER, :2].astype(np.float64) - points[RIGHT_EYE_OUTER, :2]
    unit = float(np.hypot(*way))
    return way / max(unit, 1e-6), unit


@dataclass(frozen=True)
class Rise:
    """Where brows rise in one frame: a window at (x, y) and how far its places rise [h, w], in eye distances."""

    x: int
    y: int
    way: Floats
    down: NDArray[np.float64]  # [2] (x, y) one eye distance down the face, in pixels


def rise_of(points: Floats, size: tuple[int, ...], lift: float, inner: float = 0.0) -> Rise | None:
    """The field of landmarks [V, 3] in a picture of `size` (height, width); None where the forehead is off screen."""
    across, unit = axis(points)
    down = np.array([-across[1], across[0]])
    beside = SIDE * unit * across
    ends = np.concatenate([points[[*BROW, *TOP, *LID], :2], points[list(TOP), :2] - FOREHEAD * unit * down])
    corners = np.concatenate([ends - beside, ends + beside])
    low, high = np.floor(corners.min(0)).astype(int) // 2 * 2, np.ceil(corners.max(0)).astype(int) + 2 * STEP
    x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(size[1], high[0]), min(size[0], high[1])
    if x1 - x0 < 2 * STEP or y1 - y0 < 2 * STEP:
        return None
    rows, columns = np.mgrid[y0:y1:STEP, x0:x1:STEP]
    grid = np.stack([columns, rows], -1) - points[RIGHT_EYE_OUTER, :2].astype(np.float64)
    way = way_at(points, grid @ across / unit, grid @ down / unit, lift, inner)
    matrix = np.array([[1 / STEP, 0, 0], [0, 1 / STEP, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    full = cv2.warpAffine(way, matrix, (int(x1 - x0), int(y1 - y0)), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return Rise(int(x0), int(y0), np.asarray(full, np.float32), unit * down)


def way_at(points: Floats, along: NDArray[np.float64], below: NDArray[np.float64], lift: float, inner: float) -> Floats:
    """How far places rise, in eye distances along and below the line of the eyes: all of it on the brows, 0 at lids,
    hairline and temples."""
    across, unit = axis(points)
    down = np.array([-across[1], across[0]])

    def placed(of: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        at = (points[of, :2] - points[RIGHT_EYE_OUTER, :2]).astype(np.float64)
        order = np.argsort(at @ across)
        return (at @ across)[order] / unit, (at @ down)[order] / unit

    (place, lower), (top_place, upper), (lid_place, lids) = placed(BROW), placed(TOP), placed(LID)
    brow, top, lid = np.interp(along, place, lower), np.interp(along, top_place, upper), np.interp(along, lid_place, lids)
    lid = np.minimum(lid, 0.0)  # between the eyes and beside them: their corners' height
    gap = np.maximum(lid - brow, 0.03)
    under = ((lid - below) / gap - LASHES) / (1 - LASHES)
    over = 1 - (top - below) / FOREHEAD
    beside = 1 - np.maximum(np.maximum(place[0] - along, along - place[-1]), 0) / SIDE
    whole = smoothstep(np.minimum(under, over).astype(np.float32)) * smoothstep(beside.astype(np.float32))
    asked = lift * np.interp(along, place, SHARES) + inner * np.interp(along, place, INNER)
    return np.asarray(whole * np.clip(asked, -DEEPEST * gap, HIGHEST * gap), np.float32)


def with_brows(patch: Patch | None, picture: Picture, points: Floats, lift: float, inner: float = 0.0) -> Patch | None:
    """The patch with brows raised by `lift` eye distances in the filmed picture above it, their inner ends by `inner` more."""
    rise = rise_of(points, picture.size(), lift, inner) if lift or inner else None
    if rise is None:
        return patch
    height, width = rise.way.shape
    shift = rise.way[..., None] * np.asarray(rise.down, np.float32)  # what is shown comes from below
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    frame = picture.window(rise.x, rise.y, width, height)
    raised = cv2.remap(frame, columns + shift[..., 0], rows + shift[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shows = np.clip(np.abs(rise.way) / (SEEN * (abs(lift) + abs(inner))), 0, 1).astype(np.float32)
    most = max(float(np.abs(rise.way).max()), 1e-9)
    shows = np.minimum(np.abs(rise.way) / (SEEN * most), 1).astype(np.float32)
    brows = Patch(rise.x, rise.y, np.asarray(raised, np.uint8), shows)
    return brows if patch is None else joined(brows, patch, picture)


def joined(under: Patch, over: Patch, picture: Picture) -> Patch:
    """One patch of two: the second lies over the first."""
    parts = (under, over)
    x, y = min(p.x for p in parts), min(p.y for p in parts)
    right, bottom = max(p.x + p.alpha.shape[1] for p in parts), max(p.y + p.alpha.shape[0] for p in parts)
    rgb = picture.window(x, y, right - x, bottom - y).copy()
    alpha = np.zeros(rgb.shape[:2], np.float32)
    for part in parts:
        rows, columns = (slice(at, at + size) for at, size in zip((part.y - y, part.x - x), part.alpha.shape, strict=True))
        shows, below = part.alpha > 0, alpha[rows, columns]
        both = np.nonzero(shows & (below > 0))
        mixed = rgb[rows, columns][both]
        mixed = mixed + part.alpha[both][:, None] * (part.rgb[both] - mixed.astype(np.float32))
        np.copyto(rgb[rows, columns], part.rgb, where=shows[..., None])
        rgb[rows, columns][both] = np.rint(mixed)
        np.maximum(below, part.alpha, out=below)
        below[both] = 1.0
    return Patch(x, y, rgb, alpha)
