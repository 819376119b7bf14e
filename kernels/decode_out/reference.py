"""What the last step of a decoder means: torch, any float type."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels_reference(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, kernel: Tensor, shift: Tensor, eps: float = 1e-5
) -> Tensor:
    """The picture 0..255 before it is rounded: [B, H, W, 3] of features x [B, H, W, C] and a kernel [3, C, 3, 3]."""
    parts = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = parts.mean((1, 3), keepdim=True)
    variance = ((parts - mean) ** 2).mean((1, 3), keepdim=True)
    y = ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape) * weight + bias
    y = y * y.sigmoid()
    picture = torch.nn.functional.conv2d(y.permute(0, 3, 1, 2), kernel, shift, padding=1).permute(0, 2, 3, 1)
    return (picture.clamp(-1, 1) + 1) * 127.5


def decode_out_reference(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, kernel: Tensor, shift: Tensor, eps: float = 1e-5
) -> Tensor:
    """The picture in uint8; -1 becomes 0 and 1 becomes 255."""
    return pixels_reference(x, groups, weight, bias, kernel, shift, eps).round().to(torch.uint8)
