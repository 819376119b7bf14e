"""Numba path of the raster: tiles of 16x16 pixels, a row of 16 at a time, one splat at a time.

What makes it fast: inner loops of constant length, that the compiler turns into vector instructions; one state array
per tile, so that it knows that nothing overlaps; and an exponential that is a polynomial, good enough because the
argument lies between log(1/255) and 0 wherever the result counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from kernels.jit import Array, compiled, compiled_fast, fixed_tuple, inlined, wide_vectors
from kernels.splats import ALPHA_MAX, ALPHA_MIN, STOP

TILE = 16
# Exponents are kept divided by eight: exp(8 t) = p(t)^8 for t in [log(1/255) / 8, 0] with a Chebyshev fit p of exp,
# relative error 6e-8 before three squarings. Below that range the value is masked out, whatever it is.
LOG_MIN = np.float32(math.log(ALPHA_MIN) / 8)
LOG_MAX = np.float32(math.log(ALPHA_MAX) / 8)
ONE, ZERO, EDGE = np.float32(1), np.float32(0), np.float32(1e-3)
EIGHTH, SIXTEENTH = np.float32(1 / 8), np.float32(1 / 16)
FIT = np.polynomial.Chebyshev.interpolate(np.exp, 5, domain=[math.log(ALPHA_MIN) / 8, 0])
E0, E1, E2, E3, E4, E5 = (np.float32(value) for value in FIT.convert(kind=np.polynomial.Polynomial).coef)
TINY = np.float32(1e-20)  # least transmittance: numbers below 1e-38 would cost a hundred cycles each
PATIENCE = 32  # splats between two looks at whether a tile is dark already


@inlined
def _exp(t: Any) -> Any:
    p = E0 + t * (E1 + t * (E2 + t * (E3 + t * (E4 + t * E5))))
    p = p * p
    p = p * p
    return p * p


@compiled_fast
def _blend(row: Array, i: int, weight: Any, colour: tuple[Any, ...]) -> None:
    for q in range(len(colour)):
        row[(1 + q) * TILE + i] += weight * colour[q]


@inlined
def _rows(centre: Any, extent: Any, origin: Any) -> tuple[int, int]:
    """Rows of the tile that the box of a splat touches."""
    low = min(max(centre - extent - EDGE - origin, ZERO), np.float32(TILE))
    high = min(max(centre + extent + EDGE - origin, -ONE), np.float32(TILE - 1))
    return TILE - int(np.float32(TILE) - low), int(high + ONE)  # rounds up, rounds down: both numbers are positive


def row_length(channels: int) -> int:
    """Numbers in a row of `pack`: whole cache lines of 16."""
    return -(-(8 + channels) // 16) * 16


@compiled
def pack(
    means: Array,
    conics: Array,
    extents: Array,
    opacities: Array,
    colours: Array,
    packed: Array,
    first: int,
    last: int,
) -> None:
    """Rows of one frame: x, y, (-a/2, -b, -c/2, log(opacity)) / 8, extents, colours: one cache line for up to 8 colours."""
    for n in range(first, last):
        packed[n, 0], packed[n, 1] = means[n, 0], means[n, 1]
        packed[n, 2], packed[n, 3], packed[n, 4] = -SIXTEENTH * conics[n, 0], -EIGHTH * conics[n, 1], -SIXTEENTH * conics[n, 2]
        packed[n, 5] = EIGHTH * math.log(max(opacities[n], TINY))
        packed[n, 6], packed[n, 7] = extents[n, 0], extents[n, 1]
        for q in range(colours.shape[1]):
            packed[n, 8 + q] = colours[n, q]


@compiled_fast
def _dark(state: Array, width_of_row: int) -> bool:
    """Whether no pixel of the tile lets light through any more. A sum, not a maximum: it may be added in any order."""
    light = ZERO
    for r in range(TILE):
        row = state[r * width_of_row : (r + 1) * width_of_row]
        for i in range(TILE):
            light += row[i]
    return bool(light < STOP)


@lru_cache
def forward_kernel(channels: int) -> Callable[..., None]:
    """The loop over tiles for this number of channels; compiled once, kept on disk."""
    width_of_row = TILE * (1 + channels)  # transmittance of 16 pixels, then each colour

    @compiled_fast
    def forward(
        starts: Array,
        entries: Array,
        packed: Array,
        background: Array,
        out: Array,
        alpha: Array,
        first: int,
        last: int,
    ) -> None:
        """Tiles `first` to `last` of one frame."""
        wide_vectors()
        height, width = alpha.shape
        columns = -(-width // TILE)
        state = np.empty(TILE * width_of_row, np.float32)
        for tile in range(first, last):
            y0, x0 = tile // columns * TILE, tile % columns * TILE
            ny, nx = min(TILE, height - y0), min(TILE, width - x0)
            state[:] = 0
            for r in range(ny):
                state[r * width_of_row : r * width_of_row + nx] = 1
            fx, fy = np.float32(x0), np.float32(y0)
            for k in range(starts[tile], starts[tile + 1]):
                if (k - starts[tile]) % PATIENCE == PATIENCE - 1 and _dark(state, width_of_row):
                    break
                n = entries[k]
                mx, my = packed[n, 0], packed[n, 1]
                a, b, c, shift = packed[n, 2], packed[n, 3], packed[n, 4], packed[n, 5]
                colour = fixed_tuple(packed[n, 8:], channels)
                r0, r1 = _rows(my, packed[n, 7], fy)
                left = fx - mx
                for r in range(r0, r1):
                    dy = fy + np.float32(r) - my
                    level, slope = shift + c * dy * dy, b * dy
                    row = state[r * width_of_row : (r + 1) * width_of_row]
                    for i in range(TILE):
                        dx = left + np.float32(i)
                        power = min(level + dx * (slope + a * dx), LOG_MAX)
                        opaque = _exp(power)
                        opaque = opaque if power >= LOG_MIN else ZERO
                        through = row[i]
                        weight = through * opaque
                        row[i] = max(through - weight, TINY)
                        _blend(row, i, weight, colour)
            for r in range(ny):
                for i in range(nx):
                    t = state[r * width_of_row + i]
                    alpha[y0 + r, x0 + i] = ONE - t
                    for q in range(channels):
                        out[y0 + r, x0 + i, q] = state[r * width_of_row + (1 + q) * TILE + i] + t * background[q]

    return forward


@compiled_fast
def _towards(row: Array, i: int, colour: tuple[Any, ...]) -> Any:
    """Gradient by the weight of a splat at pixel i: its colour along the gradient by the pixel."""
    total = row[2 * TILE + i]
    for q in range(len(colour)):
        total += colour[q] * row[(3 + q) * TILE + i]
    return total


@compiled_fast
def _collect(sums: Array, row: Array, i: int, weight: Any, count: int) -> None:
    for q in range(count):
        sums[(3 + q) * TILE + i] += weight * row[(3 + q) * TILE + i]


@compiled_fast
def _scatter(sums: Array, left: Any, grad: Array, channels: int) -> None:
    """Add up the 16 columns: moments 1, x, y, xx, xy, yy about the splat's centre, then colours."""
    s0 = sx = sy = sxx = sxy = syy = ZERO
    for i in range(TILE):
        dx = left + np.float32(i)
        s0 += sums[i]
        sx += sums[i] * dx
        sxx += sums[i] * dx * dx
        sy += sums[TILE + i]
        sxy += sums[TILE + i] * dx
        syy += sums[2 * TILE + i]
    grad[0] += s0
    grad[1] += sx
    grad[2] += sy
    grad[3] += sxx
    grad[4] += sxy
    grad[5] += syy
    for q in range(channels):
        total = ZERO
        for i in range(TILE):
            total += sums[(3 + q) * TILE + i]
        grad[6 + q] += total


