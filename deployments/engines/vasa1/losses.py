"""How far a picture is from the truth, inside the mask; fine texture as the compositor adds it."""

from __future__ import annotations

import torch
from torch.nn import functional

SSIM_BOX = 7
SSIM_FLOOR = (0.01**2, 0.03**2)
GREY = (0.299, 0.587, 0.114)


def gaussian_blur(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Picture [B, C, H, W] blurred; borders repeat."""
    reach = max(1, int(3 * sigma + 0.5))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype) / sigma) ** 2)
    taps = taps / taps.sum()
    channels = picture.shape[1]
    padded = functional.pad(picture, (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def textured(blend: torch.Tensor, nearest: torch.Tensor, sigma: float, gain: float) -> torch.Tensor:
    """Low band of the blend, `gain` parts of the nearest picture's high band: `face.composite.two_band` in torch."""
    if sigma < 0.3:  # the high band is finer than the window: nothing of it is seen here
        return blend
    low = gaussian_blur(blend, sigma)
    return low + gain * (nearest - gaussian_blur(nearest, sigma)) + (1 - gain) * (blend - low)


def picture_loss(picture: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted L1, its gradient's, and structure; pictures [B, 3, H, W] 0..1, weight [B, 1, H, W] of mean 1."""
    error = (picture - truth) * weight
    across = (picture - truth).diff(dim=-1) * weight[..., 1:]
    down = (picture - truth).diff(dim=-2) * weight[..., 1:, :]
    slope = across.abs().mean() + down.abs().mean()
    return 4 * (error**2).mean().sqrt() + error.abs().mean() + 0.5 * slope + 0.1 * unlikeness(picture, truth, weight)


def unlikeness(picture: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """1 - SSIM of the luma, weighted.

    Grey, contiguous and separable: with average pooling of colour pictures this term took half of a step.
    """
    a, b = (_luma(p) for p in (picture, truth))
    mean_a, mean_b = _box(a), _box(b)
    spread_a, spread_b = _box(a * a) - mean_a**2, _box(b * b) - mean_b**2
    common = _box(a * b) - mean_a * mean_b
    c1, c2 = SSIM_FLOOR
    ssim = (2 * mean_a * mean_b + c1) * (2 * common + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))
    return ((1 - ssim) * weight).mean()


def shown_psnr(picture: torch.Tensor, truth: torch.Tensor, alpha: torch.Tensor) -> float:
    """PSNR of pictures [B, 3, H, W] laid over the truth by alpha [B, 1, H, W], where they show; mean over the batch."""
    square = (((picture.clamp(0, 1) - truth) * alpha) ** 2).sum((1, 2, 3))
    count = 3 * (alpha > 0.02).sum((1, 2, 3))
    return float((-10 * torch.log10((square / count.clamp_min(1)).clamp_min(1e-10))).mean())


def _luma(picture: torch.Tensor) -> torch.Tensor:
    red, green, blue = picture.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None].contiguous()


def _box(x: torch.Tensor) -> torch.Tensor:
    half = SSIM_BOX // 2
    rows = functional.avg_pool2d(x, (SSIM_BOX, 1), 1, (half, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, SSIM_BOX), 1, (0, half), count_include_pad=False)
