"""Numba path: of each row of a box only the pixels that lie in the patch are visited."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.jit import Array, compiled_fast, inlined
from kernels.paste_back.op import CHUNKS, MOMENTS
from kernels.paste_back.plan import BOX, COLOURS, TO_FRAME, TO_PATCH
from kernels.paste_back.reference import LEVEL, MIN_RING, RADIUS, RIM_LEAST, RIM_STEP, SIGMA
from kernels.threads import cut, run_spans

SPAN = 16  # pairs of rows a thread


@inlined
def _blend(a: Any, b: Any, c: Any, d: Any, fx: Any, fy: Any) -> Any:
    """Bilinear of a, b above c, d."""
    gx, gy = np.float32(1) - fx, np.float32(1) - fy  # no difference of two bytes, which would wrap
    return gy * (gx * a + fx * b) + fy * (gx * c + fx * d)


@compiled_fast
def add_rim(frame: Array, patch: Array, mask: Array, plan: Array, nv12: bool, sums: Array, first: int, last: int) -> None:
    """Moments of the sampled pixels `first` to `last`, counted along rows, into sums [MOMENTS] float64."""
    height, width = mask.shape
    tall, wide = frame.shape[0] // 3 * 2 if nv12 else frame.shape[0], frame.shape[1]
    m = plan[TO_FRAME : TO_FRAME + 6]
    columns = (width + RIM_STEP - 1) // RIM_STEP
    for n in range(first, last):
        i, j = n % columns * RIM_STEP, n // columns * RIM_STEP
        weight = mask[j, i] * (np.float32(1) - mask[j, i])
        if not weight > RIM_LEAST:
            continue
        x, y = m[0] * i + m[1] * j + m[2], m[3] * i + m[4] * j + m[5]
        if not (x >= 0 and y >= 0 and x <= wide - 1 and y <= tall - 1):
            continue
        x0, y0 = int(x), int(y)
        x1, y1, fx, fy = min(x0 + 1, wide - 1), min(y0 + 1, tall - 1), x - x0, y - y0
        right, down = np.float32(i) / np.float32(width) - np.float32(0.5), np.float32(j) / np.float32(height) - np.float32(0.5)
        sums[0] += weight
        sums[1] += weight * right
        sums[2] += weight * down
        sums[3] += weight * right * right
        sums[4] += weight * right * down
        sums[5] += weight * down * down
        for k in range(3):
            if nv12 and k > 0:
                u0, u1, v0, v1 = x0 // 2 * 2 + k - 1, x1 // 2 * 2 + k - 1, tall + y0 // 2, tall + y1 // 2
            elif nv12:
                u0, u1, v0, v1 = x0, x1, y0, y1
            else:
                u0, u1, v0, v1 = 3 * x0 + k, 3 * x1 + k, y0, y1
            c = plan[COLOURS + 4 * k : COLOURS + 4 * k + 4]
            own = c[0] * patch[j, i, 0] + c[1] * patch[j, i, 1] + c[2] * patch[j, i, 2] + c[3]
            found = _blend(frame[v0, u0], frame[v0, u1], frame[v1, u0], frame[v1, u1], fx, fy)
            difference = weight * (found - own)
            sums[6 + 3 * k] += difference
            sums[7 + 3 * k] += difference * right
            sums[8 + 3 * k] += difference * down


@compiled_fast
def blurred(picture: Array, weights: Array, out: Array) -> None:
    """Separable blur of [h, w, 3]; the border goes on outside."""
    height, width = picture.shape[:2]
    row = np.empty((width, 3), np.float32)
    radius = len(weights) // 2
    for y in range(height):
        row[:] = 0
        for t in range(len(weights)):
            source = picture[min(max(y + t - radius, 0), height - 1)]
            for x in range(width):
                for k in range(3):
                    row[x, k] += weights[t] * source[x, k]
        for x in range(width):
            for k in range(3):
                total = np.float32(0)
                for t in range(len(weights)):
                    total += weights[t] * row[min(max(x + t - radius, 0), width - 1), k]
                out[y, x, k] = total


@inlined
def _limits(step: float, at: float, size: int, first: int, last: int) -> tuple[int, int]:
    """Which x of first..last have -1 < at + step x < size, and perhaps one more on each side."""
    if abs(step) < 1e-9:
        return (first, last) if -1 < at < size else (last, last)
    one, two = (-1 - at) / step, (size - at) / step
    low, high = min(one, two), max(one, two)
    return max(first, int(max(low, -1.0))), min(last, int(max(min(high, 20000.0), -1.0)) + 1)


@inlined
def _four(flat: Array, a: int, b: int, c: int, d: int, wa: Any, wb: Any, wc: Any, wd: Any) -> Any:
    """Weighted sum of four values; unsigned places need no look at whether they count from the end."""
    upper = wa * np.float32(flat[np.uint64(a)]) + wb * np.float32(flat[np.uint64(b)])
    return upper + wc * np.float32(flat[np.uint64(c)]) + wd * np.float32(flat[np.uint64(d)])


@inlined
def _level(value: Any) -> Any:
    return min(max(value, np.float32(0)), np.float32(255))


@compiled_fast
def mix_row(
    patch: Array, mask: Array, height: int, width: int, plan: Array, plane: Array, nv12: bool, down: int, out: Array
) -> tuple[int, int]:
    """Alpha and the three colours at the pixels of a box's row into out [4, columns]; which columns were written.

    Patch and mask are flat; `plane` [3, 3] counts in patch pixels from its corner.
    """
    a, d = plan[TO_PATCH], plan[TO_PATCH + 3]
    u0 = plan[TO_PATCH + 1] * np.float32(down) + plan[TO_PATCH + 2]
    v0 = plan[TO_PATCH + 4] * np.float32(down) + plan[TO_PATCH + 5]
    first, last = _limits(a, u0, width, 0, int(plan[BOX + 2] - plan[BOX]))
    first, last = _limits(d, v0, height, first, last)
    first = min(first, last)  # none: the caller must not count from behind the box
    one, zero, c = np.float32(1), np.float32(0), plan[COLOURS : COLOURS + 12]
    for x in range(first, last):
        u, v = a * np.float32(x) + u0, d * np.float32(x) + v0
        out[0, x] = zero
        left, top = int(np.floor(u)), int(np.floor(v))
        if left < -1 or top < -1 or left >= width or top >= height:
            continue
        fx, fy = u - np.float32(left), v - np.float32(top)
        at = top * width + left
        nw, ne, sw, se = at, at + 1, at + width, at + width + 1
        gx, gy = one - fx, one - fy
        if left >= 0 and top >= 0 and left + 1 < width and top + 1 < height:
            alpha = _four(mask, nw, ne, sw, se, gx * gy, fx * gy, gx * fy, fx * fy)
        else:  # the mask is 0 outside, the colours go on
            i0, i1, j0, j1 = max(left, 0), min(left + 1, width - 1), max(top, 0), min(top + 1, height - 1)
            nw, ne, sw, se = j0 * width + i0, j0 * width + i1, j1 * width + i0, j1 * width + i1
            wx0, wx1 = gx if left >= 0 else zero, fx if left + 1 < width else zero
            wy0, wy1 = gy if top >= 0 else zero, fy if top + 1 < height else zero
            alpha = _four(mask, nw, ne, sw, se, wx0 * wy0, wx1 * wy0, wx0 * wy1, wx1 * wy1)
            u, v = min(max(u, zero), np.float32(width - 1)), min(max(v, zero), np.float32(height - 1))
        if not alpha > zero:
            continue
        out[0, x] = min(alpha, one)
        nw, ne, sw, se = 3 * nw, 3 * ne, 3 * sw, 3 * se
        wa, wb, wc, wd = gx * gy, fx * gy, gx * fy, fx * fy
        red = _four(patch, nw, ne, sw, se, wa, wb, wc, wd)
        green = _four(patch, nw + 1, ne + 1, sw + 1, se + 1, wa, wb, wc, wd)
        blue = _four(patch, nw + 2, ne + 2, sw + 2, se + 2, wa, wb, wc, wd)
        if nv12:
            luma = c[0] * red + c[1] * green + c[2] * blue + c[3]
            one_way = c[4] * red + c[5] * green + c[6] * blue + c[7]
            blue = c[8] * red + c[9] * green + c[10] * blue + c[11]
            red, green = luma, one_way
        out[1, x] = _level(red + plane[0, 0] + u * plane[1, 0] + v * plane[2, 0])
        out[2, x] = _level(green + plane[0, 1] + u * plane[1, 1] + v * plane[2, 1])
        out[3, x] = _level(blue + plane[0, 2] + u * plane[1, 2] + v * plane[2, 2])
    return first, last


@compiled_fast
def paste_rgb(
    frame: Array, patch: Array, mask: Array, height: int, width: int, plan: Array, plane: Array, first: int, last: int
) -> None:
    """Rows `first` to `last` of a box in frame [H, 3 W]."""
    x0, y0 = int(plan[BOX]), int(plan[BOX + 1])
    row = np.empty((4, int(plan[BOX + 2]) - x0), np.float32)
    for down in range(first, last):
        start, stop = mix_row(patch, mask, height, width, plan, plane, False, down, row)
        line = frame[y0 + down]
        for x in range(start, stop):
            alpha = row[0, x]
            if alpha > 0:
                at = np.uint64(3 * (x0 + x))
                for k in range(3):
                    old = np.float32(line[at + np.uint64(k)])
                    line[at + np.uint64(k)] = np.uint8(np.int32(old + alpha * (row[1 + k, x] - old) + np.float32(0.5)))


@compiled_fast
def paste_nv12(
    frame: Array, patch: Array, mask: Array, height: int, width: int, plan: Array, plane: Array, first: int, last: int
) -> None:
    """Pairs of rows `first` to `last` of a box in frame [1.5 H, W]."""
    x0, y0 = int(plan[BOX]), int(plan[BOX + 1])
    tall, columns = frame.shape[0] // 3 * 2, int(plan[BOX + 2]) - x0
    row = np.empty((4, columns), np.float32)
    totals = np.empty((3, columns // 2), np.float32)  # of alpha, and of alpha times U and V
    for pair in range(first, last):
        totals[:] = 0
        low, high = columns, 0
        for down in range(2 * pair, 2 * pair + 2):
            start, stop = mix_row(patch, mask, height, width, plan, plane, True, down, row)
            low, high = min(low, start), max(high, stop)
            line = frame[y0 + down]
            for x in range(start, stop):
                alpha = row[0, x]
                if alpha > 0:
                    old = np.float32(line[np.uint64(x0 + x)])
                    line[np.uint64(x0 + x)] = np.uint8(np.int32(old + alpha * (row[1, x] - old) + np.float32(0.5)))
                    half = np.uint64(x >> 1)
                    totals[0, half] += alpha
                    totals[1, half] += alpha * row[2, x]
                    totals[2, half] += alpha * row[3, x]
        line = frame[tall + y0 // 2 + pair]
        for x in range(low // 2, (high + 1) // 2):
            if totals[0, x] > 0:
                for k in range(2):
                    at = np.uint64(x0 + 2 * x + k)
                    old = np.float32(line[at])
                    value = old + np.float32(0.25) * (totals[1 + k, x] - totals[0, x] * old)
                    line[at] = np.uint8(np.int32(_level(value) + np.float32(0.5)))


def rim(frames: Tensor, patches: Tensor, mask: Tensor, plan: Tensor, nv12: bool) -> Tensor:
    """See the registration."""
    out = np.zeros((len(frames), CHUNKS, MOMENTS))
    arrays = frame_rows(frames), known(patches), mask.detach().numpy(), plan.numpy()
    samples = -(-mask.shape[1] // RIM_STEP) * -(-mask.shape[2] // RIM_STEP)
    share = -(-samples // CHUNKS)

    def work(_: int, first: int, last: int) -> None:
        for b in range(len(out)):
            frame, patch, alpha, row = (array[b % len(array)] for array in arrays)
            for chunk in range(first, last):
                begin, end = min(chunk * share, samples), min((chunk + 1) * share, samples)
                add_rim(frame, patch, alpha, row, nv12, out[b, chunk], begin, end)

    run_spans(work, cut(CHUNKS, CHUNKS // 2))
    return torch.from_numpy(out.astype(np.float32))


def paste(
    frames: Tensor,
    patches: Tensor,
    mask: Tensor,
    texture: Tensor | None,
    plan: Tensor,
    moments: Tensor | None,
    gain: float,
    nv12: bool,
) -> None:
    """See the registration."""
    height, width = mask.shape[1:]
    arrays = frame_rows(frames), mask.detach().reshape(len(mask), -1).numpy(), plan.numpy()
    pictures, textures = known(patches), None if texture is None else known(texture)
    planes = np.zeros((len(frames), 3, 3)) if moments is None else np.stack([plane(m) for m in moments.sum(1).double().numpy()])
    planes[:, 0] -= (planes[:, 1] + planes[:, 2]) / 2  # from the middle, in parts of the patch, to its corner, in pixels
    planes[:, 1:] /= np.array([width, height])[:, None]
    for b in range(len(frames)):
        frame, alpha, row = (array[b % len(array)] for array in arrays)
        picture = pictures[b] if textures is None else textured(pictures[b], textures[b], gain)
        inputs = (frame, picture.reshape(-1), alpha, height, width, row, planes[b].astype(np.float32))
        step, paste_rows = (2, paste_nv12) if nv12 else (1, paste_rgb)

        def work(_: int, first: int, last: int) -> None:
            paste_rows(*inputs, first, last)  # noqa: B023  # done before the next turn

        run_spans(work, cut(int(row[BOX + 3] - row[BOX + 1]) // step, SPAN * 2 // step))


def textured(picture: Array, texture: Array, gain: float) -> Array:
    """Coarse band of the picture, `gain` parts of the texture's fine band: one blur of their difference."""
    distance = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
    weights = np.exp(-(distance**2) / np.float32(2 * SIGMA**2))
    apart = picture.astype(np.float32) - texture
    soft = np.empty_like(apart)
    blurred(apart, weights / weights.sum(), soft)
    return picture + np.float32(gain) * (soft - apart)


def plane(m: Array) -> Array:
    """The shift [3, 3] from moments: rows 1, x and y, columns the colours; zeros where the rim is too small."""
    if m[0] * RIM_STEP**2 < MIN_RING:
        return np.zeros((3, 3))
    pull = LEVEL * m[0]
    normal = np.array([[m[0], m[1], m[2]], [m[1], m[3] + pull, m[4]], [m[2], m[4], m[5] + pull]])
    return np.asarray(np.linalg.solve(normal, m[6:].reshape(3, 3).T))


def frame_rows(frames: Tensor) -> Array:
    """Bytes [B, rows, bytes of a row], the same memory."""
    return np.asarray(frames.numpy().reshape(*frames.shape[:2], -1))


def known(pictures: Tensor) -> Array:
    """As bytes or float32: numba knows no shorter floats."""
    return np.asarray((pictures if pictures.dtype == torch.uint8 else pictures.detach().float()).numpy())
