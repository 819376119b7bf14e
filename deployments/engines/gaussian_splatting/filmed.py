"""Where the head was in the frames that are learned from: enough to learn the whole face later, from the clip alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsError
from deployments.records import write_atomic
from deployments.weights.load import load_tensors

NAME = "filmed.safetensors"
OPEN_QUANTILE = 0.85  # of the lips' gap: from there on a mouth is wide open
IRISES = (468, 473)  # right, left; the next four points of each lie around it

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Filmed:
    """F frames; pixels = scale * rotation @ vertex + translation."""

    frames: NDArray[np.int32]  # [F] index in the clip
    vertices: Floats  # [F, U, 3] head frame
    rotation: Floats  # [F, 3, 3]
    scale: Floats  # [F]
    translation: Floats  # [F, 3]
    iris: Floats  # [F, 2, 2] pixels
    size: Floats  # [F, 2] radius of each iris, pixels
    codes: Floats  # [F, C] expression

    def pixels(self, vertices: Floats) -> Floats:
        """Pixels [F, V, 3] of head-frame vertices [F, V, 3]."""
        turned = np.matmul(vertices, self.rotation.transpose(0, 2, 1))
        return np.asarray(self.scale[:, None, None] * turned + self.translation[:, None], np.float32)

    def opened(self, vertices: Floats) -> Floats:
        """Mean [V, 3] of vertices [F, V, 3] with the mouth wide open."""
        gap = self.vertices[:, 14, 1] - self.vertices[:, 13, 1]
        return np.asarray(vertices[gap >= np.quantile(gap, OPEN_QUANTILE)].mean(0), np.float32)


def save_filmed(filmed: Filmed, folder: Path) -> None:
    """Write it beside the avatar. Raises OSError."""
    from safetensors.numpy import save

    write_atomic(folder / NAME, save({name: np.ascontiguousarray(value) for name, value in vars(filmed).items()}))


def load_filmed(folder: Path) -> Filmed:
    """Read it. Raises WeightsError."""
    rows = load_tensors(folder / NAME)
    try:
        return Filmed(**rows)
    except TypeError as error:
        raise WeightsError(f"{NAME}: expected where the head was in some frames: {error}; fit the avatar again") from error
