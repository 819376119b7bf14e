"""Corners of the mouth that an emotion lifts or lowers, besides what speech does to the lips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion
from deployments.face.mesh import smoothstep
from deployments.motion.lip_space import AXIS_WEIGHTS, LIP_JAW, LipSpace
from deployments.retrieval.bank import Bank

EXTRA = "corners"  # in Motion.extra [T]: eye distances, upwards
CORNERS = (61, 291)
APART = 0.45  # of the lift: how far a corner moves outwards, too
BESIDE = 1.2  # half mouths beyond a corner over which cheeks follow less and less
ABOVE = 1.6  # half mouths above and below it

Floats = NDArray[np.float32]


def corner_move(bank: Bank) -> Floats:
    """Displacement [U, 3] of the mesh that lifts both corners by 1 eye distance; the lips' middle stays.

    The share grows with the square of the way from the middle to the corner, as the muscle pulls there.
    """
    points = bank.shape.shape(bank.coefficients.mean(0, keepdims=True))[0]
    left, right = points[list(CORNERS)]
    middle, half = (left + right)[:2] / 2, max(float(np.linalg.norm(right - left)) / 2, 1e-3)
    side, height = (points[:, 0] - middle[0]) / half, np.abs(points[:, 1] - middle[1]) / half
    beyond = smoothstep((1 + BESIDE - np.abs(side)) / BESIDE)
    share = np.minimum(side**2, 1) * beyond * smoothstep(1 - height / ABOVE) * bank.mesh.reach
    return np.stack([APART * share * np.sign(side), -share, np.zeros_like(share)], axis=1).astype(np.float32)


def lifts_of(motion: Motion, kept: NDArray[np.int64]) -> Floats | None:
    """The lift [T] of rows that show the frames `kept`; None where nothing lifts."""
    asked = motion.extra.get(EXTRA)
    return None if asked is None or not asked.any() else np.asarray(asked[kept], np.float32)


def as_lips(move: Floats) -> Floats:
    """The move in lip coefficients [K], as far as they tell it: mouths that were filmed so are nearest."""
    return np.asarray(np.einsum("pc,kpc->k", move[LIP_JAW] * AXIS_WEIGHTS**2, LipSpace.load().basis), np.float32)
