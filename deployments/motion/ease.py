"""How what lasts (a turned head, an emotion) begins and ends where only a part of a clip is replaced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EASE = 12  # frames in which it comes and goes where a replaced part begins or ends


def eased(weight: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share [T] of it: 0 in frames that stay as filmed, 1 from `EASE` frames beside them on."""
    still = np.flatnonzero(usable & (weight <= 0))
    if not len(still):
        return np.ones(len(weight), np.float32)
    frames = np.arange(len(weight))
    after = np.searchsorted(still, frames)
    left = frames - still[np.maximum(after - 1, 0)]
    right = still[np.minimum(after, len(still) - 1)] - frames
    away = np.minimum(np.where(after > 0, left, len(weight)), np.where(after < len(still), right, len(weight)))
    share = np.clip(away / EASE, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)
