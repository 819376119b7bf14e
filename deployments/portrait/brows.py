"""Moves of the upper face: brows as a whole, and their inner ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import FACE_OVAL
from deployments.portrait.mesh import FACE_POINTS, LEFT_EYE, RIGHT_EYE, fill

RIGHT_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)  # upper edge from outside, lower edge from outside
LEFT_BROW = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
NOSE = (6, 197, 195, 5, 4, 122, 351, 196, 419, 50, 280)
ALONG = (0.6, 0.85, 1.0, 1.0, 1.0)  # share of the rise, outer end to inner end
INNER = (-0.25, 0.0, 0.15, 0.55, 1.0)


def brow_moves(head: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacements [468, 3] for a rise of the brows by 1 eye distance: of all of them, and of their inner ends.

    Skin between follows a linear radial basis that is zero at eyes, nose and the face's edge.
    """
    brows = [*RIGHT_BROW, *LEFT_BROW]
    still = [*RIGHT_EYE, *LEFT_EYE, *FACE_OVAL, *NOSE]
    weights = np.zeros((FACE_POINTS, len(brows)))
    upper = [k for k in range(FACE_POINTS) if head[k, 1] < 0.25]
    fill(weights, head[:, :2], upper, brows, still, {k: n for n, k in enumerate(brows)})
    weights[still] = 0.0
    moves = []
    for shares in (ALONG, INNER):
        move = np.zeros((FACE_POINTS, 3))
        move[:, 1] = -weights @ np.tile(shares, 4)
        moves.append(move)
    return moves[0], moves[1]
