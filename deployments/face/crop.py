"""The stabilised face square: one similarity per frame, and its exact inverse.

The fit uses points that speech does not move; it is not smoothed over time (measured: smoothing lags behind the head
and makes the crop less steady; averaging more tracker passes is what helps).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import FACE_OVAL
from deployments.face.pose import STABLE

FACE_SHARE = 0.8  # height of the face oval in the crop


@dataclass(frozen=True)
class Window:
    """A rectangle of the picture in pixels, x to x + width, y to y + height, inside the picture."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in a picture [H, W, ...]."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class CropTransform:
    """`matrix` [2, 3]: crop pixel -> clip pixel (T_clip_crop); `side` of the crop in pixels."""

    matrix: NDArray[np.float64]
    side: int

    def inverse(self) -> NDArray[np.float64]:
        """T_crop_clip [2, 3]."""
        return np.asarray(cv2.invertAffineTransform(self.matrix), np.float64)

    def cut(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crop [side, side, 3] of an upright picture."""
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        size = (self.side, self.side)
        return np.asarray(cv2.warpAffine(rgb, self.matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)

    def points(self, clip_points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clip pixels [P, >=2] -> crop pixels [P, 2]."""
        inverse = self.inverse()
        return (clip_points[:, :2] @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)


def crop_transforms(landmarks: NDArray[np.float32], side: int) -> list[CropTransform]:
    """One transform per frame of landmarks [T, 478, 3], all to the clip's mean face."""
    stable = landmarks[:, STABLE, :2].astype(np.float64)
    mean = similarity_mean(stable)
    oval = [
        apply(fit_similarity_2d(stable[t], mean), landmarks[t, list(FACE_OVAL), :2].astype(np.float64))
        for t in range(len(stable))
    ]
    outline = np.median(np.stack(oval), axis=0)
    low, high = outline.min(0), outline.max(0)
    scale = FACE_SHARE * side / (high[1] - low[1])
    shift = side / 2 - scale * (low + high) / 2
    transforms = []
    for points in stable:
        to_crop = fit_similarity_2d(points, mean * scale + shift)
        transforms.append(CropTransform(np.asarray(cv2.invertAffineTransform(to_crop), np.float64), side))
    return transforms


def similarity_mean(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Generalised Procrustes mean [P, 2] of points [T, P, 2], in the orientation of the first frame's mean."""
    mean = points[0] - points[0].mean(0)
    for _ in range(3):
        aligned = np.stack([apply(fit_similarity_2d(p, mean), p) for p in points])
        mean = aligned.mean(0)
        mean = (mean - mean.mean(0)) / np.linalg.norm(mean - mean.mean(0)) * np.linalg.norm(points[0] - points[0].mean(0))
    return mean


def fit_similarity_2d(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares similarity [2, 3] that takes source [P, 2] to target [P, 2]."""
    a = (source - source.mean(0)) @ [1, 1j]
    b = (target - target.mean(0)) @ [1, 1j]
    turn = np.vdot(a, b) / np.vdot(a, a)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.concatenate([linear, (target.mean(0) - linear @ source.mean(0))[:, None]], axis=1)


def apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine [2, 3] on points [P, 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]
