"""What Gaussians are tied to: triangles of the lower face, and two plates of teeth behind the lips.

Upper teeth are rigid to the skull. Lower teeth and tongue are rigid to the jaw, whose motion is that of the chin.
The cavity behind them is spanned by the inner lip itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LIPS_INNER, LOWER_INNER_LIP, UPPER_INNER_LIP

SKIN, UPPER, LOWER, CAVITY = range(4)
IRIS_REACH = 1.15  # half the side of an iris's plate, in its radii
EYES = 4  # first of the layers behind lids: for each eye its white and its iris
CHIN = (152, 148, 377, 176, 400)
COLUMNS, ROWS = 9, 3  # corners of a plate
PLATE_HEIGHT = {UPPER: (-0.06, 0.16), LOWER: (-0.2, 0.08)}  # from the lip's inner rim, eye distances, down is positive
PLATE_DEPTH = {UPPER: 0.06, LOWER: 0.09}  # behind the lips, eye distances
ARCH = 1.2  # how fast a plate bends backwards, per eye distance squared
CAVITY_DEPTH = 0.4  # eye distances behind the lips
BEYOND_CORNERS = 0.04


@dataclass(frozen=True)
class Rig:
    """Vertices are the mesh's U, then the upper plate's P, then the lower plate's P; M triangles of four layers."""

    triangles: NDArray[np.int32]  # [M, 3]
    layer: NDArray[np.int32]  # [M]
    upper: NDArray[np.float32]  # [P, 3] head frame
    lower: NDArray[np.float32]  # [P, 3] head frame, for the jaw at `chin`
    chin: NDArray[np.float32]  # [3]

    def vertices(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """All vertices [T, U + 2P, 3] of mesh vertices `target` [T, U, 3], in the head frame."""
        jaw = target[:, CHIN].mean(1) - self.chin
        upper = np.broadcast_to(self.upper, (len(target), *self.upper.shape))
        return np.concatenate([target, upper, self.lower + jaw[:, None]], axis=1, dtype=np.float32)


def build_rig(triangles: NDArray[np.int32], target: NDArray[np.float32]) -> Rig:
    """Rig of a subject from its mesh triangles and the vertices [T, U, 3] of many frames."""
    chin = target[:, CHIN].mean((0, 1))
    jaw = target[:, CHIN].mean(1) - chin
    rims = {UPPER: target[:, UPPER_INNER_LIP].mean(0), LOWER: (target[:, LOWER_INNER_LIP] - jaw).mean(0)}
    half = float(np.quantile(target[:, 308, 0] - target[:, 78, 0], 0.95)) / 2 + BEYOND_CORNERS
    plates = {layer: plate(rim, half, layer) for layer, rim in rims.items()}
    first = target.shape[1]
    inside = np.isin(triangles, LIPS_INNER).all(1)
    grids = [grid_triangles() + first + k * COLUMNS * ROWS for k in range(2)]
    layers = [np.where(inside, CAVITY, SKIN), *(np.full(len(g), k) for g, k in zip(grids, (UPPER, LOWER), strict=True))]
    return Rig(
        triangles=np.concatenate([triangles, *grids]).astype(np.int32),
        layer=np.concatenate(layers).astype(np.int32),
        upper=plates[UPPER],
        lower=plates[LOWER],
        chin=chin.astype(np.float32),
    )


def plate(rim: NDArray[np.float32], half: float, layer: int) -> NDArray[np.float32]:
    """Corners [P, 3] of a bent plate, row by row."""
    across = np.linspace(-half, half, COLUMNS)
    down = np.linspace(*PLATE_HEIGHT[layer], ROWS)
    x, y = np.meshgrid(across, down)
    z = rim[2] + PLATE_DEPTH[layer] + ARCH * x**2
    return np.stack([rim[0] + x, rim[1] + y, z], -1).reshape(-1, 3).astype(np.float32)


def grid_triangles() -> NDArray[np.int32]:
    """Triangles of a plate's corners."""
    corner = np.arange(COLUMNS * ROWS).reshape(ROWS, COLUMNS)
    a, b, c, d = corner[:-1, :-1].ravel(), corner[:-1, 1:].ravel(), corner[1:, :-1].ravel(), corner[1:, 1:].ravel()
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
