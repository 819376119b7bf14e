"""A fixed place on the head, seen at a fixed size whatever the head does: what networks look through."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.crop import apply, fit_similarity_2d
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.pose import STABLE
from deployments.retrieval.bank import Bank

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Matrix = NDArray[np.float64]  # [2, 3]

MULTIPLE = 16  # networks halve the window four times


@dataclass(frozen=True)
class Window:
    """A box in the subject's head frame."""

    left: float  # head frame, eye distances
    top: float
    density: float  # window pixels per eye distance
    width: int
    height: int
    shrink: float  # frame pixels per window pixel on the template: how much its pictures are made smaller

    def matrix(self, stable: Floats, vertices: Floats) -> Matrix:
        """T_frame_window: window pixels to the pixels of mesh vertices [U, 2]."""
        head = (stable[:, :2].astype(np.float64) - (self.left, self.top)) * self.density
        return fit_similarity_2d(head, vertices[list(STABLE)].astype(np.float64))


def filmed_density(bank: Bank) -> float:
    """Pixels per eye distance in which the template was filmed."""
    eyes = bank.vertices[:, LEFT_EYE_OUTER] - bank.vertices[:, RIGHT_EYE_OUTER]
    return float(np.median(np.hypot(*eyes.T)))


def window_around(bank: Bank, points: Floats, margin: float, density: float, pixels: int) -> Window:
    """The window of the head-frame points [F, P, 2] that a subject's frames have, and a margin.

    `density` window pixels per eye distance and `pixels` in all, at most; a face filmed smaller is not enlarged.
    """
    low = np.percentile(points.min(1), 2, axis=0) - margin
    high = np.percentile(points.max(1), 98, axis=0) + margin
    filmed = filmed_density(bank)
    density = min(density, filmed, float(np.sqrt(pixels / np.prod(high - low))))
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


def frame_view(picture: Bytes, matrix: Matrix, window: Window) -> Floats:
    """A picture [h, w, 3] seen through the window [H, W, 3], 0..255; `matrix` is T_picture_window."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (window.width, window.height)
    return cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def shrunk(matrix: Matrix, scale: NDArray[np.floating]) -> Matrix:
    """T_small_window of T_picture_window, for a picture resized by `scale` (pixel centres stay centres)."""
    out = matrix * scale[:, None]
    out[:, 2] += (scale - 1) / 2
    return out


def to_window(matrix: Matrix, points: Floats) -> Floats:
    """Frame pixels [U, 2] -> window pixels, for T_frame_window."""
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    return apply(inverse, points.astype(np.float64)).astype(np.float32)


def onto(fields: Floats, matrix: Matrix, shape: tuple[int, ...], border: int = cv2.BORDER_REPLICATE) -> Floats:
    """Window fields [H, W, 3] at the pixels of a place [h, w, 3]; `matrix` is T_window_place."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(np.ascontiguousarray(fields), matrix, shape[::-1], flags=flags, borderMode=border)
    return np.asarray(found, np.float32)
