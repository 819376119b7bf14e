"""Registers the fused normalisation with torch: CPU is numba (backward: torch), CUDA is Triton, autograd knows both ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("lipsync::group_norm_silu", mutates_args=(), device_types="cpu")
def group_norm_silu_op(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, N, C] -> the same size; mean and 1 / deviation [B, groups], float32."""
    from kernels.group_norm_silu.cpu import forward

    return forward(x, weight, bias, groups, eps, silu)


@group_norm_silu_op.register_kernel("cuda")
def _forward_cuda(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    from kernels.group_norm_silu.gpu import launch_forward

    return launch_forward(*inputs)


@group_norm_silu_op.register_fake
def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor, groups: int, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty((x.shape[0], groups), dtype=torch.float32)
    return torch.empty_like(x), mean, torch.empty_like(mean)


@torch.library.custom_op("lipsync::group_norm_silu_backward", mutates_args=(), device_types="cpu")
def group_norm_silu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (its type), weight and bias (float32)."""
    from kernels.group_norm_silu.cpu import backward

    return backward(grad, x, weight, bias, mean, rstd, silu)


@group_norm_silu_backward.register_kernel("cuda")
def _backward_cuda(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    from kernels.group_norm_silu.gpu import launch_backward

    return launch_backward(*inputs)


@group_norm_silu_backward.register_fake
def _backward_fake(grad: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty(x.shape[-1], dtype=torch.float32)
    return torch.empty_like(x), total, torch.empty_like(total)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, _, _, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    dx, dweight, dbias = group_norm_silu_backward(grad.contiguous(), x, weight, bias, mean, rstd, ctx.silu)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None, None


group_norm_silu_op.register_autograd(_backward, setup_context=_keep)
