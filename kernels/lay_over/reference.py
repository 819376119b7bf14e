"""What laying a new picture over a moved one means, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def lay_over_reference(
    moved: NDArray[Any], picture: NDArray[Any], alpha: NDArray[Any], share: NDArray[Any], shift: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """See the door."""
    height, width = alpha.shape
    x = (np.arange(width) / width - 0.5)[None, :, None]
    y = (np.arange(height) / height - 0.5)[:, None, None]
    matched = picture.astype(np.float64) + shift[0] + x * shift[1] + y * shift[2]
    total = 1 - (1 - alpha.astype(np.float64)) * (1 - share)
    mine = (alpha / np.maximum(total, 1e-6))[..., None]
    rgb = mine * matched + (1 - mine) * moved
    return np.floor(np.clip(rgb, 0, 255) + 0.5).astype(np.uint8), total