@compiled_fast
def _load_pixels(
    state: Array, y0: int, x0: int, background: Array, out: Array, alpha: Array, grad_out: Array, grad_alpha: Array
) -> None:
    """State of a tile before the first splat; pixels outside the picture let no light through."""
    height, width, channels = out.shape
    state[:] = 0
    for r in range(min(TILE, height - y0)):
        for i in range(min(TILE, width - x0)):
            y, x, at = y0 + r, x0 + i, r * TILE * (3 + channels) + i
            light, shown = grad_alpha[y, x], ZERO
            for q in range(channels):
                g = grad_out[y, x, q]
                light -= g * background[q]
                shown += g * (out[y, x, q] - (ONE - alpha[y, x]) * background[q])
                state[at + (3 + q) * TILE] = g
            state[at] = 1
            state[at + TILE] = shown + light * alpha[y, x]
            state[at + 2 * TILE] = light


@lru_cache
def backward_kernel(channels: int) -> Callable[..., None]:
    """The same loop over tiles, front to back again, with gradients."""
    # per row of 16 pixels: transmittance, light from behind along the gradient | gradient by weight, then by each colour
    width_of_row = TILE * (3 + channels)

    @compiled_fast
    def backward(
        starts: Array,
        entries: Array,
        packed: Array,
        background: Array,
        out: Array,
        alpha: Array,
        grad_out: Array,
        grad_alpha: Array,
        grads: Array,
        first: int,
        last: int,
    ) -> None:
        """Tiles `first` to `last` of one frame; adds moments and colour gradients to `grads` [N, 6 + channels].

        The gradient by alpha is T (g.c) - S / (1 - alpha), where S is the light of all splats behind, along the
        gradient g. S starts as what the whole pixel shows and loses each splat's part when it is passed.
        """
        wide_vectors()
        columns = -(-alpha.shape[1] // TILE)
        state = np.empty(TILE * width_of_row, np.float32)
        sums = np.empty(TILE * (3 + channels), np.float32)
        for tile in range(first, last):
            y0, x0 = tile // columns * TILE, tile % columns * TILE
            if starts[tile] == starts[tile + 1]:
                continue
            _load_pixels(state, y0, x0, background, out, alpha, grad_out, grad_alpha)
            fx, fy = np.float32(x0), np.float32(y0)
            for k in range(starts[tile], starts[tile + 1]):
                if (k - starts[tile]) % PATIENCE == PATIENCE - 1 and _dark(state, width_of_row):
                    break
                n = entries[k]
                mx, my = packed[n, 0], packed[n, 1]
                a, b, c, shift = packed[n, 2], packed[n, 3], packed[n, 4], packed[n, 5]
                colour = fixed_tuple(packed[n, 8:], channels)
                r0, r1 = _rows(my, packed[n, 7], fy)
                left = fx - mx
                sums[:] = 0
                for r in range(r0, r1):
                    dy = fy + np.float32(r) - my
                    level, slope = shift + c * dy * dy, b * dy
                    row = state[r * width_of_row : (r + 1) * width_of_row]
                    for i in range(TILE):
                        dx = left + np.float32(i)
                        power = min(level + dx * (slope + a * dx), LOG_MAX)
                        opaque = _exp(power)
                        opaque = opaque if power >= LOG_MIN else ZERO
                        through = row[i]
                        weight = through * opaque
                        row[i] = max(through - weight, TINY)
                        towards = _towards(row, i, colour)
                        behind = row[TILE + i] - weight * towards
                        row[TILE + i] = behind
                        slant = weight * towards - behind * opaque / (ONE - opaque)
                        slant = slant if power < LOG_MAX else ZERO
                        sums[i] += slant
                        sums[TILE + i] += slant * dy
                        sums[2 * TILE + i] += slant * dy * dy
                        _collect(sums, row, i, weight, channels)
                _scatter(sums, left, grads[n], channels)

    return backward
