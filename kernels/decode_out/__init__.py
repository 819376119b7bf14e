"""The last step of a decoder: group normalisation, SiLU, 3x3 convolution to RGB, clamp, bytes in RGB or NV12.

The door of the operation; `reference.py` says what it means, `op.py` (CPU) and `gpu.py` do it fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import DtypeError, ShapeError, check_no_gradient, check_numbers, check_shape, check_size
from kernels.decode_out.op import decode_out_op
from kernels.nv12 import Nv12, check_even

__all__ = ["Nv12", "decode_out"]

MOST_PICTURES = 65535  # programs along a GPU grid's last axis
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def decode_out(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    kernel: Tensor,
    shift: Tensor,
    eps: float = 1e-5,
    nv12: Nv12 | None = None,
) -> Tensor:
    """Features x [B, H, W, C] -> RGB uint8 [B, H, W, 3], with `nv12` NV12 [B, 1.5 H, W]; -1 becomes 0 and 1 becomes 255.

    weight, bias [C] belong to the normalisation, kernel [3, C, 3, 3] and shift [3] to the convolution, all float32.
    """
    if x.ndim != 4 or x.dtype not in FLOATS:
        error = ShapeError if x.ndim != 4 else DtypeError
        raise error(f"x: expected float32, bfloat16 or float16 [B, H, W, C], got {x.dtype} {[*x.shape]}; convert it")
    batch, height, width, channels = x.shape
    check_size(height, width)
    if nv12:
        check_even(height, width)
    if not 1 <= batch <= MOST_PICTURES or groups < 1 or channels < 1 or channels % groups or not eps > 0:
        wanted = f"1 to {MOST_PICTURES} pictures, groups that divide C and eps above 0"
        raise ShapeError(f"expected {wanted}, got {[*x.shape]}, {groups} groups, eps {eps}")
    sizes = {"C": channels}
    for name, tensor, shape in (("weight", weight, ("C",)), ("bias", bias, ("C",)), ("kernel", kernel, (3, "C", 3, 3))):
        check_shape(name, tensor, shape, sizes)
    check_shape("shift", shift, (3,), sizes)
    check_numbers(x.device, weight=weight, bias=bias, kernel=kernel, shift=shift)
    inputs = {"x": x, "weight": weight, "bias": bias, "kernel": kernel, "shift": shift}
    check_no_gradient("the kernel writes bytes; train with kernels.decode_out.reference", **inputs)
    x = x.contiguous()
    scale, offset = normalisation(x, groups, weight, bias, eps)
    numbers = [number for row in nv12.rows() for number in row] if nv12 else []
    return decode_out_op(x, scale, offset, kernel.contiguous(), shift.contiguous(), numbers)


def normalisation(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and offset [B, C] that normalise x: statistics in float32."""
    parts = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups).float()
    variance, mean = torch.var_mean(parts, (1, 3), correction=0)
    each = x.shape[-1] // groups
    scale = (variance + eps).rsqrt().repeat_interleave(each, 1) * weight
    return scale, bias - mean.repeat_interleave(each, 1) * scale
