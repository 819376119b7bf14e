"""Eight numbers for the shape of lips and jaw: a linear space learned from tracked talking people.

Points: the 40 lip contour points (20 outer, 20 inner) and 17 points of the face oval along jaw and chin, in the head
frame (`deployments.face.pose.canonical`), in outer-eye distances. The mesh's depth is uncertain, so z counts half.
Coefficient 1 grows as the mouth opens, coefficient 2 as it widens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import LIP_COEFFICIENTS
from deployments.face.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER, LOWER_INNER_LIP, UPPER_INNER_LIP

LIP_JAW: NDArray[np.int64] = np.array((*LIPS_OUTER, *LIPS_INNER, *FACE_OVAL[10:27]))
LIP_POINTS = 40
Z_WEIGHT = 0.5
AXIS_WEIGHTS = np.array((1.0, 1.0, Z_WEIGHT), np.float32)
BASIS_FILE = Path(__file__).parent / "data" / "lip_space.safetensors"
_UPPER = LIP_POINTS // 2 + LIPS_INNER.index(UPPER_INNER_LIP)
_LOWER = LIP_POINTS // 2 + LIPS_INNER.index(LOWER_INNER_LIP)
_RIGHT_CORNER, _LEFT_CORNER = LIPS_OUTER.index(61), LIPS_OUTER.index(291)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LipSpace:
    """Linear map between lip and jaw points and 8 coefficients (eye distances, root of summed squares)."""

    mean: Floats  # [57, 3] mean shape of the training speakers
    basis: Floats  # [8, 57, 3] orthonormal under the axis weights

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> LipSpace:
        """The shipped space; raises WeightsError when its file is missing."""
        from deployments.weights import load_tensors

        tensors = load_tensors(BASIS_FILE)
        return LipSpace(mean=tensors["mean"].astype(np.float32), basis=tensors["basis"].astype(np.float32))

    @property
    def size(self) -> int:
        """Number of coefficients K = 8."""
        return len(self.basis)

    def encode(self, points: Floats) -> Floats:
        """Coefficients [T, 8] of canonical points [T, 478, 3] (or [T, 57, 3] in the order of LIP_JAW)."""
        chosen = points[:, LIP_JAW] if points.shape[1] != len(LIP_JAW) else points
        return np.einsum("tpc,kpc->tk", (chosen - self.mean) * AXIS_WEIGHTS**2, self.basis).astype(np.float32)

    def decode(self, coefficients: Floats) -> Floats:
        """Displacement [T, 57, 3] from the mean shape, of coefficients [T, 8].

        To move a face from its own mouth to another: add decode(new) - decode(own), which equals decode(new - own).
        """
        return np.einsum("tk,kpc->tpc", coefficients, self.basis).astype(np.float32)

    def aperture(self, coefficients: Floats) -> Floats:
        """Vertical gap between the inner lips [T] in eye distances, of coefficients [T, 8]; below 0 lips would cross."""
        shape = self.mean + self.decode(coefficients)
        return (shape[:, _LOWER, 1] - shape[:, _UPPER, 1]).astype(np.float32)

    def width(self, coefficients: Floats) -> Floats:
        """Distance of the mouth corners [T] in eye distances, of coefficients [T, 8]."""
        shape = self.mean + self.decode(coefficients)
        return np.linalg.norm(shape[:, _LEFT_CORNER] - shape[:, _RIGHT_CORNER], axis=1).astype(np.float32)


def aperture_of(points: Floats) -> Floats:
    """Vertical gap between the inner lips [T] in eye distances, of canonical points [T, 478, 3]."""
    return np.asarray(points[:, LOWER_INNER_LIP, 1] - points[:, UPPER_INNER_LIP, 1], np.float32)


def fit_lip_space(speakers: Sequence[Sequence[Floats]]) -> tuple[LipSpace, NDArray[np.float64]]:
    """Learn the space from canonical clips [T, 478, 3], grouped by speaker; every speaker counts the same.

    Each clip is taken around its own mean, so that the space holds motion and not the shape of faces.
    Returns the space and the share of variance of its 8 directions.
    """
    means = [np.concatenate(clips)[:, LIP_JAW].mean(0) for clips in speakers]
    covariance = np.zeros((len(LIP_JAW) * 3,) * 2)
    for clips in speakers:
        moved = np.concatenate([clip[:, LIP_JAW] - clip[:, LIP_JAW].mean(0) for clip in clips]) * AXIS_WEIGHTS
        flat = moved.reshape(len(moved), -1).astype(np.float64)
        covariance += flat.T @ flat / len(flat) / len(speakers)
    values, vectors = np.linalg.eigh(covariance)
    directions = vectors[:, ::-1][:, :LIP_COEFFICIENTS].T.reshape(LIP_COEFFICIENTS, len(LIP_JAW), 3)
    basis = np.stack([direction * _sign(direction, k) for k, direction in enumerate(directions)]) / AXIS_WEIGHTS
    space = LipSpace(np.mean(means, 0).astype(np.float32), basis.astype(np.float32))
    return space, values[::-1][:LIP_COEFFICIENTS] / values.sum()


def _sign(direction: NDArray[np.float64], index: int) -> float:
    """The sign that makes the first direction open the mouth, the second widen it, and others positive at their peak."""
    if index == 0:
        key = direction[_LOWER, 1] - direction[_UPPER, 1]
    elif index == 1:
        key = direction[_LEFT_CORNER, 0] - direction[_RIGHT_CORNER, 0]
    else:
        key = direction.ravel()[np.abs(direction).argmax()]
    return float(np.sign(key)) or 1.0


def save_lip_space(space: LipSpace, path: Path = BASIS_FILE) -> None:
    """Write the space as safetensors."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"mean": space.mean, "basis": space.basis}, path)
