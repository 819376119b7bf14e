"""Head pose: the rigid part of a face's motion, and the landmarks without it.

The head frame has its origin between the outer eye corners, x to the picture's right, y down, z away from the camera,
and the subject's own outer-eye distance as unit. It comes from a 3-D similarity Procrustes fit on points that speech
does not move (forehead, temples, nose bridge, eye corners), to the mean of the same points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER

STABLE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 234, 127, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6, 197, 195, 5, 4,
    33, 133, 263, 362, 130, 359, 243, 463, 122, 351, 196, 419, 3, 248, 193, 417, 188, 412, 174, 399, 114, 343, 47, 277,
    71, 301, 68, 298, 104, 333, 69, 299, 108, 337,
)  # fmt: skip

BLOCK = 512  # frames at once: a long clip has millions of points


@dataclass(frozen=True)
class CanonicalFaces:
    """Landmarks in the head frame and the transform back: pixels = scale * rotation @ point + translation."""

    landmarks: NDArray[np.float32]  # [N, 478, 3] pixels
    rows: NDArray[np.int64]  # [T] of the landmarks: the frames that are meant
    rotation: NDArray[np.float32]  # [T, 3, 3] pixels <- head
    scale: NDArray[np.float32]  # [T] pixels per eye distance
    translation: NDArray[np.float32]  # [T, 3] pixels

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """The landmarks in the head frame [T, 478, 3], eye distances: 110 MB for ten minutes, so made when asked for."""
        points = np.empty((len(self.rows), *self.landmarks.shape[1:]), np.float32)
        for part in parts_of(len(points)):
            points[part] = self.points_of(part)
        return points

    def points_of(self, part: slice) -> NDArray[np.float32]:
        """Those of some of the frames."""
        apart = self.landmarks[self.rows[part]] - self.translation[part, None]
        return np.asarray((apart @ self.rotation[part]) / self.scale[part, None, None], np.float32)

    def to_pixels(self, points: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
        """Points [P, 3] of the head frame -> pixels [P, 3] of one frame."""
        return self.scale[frame] * points @ self.rotation[frame].T + self.translation[frame]

    def angles(self) -> NDArray[np.float32]:
        """Yaw, pitch and roll [T, 3] in radians."""
        r = self.rotation
        yaw = np.arctan2(-r[:, 2, 0], np.hypot(r[:, 0, 0], r[:, 1, 0]))
        return np.stack([yaw, np.arctan2(r[:, 2, 1], r[:, 2, 2]), np.arctan2(r[:, 1, 0], r[:, 0, 0])], axis=1).astype(np.float32)


def canonical(
    landmarks: NDArray[np.float32], mean: NDArray[np.float32] | None = None, rows: NDArray[np.int64] | None = None
) -> CanonicalFaces:
    """Head frame of landmarks [N, 478, 3] in pixels, of all frames or of those in `rows` [T].

    `mean` [60, 3] gives the stable points of the head frame; without it they are the clip's own (generalised
    Procrustes, three rounds, from the most frontal frame).
    """
    rows = np.arange(len(landmarks)) if rows is None else rows
    target = np.asarray(mean, np.float64) if mean is not None else stable_mean(landmarks, rows)
    turn, size, shift = (np.empty((len(rows), *shape), np.float32) for shape in ((3, 3), (), (3,)))
    for part in parts_of(len(rows)):
        stable = landmarks[rows[part, None], STABLE].astype(np.float64)
        turn[part], size[part], shift[part] = fit_similarity(target, stable)
    return CanonicalFaces(landmarks, rows, turn, size, shift)


def parts_of(count: int) -> Iterator[slice]:
    """Blocks of `count` frames."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def stable_mean(landmarks: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Stable points [60, 3] of the head frame of one subject, from landmarks [T, 478, 3] in pixels, or from `rows` of them."""
    chosen = np.arange(len(landmarks)) if rows is None else rows
    stable = landmarks[chosen[:, None], STABLE].astype(np.float64)
    right, left = (landmarks[chosen, corner] for corner in (RIGHT_EYE_OUTER, LEFT_EYE_OUTER))
    first = int(np.argmin(np.abs(left[:, 2] - right[:, 2]) / np.linalg.norm(left - right, axis=1)))
    mean = to_head_frame(stable[first])
    for _ in range(3):
        rotation, scale, translation = fit_similarity(mean, stable)
        aligned = np.einsum("tji,tpj->tpi", rotation, stable - translation[:, None]) / scale[:, None, None]
        mean = to_head_frame(np.median(aligned, axis=0))
    return mean


def to_head_frame(stable: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn, scale and shift stable points [60, 3]: eyes on the x axis at unit distance, forehead above them at equal depth."""
    right, left = stable[STABLE.index(RIGHT_EYE_OUTER)], stable[STABLE.index(LEFT_EYE_OUTER)]
    x = (left - right) / np.linalg.norm(left - right)
    down = (left + right) / 2 - stable[STABLE.index(10)]
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return (stable - (left + right) / 2) @ axes.T / np.linalg.norm(left - right)


def fit_similarity(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Similarity target ~ scale * rotation @ source + translation, for source [P, 3], target [T, P, 3] (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(1)
    a, b = source - source_mean, target - target_mean[:, None]
    u, s, vt = np.linalg.svd(np.einsum("tpi,pj->tij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (s * sign).sum(1) / (a**2).sum()
    translation = target_mean - scale[:, None] * (rotation @ source_mean)
    return rotation, scale, translation
