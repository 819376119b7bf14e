"""New lips on the template's own head: the whole lower face follows, the rest of the frame stays as filmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from deployments.face.mesh import FaceMesh

RESIDUAL_SIGMA = 2.0  # frames: keeps slow expression, drops the tracker's jitter
SIGHT = 8  # frames to both sides that the smoothing sees
RIDGE = 0.001  # of the coefficients' mean square
BLOCK = 512  # frames: a long clip's vertices take a gigabyte in four copies


@dataclass(frozen=True)
class ShapeModel:
    """How one subject's vertices follow the lip coefficients: mean [U, 3] + coefficients [K] @ basis [K, U * 3]."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]

    def shape(self, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vertices [T, U, 3] for coefficients [T, K]."""
        return self.mean + (coefficients @ self.basis).reshape(len(coefficients), -1, 3)


def fit_shape(vertices: NDArray[np.float32], coefficients: NDArray[np.float32]) -> ShapeModel:
    """Ridge regression of canonical vertices [T, U, 3] on coefficients [T, K]."""
    center, mean = coefficients.mean(0), vertices.mean(0)
    x = (coefficients - center).astype(np.float64)
    y = (vertices - mean).reshape(len(vertices), -1).astype(np.float64)
    gram = x.T @ x
    basis = np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)) + 1e-9 * np.eye(len(gram)), x.T @ y)
    origin = mean.reshape(-1) - center @ basis
    return ShapeModel(origin.reshape(mean.shape).astype(np.float32), basis.astype(np.float32))


def retarget(
    model: ShapeModel,
    mesh: FaceMesh,
    own: NDArray[np.float32],
    own_coefficients: NDArray[np.float32],
    wanted: NDArray[np.float32],
    breaks: Sequence[int] = (),
) -> NDArray[np.float32]:
    """Target vertices [T, U, 3] in the head frame.

    own : the template's vertices [T, U, 3]; own_coefficients, wanted : [T, K]; breaks : rows before which the picture was
    cut or the face was away, in order.
    Where speech reaches, a vertex takes the model's shape for the wanted lips plus the template's slow residual;
    elsewhere it stays where it was filmed. With wanted == own the result differs from `own` by the jitter only.
    """
    out = np.empty(own.shape, np.float32)
    for kept, run in blocks(len(own), breaks):
        around = surroundings(kept, run)
        out[kept] = retarget_block(model, mesh, own[around], own_coefficients[around], wanted[kept], kept.start - around.start)
    return out


def surroundings(kept: slice, run: slice) -> slice:
    """The rows that the smoothing of a block sees: with so many around it, blocks leave no trace."""
    return slice(max(run.start, kept.start - SIGHT), min(run.stop, kept.stop + SIGHT))


def retarget_block(
    model: ShapeModel,
    mesh: FaceMesh,
    own: NDArray[np.float32],
    own_coefficients: NDArray[np.float32],
    wanted: NDArray[np.float32],
    first: int,
) -> NDArray[np.float32]:
    """Target vertices [t, U, 3] of a block of `wanted` [t, K], which begins at row `first` of its surroundings `own`
    [n, U, 3] and `own_coefficients` [n, K]."""
    drift = own - model.shape(own_coefficients)
    residual = gaussian_filter1d(drift, RESIDUAL_SIGMA, axis=0, mode="nearest", radius=SIGHT)
    here = slice(first, first + len(wanted))
    goal = model.shape(wanted) + residual[here]
    return np.asarray(own[here] + mesh.reach[None, :, None] * (goal - own[here]), np.float32)


def blocks(count: int, breaks: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Blocks of at most `BLOCK` of `count` rows, none across a break, each with the rows between its two breaks."""
    for first, last in pairwise((0, *breaks, count)):
        for start in range(first, last, BLOCK):
            yield slice(start, min(start + BLOCK, last)), slice(first, last)
