"""What the mixture means, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def over_reference(colours: Array, alpha: Array, under: Array, sure: float) -> Array:
    """See the door."""
    height, width = under.shape[:2]
    colours, alpha = colours[:height, :width].astype(np.float64), alpha[:height, :width, None].astype(np.float64)
    return colours * 255 / np.maximum(alpha, sure) + np.maximum(1 - alpha / sure, 0) * under


def plane_reference(shift: Array, shape: tuple[int, ...]) -> Array:
    """Colours [h, w, 3] of a plane [3, 3] over x and y."""
    y, x = (np.arange(side) / side - 0.5 for side in shape[:2])
    return np.asarray(shift[0] + x[None, :, None] * shift[1] + y[:, None, None] * shift[2])


def face_reference(
    drawn: Array, shift: Array, filmed: Array, share: float, trust: Array, mask: Array, mean: Array, nearest: Array, gain: float,
    blurred: Any,
) -> Array:  # fmt: skip
    """The finished face [h, w, 3]; mask [h, w], mean and nearest mouth [h, w, 3] are of the whole picture."""
    low = mask[..., None].astype(np.float64)
    mixed, fine = (filmed + low * (part - filmed) for part in (mean, nearest))
    drawn = drawn + plane_reference(shift, drawn.shape)
    trust = np.maximum(trust[..., None], low)
    base = drawn + (1 - share) * trust * (mixed - drawn)
    apart = base - fine
    return np.asarray(base + gain * trust * (blurred(apart) - apart))
