"""Eyes that look elsewhere: the iris as a sprite of its own, over an eye without one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.portrait.mesh import LEFT_EYE, RIGHT_EYE

IRISES = {RIGHT_EYE: (468, 469, 470, 471, 472), LEFT_EYE: (473, 474, 475, 476, 477)}  # centre, four points of the rim
RIM = 1.12  # radii that are the iris, its dark rim too
SOFT_RIM = 0.14  # radii in which it ends
BINS = 24
LASHES = 0.18  # radii below the upper lid where lashes darken the eye: they stay
PAD = 0.35  # eye widths around an eye
BENT, LAYERED = 0.05, 0.11  # eye widths: up to the first the photo's own eye is bent, from the second on it is drawn in layers

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Eyeball:
    """One eye of a photo in layers, in a box of the photo."""

    origin: tuple[int, int]  # photo pixel of the box's corner
    view: NDArray[np.uint8]  # [h, w, 3] the photo
    centre: NDArray[np.float64]  # [2] of the iris, in the box
    radius: float  # of the iris, pixels
    white: NDArray[np.uint8]  # [h, w, 3] the photo, with the white of the eye where the iris was
    iris: Floats  # [h, w, 4] premultiplied RGB 0..255 and alpha, whole although lids hide parts of it
    width: float  # of the eye, pixels


def eyeballs(photo: NDArray[np.uint8], landmarks: Floats) -> dict[tuple[int, ...], Eyeball]:
    """Both eyes of a photo [H, W, 3]; an eye that leaves the picture is left out and looks where it looks."""
    found: dict[tuple[int, ...], Eyeball] = {}
    for ring, points in IRISES.items():
        eye = landmarks[list(ring), :2].astype(np.float64)
        width = float(np.linalg.norm(eye[8] - eye[0]))
        low = np.floor(eye.min(0) - PAD * width).astype(int)
        high = np.ceil(eye.max(0) + PAD * width).astype(int) + 1
        if (low < 0).any() or high[0] > photo.shape[1] or high[1] > photo.shape[0]:
            continue
        view = photo[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        centre, *rim = landmarks[list(points), :2].astype(np.float64) - low
        radius = float(np.mean([np.linalg.norm(p - centre) for p in rim]))
        inside = opening(eye - low, view.shape)
        layers = white_of(view, inside, centre, radius), iris_of(view, inside, centre, radius)
        found[ring] = Eyeball((int(low[0]), int(low[1])), view.astype(np.uint8), centre, radius, *layers, width)
    return found


def opening(polygon: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels [h, w] between the lids."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return np.asarray(mask > 0)


def radii(shape: tuple[int, ...], centre: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Distance [h, w] of pixels from the iris' centre, in its radii."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(x - centre[0], y - centre[1]) / radius, np.float64)


def white_of(view: Floats, inside: NDArray[np.bool_], centre: NDArray[np.float64], radius: float) -> NDArray[np.uint8]:
    """The eye [h, w, 3] without its iris: filled along the lids, so that their shade stays, from the white beside it."""
    away = radii(view.shape, centre, radius)
    known = (inside & (away > RIM + SOFT_RIM)).astype(np.float32)
    fill = np.full_like(view, np.percentile(view[inside], 85) if inside.any() else 200.0)
    for wide, high in ((3.0, 3.0), (1.5, 0.6), (1.2, 0.2)):
        x, y = max(0.6, wide * radius), max(0.6, high * radius)
        amount = cv2.GaussianBlur(known, (0, 0), sigmaX=x, sigmaY=y)[..., None]
        mean = cv2.GaussianBlur(view * known[..., None], (0, 0), sigmaX=x, sigmaY=y) / np.maximum(amount, 1e-6)
        trust = np.clip(amount / 0.03, 0, 1)
        fill += (mean - fill) * trust
    disc = np.clip((RIM + 2 * SOFT_RIM - away) / SOFT_RIM, 0, 1)
    lashes = max(1, round(LASHES * radius))
    below = np.zeros_like(inside)
    below[lashes:] = inside[:-lashes]
    share = cv2.GaussianBlur(disc * (inside & below), (0, 0), max(0.4, 0.06 * radius))[..., None]
    return np.clip(np.rint(view + (fill - view) * share), 0, 255).astype(np.uint8)


def iris_of(view: Floats, inside: NDArray[np.bool_], centre: NDArray[np.float64], radius: float) -> Floats:
    """The whole iris [h, w, 4]: what lids hide has the mean colour of its distance from the centre."""
    away = radii(view.shape, centre, radius)
    seen = inside & (away <= RIM + SOFT_RIM)
    alpha = np.clip((RIM + SOFT_RIM / 2 - away) / SOFT_RIM, 0, 1).astype(np.float32)
    place = np.minimum(away / (RIM + SOFT_RIM) * BINS, BINS - 1).astype(int)
    count = np.bincount(place[seen], minlength=BINS).astype(np.float64)
    if not count.any():
        return np.zeros((*view.shape[:2], 4), np.float32)
    filled = np.flatnonzero(count)
    ring = np.empty((BINS, 3))
    for k in range(3):
        total = np.bincount(place[seen], view[..., k][seen], BINS)
        ring[:, k] = np.interp(np.arange(BINS), filled, total[filled] / count[filled])
    where = np.clip(away / (RIM + SOFT_RIM) * BINS - 0.5, 0, BINS - 1)
    typical = np.stack([np.interp(where, np.arange(BINS), ring[:, k]) for k in range(3)], axis=-1)
    inner = cv2.erode(seen.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    trust = cv2.GaussianBlur(inner, (0, 0), max(0.4, 0.1 * radius))[..., None] * seen[..., None]
    rgb = typical + (view - typical) * trust
    return np.concatenate([rgb * alpha[..., None], alpha[..., None]], axis=-1).astype(np.float32)


def look(ball: Eyeball, matrix: NDArray[np.float64], gaze: NDArray[np.float64], width: int, height: int) -> Floats:
    """The eye [h, w, 3] with its iris moved by `gaze` (eye widths); `matrix` [2, 3] takes photo pixels to the output."""
    placed = matrix.copy()
    placed[:, 2] += matrix[:, :2] @ np.array(ball.origin, np.float64)
    shift = gaze * ball.width
    share = float(np.clip((np.linalg.norm(gaze) - BENT) / (LAYERED - BENT), 0, 1))
    if share == 0:
        return bent(ball, placed, shift, width, height)
    drawn = layered(ball, placed, shift, width, height)
    return drawn if share == 1 else share * drawn + (1 - share) * bent(ball, placed, shift, width, height)


def bent(ball: Eyeball, placed: NDArray[np.float64], shift: NDArray[np.float64], width: int, height: int) -> Floats:
    """The photo's own eye, stretched beside the iris: as good as the photo, for looks that are close to its own."""
    back = np.asarray(cv2.invertAffineTransform(placed), np.float64)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    where = np.stack([x, y, np.ones_like(x)], axis=-1) @ back.T
    away = np.linalg.norm(where - (ball.centre + shift), axis=-1) / ball.radius
    t = np.clip((2.3 - away) / 1.2, 0, 1)
    where = (where - shift * (t * t * (3 - 2 * t))[..., None]).astype(np.float32)
    seen = cv2.remap(ball.view, where[..., 0], where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.float32)


def layered(ball: Eyeball, placed: NDArray[np.float64], shift: NDArray[np.float64], width: int, height: int) -> Floats:
    """The iris as a sprite over the eye without one."""
    white = cv2.warpAffine(ball.white, placed, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = placed.copy()
    moved[:, 2] += placed[:, :2] @ shift
    iris = cv2.warpAffine(ball.iris, moved, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(white * (1 - iris[..., 3:]) + iris[..., :3], np.float32)
