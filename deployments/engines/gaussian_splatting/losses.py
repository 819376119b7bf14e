"""What a drawn window costs against the filmed one. All in float32, weighted by pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX = 7  # pixels of the SSIM window
C1, C2 = 0.01**2, 0.03**2
LUMA = (0.299, 0.587, 0.114)


def grey(rgb: Tensor) -> Tensor:
    """Luma [B, h, w] of [B, h, w, 3]."""
    return rgb[..., 0] * LUMA[0] + rgb[..., 1] * LUMA[1] + rgb[..., 2] * LUMA[2]


def box(x: Tensor) -> Tensor:
    """Box mean [B, h - 6, w - 6] of [B, h, w], by running sums: pooling takes half of a step on a CPU."""
    for axis in (1, 2):
        total = F.pad(x, (0, 0, 1, 0) if axis == 1 else (1, 0)).cumsum(axis)
        count = x.shape[axis] - BOX + 1
        x = (total.narrow(axis, BOX, count) - total.narrow(axis, 0, count)) / BOX
    return x


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM [B, h - 6, w - 6] of two lumas (Wang et al. 2004), with a box for the Gaussian."""
    ma, mb = box(a), box(b)
    va, vb, cov = box(a * a) - ma * ma, box(b * b) - mb * mb, box(a * b) - ma * mb
    return 1 - (2 * ma * mb + C1) * (2 * cov + C2) / ((ma * ma + mb * mb + C1) * (va + vb + C2))


def slopes(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted difference of the two lumas' slopes."""
    d = a - b
    across = ((d[:, :, 1:] - d[:, :, :-1]).abs() * weight[:, :, 1:]).sum()
    down = ((d[:, 1:] - d[:, :-1]).abs() * weight[:, 1:]).sum()
    return (across + down) / weight.sum()


def picture_loss(drawn: Tensor, filmed: Tensor, weight: Tensor, ssim: float, gradient: float) -> Tensor:
    """Cost of drawn against filmed [B, h, w, 3] in 0..1, by pixel weight [B, h, w]."""
    total = weight.sum()
    plain = ((drawn - filmed).abs().mean(-1) * weight).sum() / total
    a, b = grey(drawn), grey(filmed)
    inner = weight[:, BOX // 2 : -(BOX // 2), BOX // 2 : -(BOX // 2)]
    return plain + ssim * (dissimilarity(a, b) * inner).sum() / total + gradient * slopes(a, b, weight)


def psnr(drawn: Tensor, filmed: Tensor, weight: Tensor) -> float:
    """Peak signal to noise in dB over the pixels with weight."""
    error = (((drawn.clamp(0, 1) - filmed) ** 2).mean(-1) * weight).sum() / weight.sum()
    return float(-10 * torch.log10(error.clamp_min(1e-10)))
