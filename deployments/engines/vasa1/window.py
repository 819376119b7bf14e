"""The decoder's window: a fixed place on the head, seen in every frame at the same size whatever the head does.

Window pixel (i, j) is the head-frame point (left + i / density, top + j / density); the frame's own 2-D similarity,
fitted on points that speech does not move, takes it to frame pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.config import DecoderConfig
from deployments.face.crop import apply, fit_similarity_2d
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.pose import STABLE
from deployments.retrieval.bank import Bank

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MULTIPLE = 16  # the decoder halves the window four times
MARGIN = 0.06  # eye distances around what is shown


@dataclass(frozen=True)
class Window:
    """Place of the decoder's picture on one subject's head."""

    left: float  # head frame, eye distances
    top: float
    density: float  # window pixels per eye distance
    width: int
    height: int
    shrink: float  # frame pixels per window pixel on the template: how much its pictures are made smaller

    def matrix(self, stable: Floats, vertices: Floats) -> NDArray[np.float64]:
        """T_frame_window [2, 3]: window pixels to the pixels of mesh vertices [U, 2]."""
        head = (stable[:, :2].astype(np.float64) - (self.left, self.top)) * self.density
        return fit_similarity_2d(head, vertices[list(STABLE)].astype(np.float64))


def place_window(bank: Bank, config: DecoderConfig) -> Window:
    """The window of a subject: all that is ever shown, and a margin, at a size that a core can learn on."""
    shown = bank.shape.shape(bank.coefficients)[:, bank.mesh.alpha > 0, :2]
    low = np.percentile(shown.min(1), 2, axis=0) - MARGIN
    high = np.percentile(shown.max(1), 98, axis=0) + MARGIN
    eyes = bank.vertices[:, LEFT_EYE_OUTER] - bank.vertices[:, RIGHT_EYE_OUTER]
    filmed = float(np.median(np.hypot(*eyes.T)))
    density = min(config.density, filmed, float(np.sqrt(config.window_pixels / np.prod(high - low))))
    width, height = (int(-(-extent * density // MULTIPLE) * MULTIPLE) for extent in high - low)
    left, top = (low + high) / 2 - np.array([width, height]) / density / 2
    return Window(float(left), float(top), density, width, height, filmed / density)


def small_pictures(bank: Bank, window: Window) -> Bytes:
    """The bank's pictures at the window's scale [F, h, w, 3]."""
    height, width = (max(1, round(side / window.shrink)) for side in bank.pictures.shape[1:3])
    out = np.empty((len(bank.frames), height, width, 3), np.uint8)
    for row, picture in enumerate(bank.pictures):
        out[row] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return out


def scale_of(bank: Bank, small: Bytes) -> Floats:
    """Small pixels per stored pixel (x, y)."""
    return np.array([small.shape[2] / bank.pictures.shape[2], small.shape[1] / bank.pictures.shape[1]], np.float32)


def frame_view(picture: Bytes, matrix: NDArray[np.float64], window: Window) -> Floats:
    """A picture [h, w, 3] seen through the window [H, W, 3], 0..255; `matrix` is T_picture_window."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (window.width, window.height)
    return cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def shrunk(matrix: NDArray[np.float64], scale: NDArray[np.floating]) -> NDArray[np.float64]:
    """T_small_window of T_picture_window, for a picture resized by `scale` (pixel centres stay centres)."""
    out = matrix * scale[:, None]
    out[:, 2] += (scale - 1) / 2
    return out


def to_window(matrix: NDArray[np.float64], points: Floats) -> Floats:
    """Frame pixels [U, 2] -> window pixels, for T_frame_window."""
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    return apply(inverse, points.astype(np.float64)).astype(np.float32)
