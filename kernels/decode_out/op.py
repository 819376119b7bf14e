"""Registers the last step of a decoder with torch: CPU is torch's own convolution (oneDNN), CUDA is Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("lipsync::decode_out", mutates_args=(), device_types="cpu")
def decode_out_op(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor, nv12: Sequence[float]) -> Tensor:
    """x [B, H, W, C] times scale plus offset [B, C], SiLU, kernel [3, C, 3, 3] -> uint8 [B, H, W, 3].

    With the twelve numbers from RGB to Y, U and V: NV12 [B, 1.5 H, W].
    """
    y = torch.addcmul(offset[:, None, None], x.float(), scale[:, None, None])
    y = torch.nn.functional.silu(y, inplace=True).permute(0, 3, 1, 2)  # channels last already: nothing is copied
    picture = torch.nn.functional.conv2d(y, kernel, shift, padding=1).clamp_(-1, 1).add_(1).mul_(127.5)
    if not nv12:
        return picture.permute(0, 2, 3, 1).round_().to(torch.uint8).contiguous()
    rows = picture.new_tensor(nv12).reshape(3, 4, 1, 1)
    luma = torch.nn.functional.conv2d(picture, rows[:1, :3], rows[0, 3, 0])[:, 0]
    means = torch.nn.functional.avg_pool2d(picture, 2)
    differences = torch.nn.functional.conv2d(means, rows[1:, :3], rows[1:, 3, 0, 0])
    chroma = differences.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[2])
    return torch.cat([luma, chroma], 1).clamp_(0, 255).round_().to(torch.uint8)


@decode_out_op.register_kernel("cuda")
def _cuda(*inputs: Any) -> Tensor:
    from kernels.decode_out.gpu import launch_decode_out

    return launch_decode_out(*inputs)


@decode_out_op.register_fake
def _fake(x: Tensor, *rest: Any) -> Tensor:
    batch, height, width, _ = x.shape
    return x.new_empty((batch, height * 3 // 2, width) if rest[-1] else (batch, height, width, 3), dtype=torch.uint8)
