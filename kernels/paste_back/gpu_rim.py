"""Triton path of the rim: what the frame's colours have more than the patch's, summed in parts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.paste_back.op import CHUNKS, MOMENTS
from kernels.paste_back.plan import COLOURS, LENGTH, TO_FRAME
from kernels.paste_back.reference import RIM_LEAST, RIM_STEP

BLOCK = 256  # sampled pixels of a program's turn
_TO_FRAME, _COLOURS, _LENGTH = tl.constexpr(TO_FRAME), tl.constexpr(COLOURS), tl.constexpr(LENGTH)
_CHUNKS, _MOMENTS = tl.constexpr(CHUNKS), tl.constexpr(MOMENTS)
_STEP, _LEAST = tl.constexpr(RIM_STEP), tl.constexpr(RIM_LEAST)


@triton.jit
def frame_colour(rgb: tl.tensor, plan: tl.tensor, K: tl.constexpr, NV12: tl.constexpr) -> tl.tensor:
    """The frame's colour K of a tuple of red, green and blue."""
    if NV12:
        row = plan + _COLOURS + 4 * K
        mixed = tl.load(row) * rgb[0] + tl.load(row + 1) * rgb[1] + tl.load(row + 2) * rgb[2] + tl.load(row + 3)
    else:
        mixed = rgb[K]
    return mixed


@triton.jit
def _pixel(
    frame: tl.tensor, x: tl.tensor, y: tl.tensor, real: tl.tensor, height: int, width: int, K: tl.constexpr, NV12: tl.constexpr
) -> tl.tensor:
    """Colour K of frame pixels."""
    if not NV12:
        at = (y * width + x) * 3 + K
    elif K == 0:
        at = y * width + x
    else:
        at = (height + y // 2) * width + x // 2 * 2 + K - 1
    return tl.load(frame + at, real, other=0).to(tl.float32)


@triton.jit
def _difference(
    frame: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    own: tl.tensor,
    height: int,
    width: int,
    K: tl.constexpr,
    NV12: tl.constexpr,
) -> tl.tensor:
    """Weight times what the frame's colour K at (x, y) has more than the patch's own."""
    real = weight > 0
    x0, y0 = x.to(tl.int32), y.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    upper = (1 - fx) * _pixel(frame, x0, y0, real, height, width, K, NV12)
    upper += fx * _pixel(frame, x1, y0, real, height, width, K, NV12)
    lower = (1 - fx) * _pixel(frame, x0, y1, real, height, width, K, NV12)
    lower += fx * _pixel(frame, x1, y1, real, height, width, K, NV12)
    return weight * ((1 - fy) * upper + fy * lower - own)


@triton.jit
def rim_parts(
    frames: tl.tensor,
    patches: tl.tensor,
    mask: tl.tensor,
    plan: tl.tensor,
    out: tl.tensor,
    height: int,
    width: int,
    tall: int,
    wide: int,
    mask_step: int,
    BLOCK: tl.constexpr,
    NV12: tl.constexpr,
) -> None:
    """Programs: chunks of a patch [tall, wide], frames [height, width]. Fills out [B, CHUNKS, MOMENTS]."""
    chunk, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    frames += sample * height * width * 3 // (2 if NV12 else 1)
    patches += sample * tall * wide * 3
    mask += sample * mask_step
    plan += sample * _LENGTH
    columns = (wide + _STEP - 1) // _STEP
    samples = (tall + _STEP - 1) // _STEP * columns
    share = (samples + _CHUNKS - 1) // _CHUNKS
    a, b, c = tl.load(plan + _TO_FRAME), tl.load(plan + _TO_FRAME + 1), tl.load(plan + _TO_FRAME + 2)
    d, e, f = tl.load(plan + _TO_FRAME + 3), tl.load(plan + _TO_FRAME + 4), tl.load(plan + _TO_FRAME + 5)
    zero = tl.zeros((BLOCK,), tl.float32)
    w, wx, wy, wxx, wxy, wyy = zero, zero, zero, zero, zero, zero
    p, px, py, q, qx, qy, r, rx, ry = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for start in range(chunk * share, tl.minimum((chunk + 1) * share, samples), BLOCK):
        n = start + tl.arange(0, BLOCK)
        i, j = n % columns * _STEP, n // columns * _STEP
        real = (n < (chunk + 1) * share) & (n < samples)
        alpha = tl.load(mask + j * wide + i, real, other=0.0)
        x, y = a * i + b * j + c, d * i + e * j + f
        near = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        weight = alpha * (1.0 - alpha)
        weight = tl.where(near & (weight > _LEAST), weight, 0.0)
        x, y = tl.where(weight > 0, x, 0.0), tl.where(weight > 0, y, 0.0)
        at = patches + (j * wide + i) * 3
        red = tl.load(at, weight > 0, other=0.0).to(tl.float32)
        green = tl.load(at + 1, weight > 0, other=0.0).to(tl.float32)
        blue = tl.load(at + 2, weight > 0, other=0.0).to(tl.float32)
        right, down = i * (1.0 / wide) - 0.5, j * (1.0 / tall) - 0.5
        w += weight
        wx += weight * right
        wy += weight * down
        wxx += weight * right * right
        wxy += weight * right * down
        wyy += weight * down * down
        more = _difference(frames, x, y, weight, frame_colour((red, green, blue), plan, 0, NV12), height, width, 0, NV12)
        p += more
        px += more * right
        py += more * down
        more = _difference(frames, x, y, weight, frame_colour((red, green, blue), plan, 1, NV12), height, width, 1, NV12)
        q += more
        qx += more * right
        qy += more * down
        more = _difference(frames, x, y, weight, frame_colour((red, green, blue), plan, 2, NV12), height, width, 2, NV12)
        r += more
        rx += more * right
        ry += more * down
    out += (sample * _CHUNKS + chunk) * _MOMENTS
    sums = (w, wx, wy, wxx, wxy, wyy, p, px, py, q, qx, qy, r, rx, ry)
    for k in tl.static_range(_MOMENTS):
        tl.store(out + k, tl.sum(sums[k], 0))


def launch_rim(frames: Tensor, patches: Tensor, mask: Tensor, plan: Tensor, nv12: bool) -> Tensor:
    """See the registration; contiguous tensors."""
    out = torch.empty((frames.shape[0], CHUNKS, MOMENTS), dtype=torch.float32, device=frames.device)
    sizes = (*frame_size(frames, nv12), *patches.shape[1:3], mask[0].numel() if mask.shape[0] > 1 else 0)
    rim_parts[(CHUNKS, frames.shape[0])](frames, patches, mask, plan, out, *sizes, BLOCK=BLOCK, NV12=nv12, num_warps=4)
    return out


def frame_size(frames: Tensor, nv12: bool) -> tuple[int, int]:
    """Height and width."""
    return (frames.shape[1] // 3 * 2, frames.shape[2]) if nv12 else (frames.shape[1], frames.shape[2])
