"""Registers the last step of a decoder with torch: CUDA is Triton, CPU is torch's own convolution (oneDNN)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("lipsync::decode_out", mutates_args=(), device_types="cuda")
def decode_out_op(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
    """x [B, H, W, C] times scale plus offset [B, C], SiLU, kernel [3, C, 3, 3] -> uint8 [B, H, W, 3]."""
    from kernels.decode_out.gpu import launch_decode_out

    return launch_decode_out(x, scale, offset, kernel, shift)


@decode_out_op.register_kernel("cpu")
def _cpu(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
    y = torch.addcmul(offset[:, None, None], x.float(), scale[:, None, None])
    y = torch.nn.functional.silu(y, inplace=True).permute(0, 3, 1, 2)  # channels last already: nothing is copied
    picture = torch.nn.functional.conv2d(y, kernel, shift, padding=1).permute(0, 2, 3, 1)
    return picture.clamp_(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8).contiguous()


@decode_out_op.register_fake
def _fake(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:3], 3), dtype=torch.uint8)
