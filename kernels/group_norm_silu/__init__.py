"""Group normalisation and SiLU in one, channels last: what stands before nearly every convolution of a latent decoder.

The door of the operation; `reference.py` says what it means, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import DeviceError, DtypeError, ShapeError, check_shape
from kernels.group_norm_silu.cpu import forward
from kernels.group_norm_silu.op import group_norm_silu_op

__all__ = ["group_norm_silu"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST = 2**31 - 1  # offsets inside one sample are 32-bit
WIDEST = 4096  # channels of a group: one row of a group must fit a program


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """Normalise x [B, ..., C] per sample and group of C / groups channels, times weight [C] plus bias [C], then SiLU.

    Statistics and arithmetic are float32 whatever x is; the answer has the type of x. Weight and bias may be float32 or
    the type of x, or missing. With gradients for x, weight and bias.
    """
    if x.ndim < 3:
        raise ShapeError(f"x: expected [B, ..., C] with at least one dimension of places, got {list(x.shape)}; reshape it")
    channels = x.shape[-1]
    if groups < 1 or channels % groups or channels // groups > WIDEST:
        raise ShapeError(f"groups: expected a divisor of the {channels} channels, at most {WIDEST} in a group, got {groups}")
    if min(x.shape) < 1 or x[0].numel() > MOST:
        raise ShapeError(f"x: expected sizes of at least 1 and fewer than 2^31 values a sample, got {list(x.shape)}")
    if not eps >= 0:
        raise ShapeError(f"eps: expected a number of at least 0, got {eps}")
    _check_numbers(x, weight, bias)
    weight = x.new_ones(channels, dtype=torch.float32) if weight is None else weight
    bias = x.new_zeros(channels, dtype=torch.float32) if bias is None else bias
    rows = x.reshape(x.shape[0], -1, channels).contiguous()
    inputs = (rows, weight.contiguous(), bias.contiguous(), groups, float(eps), silu)
    out = forward(*inputs)[0] if _nobody_listens(rows, weight, bias) else group_norm_silu_op(*inputs)[0]
    return out.view(x.shape)


def _nobody_listens(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether the CPU path may be called as it is: no gradient is wanted and nothing traces.

    Through the registration a call takes 90 us more, which is what a small picture itself takes.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad)
    return x.is_cpu and type(x) is Tensor and not wanted and not torch.compiler.is_compiling()


def _check_numbers(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    if x.device.type not in ("cpu", "cuda"):
        raise DeviceError(f"x: expected a tensor on cpu or cuda, got {x.device}; move it with .cpu() or .cuda()")
    if x.dtype not in DTYPES:
        raise DtypeError(f"x: expected float32, bfloat16 or float16, got {x.dtype}; only the reference takes float64")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        check_shape(name, tensor, ("C",), {"C": x.shape[-1]})
        if tensor.dtype not in (torch.float32, x.dtype):
            raise DtypeError(f"{name}: expected float32 or {x.dtype} like x, got {tensor.dtype}; convert it")
        if tensor.device != x.device:
            raise DeviceError(f"{name}: expected a tensor on {x.device} like x, got {tensor.device}; move it there")
