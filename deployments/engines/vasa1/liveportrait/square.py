"""The square that the networks see of a photo, and the way of a drawn face back into it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.liveportrait.config import CropConfig
from deployments.face.crop import CropTransform
from deployments.face.landmarks import FACE_OVAL

# what the published crop's landmarks reach: jaw and cheeks up to the eyes' height, brows; no forehead
OUTLINE = (*FACE_OVAL[7:30], 70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
EYES = (33, 133, 159, 145, 263, 362, 386, 374)
MOUTH_CORNERS = (61, 291)
LARGEST = 2048  # side at which a square is cut before it is made small


def square_of(landmarks: NDArray[np.float32], side: int, config: CropConfig) -> CropTransform:
    """The upright square around a face [478, 3], `side` pixels large; eyes to mouth points downwards in it."""
    points = landmarks[list(OUTLINE), :2].astype(np.float64)
    eyes, mouth = (landmarks[list(index), :2].astype(np.float64).mean(0) for index in (EYES, MOUTH_CORNERS))
    down = (mouth - eyes) / max(float(np.linalg.norm(mouth - eyes)), 1e-3)
    axes = np.array([[down[1], -down[0]], down])  # to the right and down, as rows
    turned = points @ axes.T
    low, high = turned.min(0), turned.max(0)
    size = float((high - low).max()) * config.scale
    centre = ((low + high) / 2 - (0, config.up * size)) @ axes
    linear = axes.T * (size / side)
    return CropTransform(np.column_stack([linear, centre - linear @ (side / 2, side / 2)]), side)


def cut_small(photo: NDArray[np.uint8], square: CropTransform, side: int) -> NDArray[np.uint8]:
    """The square of a photo at `side` pixels; larger ones are cut as they are and made smaller by areas."""
    native = int(np.clip(round(square.side * float(np.hypot(*square.matrix[:, 0]))), side, LARGEST))
    whole = resized(square, native).cut(photo)
    return np.asarray(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def resized(square: CropTransform, side: int) -> CropTransform:
    """The same square with another number of pixels; outer edges stay."""
    scale = square.side / side
    linear = square.matrix[:, :2] * scale
    shift = square.matrix[:, 2] + square.matrix[:, :2] @ np.full(2, (scale - 1) / 2)
    return CropTransform(np.column_stack([linear, shift]), side)


@dataclass(frozen=True)
class Paste:
    """Where a drawn face goes in the photo: a window of it, and how much of the face shows there."""

    x: int
    y: int
    alpha: NDArray[np.float32]  # [h, w, 1]
    matrix: NDArray[np.float64]  # T_window_face [2, 3], for faces of `side` pixels
    side: int

    def put(self, photo: NDArray[np.uint8], face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the photo with the face [S, S, 3] in its place."""
        if face.shape[0] != self.side:  # smaller by areas first, or it would flicker
            face = np.asarray(cv2.resize(face, (self.side, self.side), interpolation=cv2.INTER_AREA), np.uint8)
        height, width = self.alpha.shape[:2]
        placed = cv2.warpAffine(face, self.matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        out = photo.copy()
        under = out[self.y : self.y + height, self.x : self.x + width].astype(np.float32)
        mixed = under + self.alpha * (placed.astype(np.float32) - under)
        out[self.y : self.y + height, self.x : self.x + width] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
        return out


def paste_of(square: CropTransform, shape: tuple[int, ...], config: CropConfig) -> Paste:
    """How a face drawn in the square is put into a photo [H, W, 3]; it fades out towards the square's border."""
    scale = float(np.hypot(*square.matrix[:, 0]))
    square = resized(square, max(1, round(square.side * min(1.0, scale))))
    corners = np.array([(x, y) for x in (-0.5, square.side - 0.5) for y in (-0.5, square.side - 0.5)])
    seen = corners @ square.matrix[:, :2].T + square.matrix[:, 2]
    limit = np.array([shape[1], shape[0]])
    x, y = (int(v) for v in np.clip(np.floor(seen.min(0)), 0, limit - 1))
    wide, high = (int(v) for v in np.clip(np.ceil(seen.max(0)) + 1, (x + 1, y + 1), limit) - (x, y))
    matrix = square.matrix - np.array([[0, 0, x], [0, 0, y]])
    fade = fading(square.side, config.border)
    alpha = cv2.warpAffine(fade, matrix, (wide, high), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return Paste(x, y, np.asarray(alpha, np.float32)[..., None], matrix, square.side)


def fading(side: int, border: float) -> NDArray[np.float32]:
    """1 inside, smoothly to 0 over a share of the side at the border [S, S]."""
    place = (np.arange(side) + 0.5) / side
    ramp = np.clip(np.minimum(place, 1 - place) / border, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.asarray(np.minimum.outer(smooth, smooth), np.float32)
