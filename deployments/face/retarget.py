"""New lips on the template's own head: the whole lower face follows, the rest of the frame stays as filmed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from deployments.face.mesh import FaceMesh

RESIDUAL_SIGMA = 2.0  # frames: keeps slow expression, drops the tracker's jitter
RIDGE = 0.02


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
    basis = np.linalg.solve(
        gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)) * 0.05 + 1e-9 * np.eye(len(gram)), x.T @ y
    )
    origin = mean.reshape(-1) - center @ basis
    return ShapeModel(origin.reshape(mean.shape).astype(np.float32), basis.astype(np.float32))


def retarget(
    model: ShapeModel,
    mesh: FaceMesh,
    own: NDArray[np.float32],
    own_coefficients: NDArray[np.float32],
    wanted: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Target vertices [T, U, 3] in the head frame.

    own : the template's vertices [T, U, 3]; own_coefficients, wanted : [T, K].
    Where speech reaches, a vertex takes the model's shape for the wanted lips plus the template's slow residual;
    elsewhere it stays where it was filmed. With wanted == own the result differs from `own` by the jitter only.
    """
    residual = gaussian_filter1d(own - model.shape(own_coefficients), RESIDUAL_SIGMA, axis=0, mode="nearest")
    goal = model.shape(wanted) + residual
    return (own + mesh.reach[None, :, None] * (goal - own)).astype(np.float32)
