"""What the picture means: every splat over every pixel, nearest first. Plain torch, any float type, autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.splats import ALPHA_MAX, ALPHA_MIN


def raster_reference(
    means: Tensor,
    conics: Tensor,
    depths: Tensor,
    extents: Tensor,
    opacities: Tensor,
    colours: Tensor,
    background: Tensor | None,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [B, H, W, C], alpha [B, H, W], and doubt [B, H, W].

    Doubt is how near an alpha came to the threshold below which it counts as nothing, relative to the threshold:
    where it is tiny, rounding decides, and two correct implementations may differ by 1/255 of a colour.
    """
    y = torch.arange(height, dtype=means.dtype, device=means.device)[:, None]
    x = torch.arange(width, dtype=means.dtype, device=means.device)[None, :]
    pictures, alphas, doubts = [], [], []
    for frame in range(means.shape[0]):
        through = means.new_ones(height, width)
        picture = means.new_zeros(height, width, colours.shape[-1])
        doubt = means.new_ones(height, width)
        for n in torch.argsort(depths[frame], stable=True).tolist():
            if not (extents[frame, n] > 0).all():
                continue
            dx, dy = x - means[frame, n, 0], y - means[frame, n, 1]
            a, b, c = conics[frame, n]
            raw = opacities[frame % opacities.shape[0], n] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
            alpha = torch.where(raw >= ALPHA_MIN, raw.clamp(max=ALPHA_MAX), torch.zeros_like(raw))
            picture = picture + (through * alpha)[..., None] * colours[frame % colours.shape[0], n]
            through = through * (1 - alpha)
            doubt = torch.minimum(doubt, (raw.detach() / ALPHA_MIN - 1).abs())
        if background is not None:
            picture = picture + through[..., None] * background[frame % background.shape[0]]
        pictures.append(picture)
        alphas.append(1 - through)
        doubts.append(doubt)
    return torch.stack(pictures), torch.stack(alphas), torch.stack(doubts)
