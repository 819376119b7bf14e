"""Nearest doubling and a 3x3 convolution in one, by folded weights: no kernel of our own, cuDNN and oneDNN do the work.

Every output pixel reads only 2x2 different source pixels, so that four 2x2 convolutions replace the 3x3 one: 4 products
where 9 were, and the picture of four times the size is never written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import DeviceError, DtypeError, ShapeError, check_shape

__all__ = ["fold", "upsample_conv"]


def fold(weight: Tensor) -> Tensor:
    """Weight [O, I, 3, 3] of the convolution after the doubling -> [4 O, I, 2, 2], added up in float32.

    The first O filters make the even rows and columns, then even rows and odd columns, odd and even, odd and odd.
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3) or min(weight.shape) < 1:
        raise ShapeError(f"weight: expected [O, I, 3, 3], got {list(weight.shape)}; only 3x3 convolutions can be folded")
    if not weight.is_floating_point():
        raise DtypeError(f"weight: expected a float type, got {weight.dtype}; convert it with .float()")
    full = weight if weight.dtype == torch.float64 else weight.float()
    return torch.cat([part for rows in _pairs(full, 2) for part in _pairs(rows, 3)]).to(weight.dtype)


def _pairs(weight: Tensor, along: int) -> tuple[Tensor, Tensor]:
    """Three taps become two: an even pixel sees its left neighbour once and itself twice, an odd one the other way round."""
    left, middle, right = weight.unbind(along)
    return torch.stack([left, middle + right], along), torch.stack([left + middle, right], along)


def upsample_conv(x: Tensor, folded: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve the doubled x [B, I, H, W] with `fold(weight)` and padding 1 -> [B, O, 2 H, 2 W], channels last in memory.

    The same numbers as `conv2d(interpolate(x, scale_factor=2), weight, bias, padding=1)` but for rounding, borders too.
    """
    _check(x, folded, bias)
    height, width = x.shape[2:]
    outputs = folded.shape[0] // 4
    # one ring of zeros: phase 0 starts at the ring, phase 1 one pixel later; each has one row or column too many
    every = torch.nn.functional.conv2d(x, folded, None if bias is None else bias.repeat(4), padding=1)
    shape = (x.shape[0], outputs, 2 * height, 2 * width)
    out = torch.empty(shape, dtype=every.dtype, device=x.device, memory_format=torch.channels_last)
    for phase in range(4):
        row, column = divmod(phase, 2)
        part = every[:, phase * outputs : (phase + 1) * outputs, row : row + height, column : column + width]
        out[:, :, row::2, column::2] = part
    return out


def _check(x: Tensor, folded: Tensor, bias: Tensor | None) -> None:
    if x.ndim != 4 or folded.ndim != 4 or min(x.shape) < 1:
        raise ShapeError(f"expected x [B, I, H, W] and fold(weight) [4 O, I, 2, 2], got {[*x.shape]} and {[*folded.shape]}")
    if folded.shape[0] % 4 or folded.shape[0] < 4:
        raise ShapeError(f"folded: expected 4 x O filters, got {folded.shape[0]}; make it with fold(weight)")
    sizes = {"4O": folded.shape[0], "I": x.shape[1], "O": folded.shape[0] // 4}
    check_shape("folded", folded, ("4O", "I", 2, 2), sizes)
    if bias is not None:
        check_shape("bias", bias, ("O",), sizes)
    for name, tensor in (("folded", folded), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise DtypeError(f"{name}: expected {x.dtype} like x, got {tensor.dtype}; convert it")
        if tensor is not None and tensor.device != x.device:
            raise DeviceError(f"{name}: expected a tensor on {x.device} like x, got {tensor.device}; move it there")
