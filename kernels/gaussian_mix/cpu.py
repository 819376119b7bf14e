"""Numba path: one pass over the pixels instead of a dozen arrays."""

from __future__ import annotations

import numpy as np

from kernels.jit import Array, compiled

F = np.float32
FULL, ZERO, ONE, HALF = F(255), F(0), F(1), F(0.5)


@compiled
def over_pixels(colours: Array, alpha: Array, under: Array, sure: float, out: Array) -> None:
    """Write `out` [h, w, 3]; the drawn window may be larger."""
    least = F(sure)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            a = alpha[y, x]
            gain, thin = FULL / max(a, least), max(ONE - a / least, ZERO)
            for c in range(3):
                out[y, x, c] = colours[y, x, c] * gain + thin * under[y, x, c]


@compiled
def mouth_pixels(drawn: Array, nearest: Array, others: Array, first: float, share: float, base: Array, apart: Array) -> None:
    """Write `base` and `apart` [h, w, 3]."""
    weight, part, rest = F(first), F(share), F(ONE - F(share))
    for y in range(base.shape[0]):
        for x in range(base.shape[1]):
            for c in range(3):
                near = nearest[y, x, c]
                value = rest * drawn[y, x, c] + part * (weight * near + others[y, x, c])
                base[y, x, c] = value
                apart[y, x, c] = value - near


@compiled
def face_pixels(drawn: Array, shift: Array, filmed: Array, share: float, trust: Array, base: Array, apart: Array) -> None:
    """Write `base` and `apart` [h, w, 3] where no filmed mouth is: the drawn face, moved by a plane of colour."""
    height, width = trust.shape
    rest = F(ONE - F(share))
    for y in range(height):
        down = F(y) / F(height) - HALF
        for x in range(width):
            across = F(x) / F(width) - HALF
            part = rest * trust[y, x]
            for c in range(3):
                value = drawn[y, x, c] + (shift[0, c] + across * shift[1, c] + down * shift[2, c])
                value += part * (filmed[y, x, c] - value)
                base[y, x, c] = value
                apart[y, x, c] = value - filmed[y, x, c]


@compiled
def lips_pixels(
    y0: int, x0: int, mask: Array, nearest: Array, others: Array, first: float, planes: Array,
    drawn: Array, filmed: Array, share: float, trust: Array, base: Array, apart: Array,
) -> None:  # fmt: skip
    """The same where a filmed mouth shows, from (x0, y0) on; `planes` [2, 3, 3] of the drawn face and of the mouths.

    Trust grows to the mask.
    """
    height, width = trust.shape
    rest, weight = F(ONE - F(share)), F(first)
    for j in range(mask.shape[0]):
        down = F(y0 + j) / F(height) - HALF
        for i in range(mask.shape[1]):
            low, y, x = mask[j, i], y0 + j, x0 + i
            if low <= ZERO:
                continue
            across = F(x) / F(width) - HALF
            trust[y, x] = max(trust[y, x], low)
            part = rest * trust[y, x]
            for c in range(3):
                plane = planes[1, 0, c] + across * planes[1, 1, c] + down * planes[1, 2, c]
                near = nearest[j, i, c]
                mean = weight * near + others[j, i, c] + plane
                own = filmed[y, x, c]
                value = drawn[y, x, c] + (planes[0, 0, c] + across * planes[0, 1, c] + down * planes[0, 2, c])
                value += part * (own + low * (mean - own) - value)
                base[y, x, c] = value
                apart[y, x, c] = value - (own + low * (near + plane - own))


@compiled
def fine_pixels(base: Array, apart: Array, low: Array, gain: float, trust: Array, out: Array) -> None:
    """Write `out` [h, w, 3]: the fine band of `apart` is taken away, `gain` times `trust` of it."""
    part = F(gain)
    for y in range(base.shape[0]):
        for x in range(base.shape[1]):
            share = part * trust[y, x]
            for c in range(3):
                out[y, x, c] = base[y, x, c] + share * (low[y, x, c] - apart[y, x, c])
