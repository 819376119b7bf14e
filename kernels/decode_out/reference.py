"""What the last step of a decoder means: torch, any float type."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.nv12 import Nv12


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


def nv12_reference(picture: Tensor, nv12: Nv12) -> Tensor:
    """NV12 [B, 1.5 H, W] of RGB [B, H, W, 3], neither rounded: luma, then blue and red differences of 2x2 means in turn."""
    rows = picture.new_tensor(nv12.rows())
    batch, height, width = picture.shape[:3]
    planes = picture @ rows[:, :3].T + rows[:, 3]
    chroma = planes[..., 1:].reshape(batch, height // 2, 2, width // 2, 2, 2).mean((2, 4))
    return torch.cat([planes[..., 0], chroma.reshape(batch, height // 2, width)], 1)


def decode_out_reference(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    kernel: Tensor,
    shift: Tensor,
    eps: float = 1e-5,
    nv12: Nv12 | None = None,
) -> Tensor:
    """The picture in uint8, RGB or NV12; -1 becomes 0 and 1 becomes 255."""
    picture = pixels_reference(x, groups, weight, bias, kernel, shift, eps)
    return (nv12_reference(picture, nv12) if nv12 else picture).round().to(torch.uint8)
