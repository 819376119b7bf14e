"""What the folded convolution means: the doubling and the convolution, one after the other."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def upsample_conv_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Double x [B, I, H, W] by repeating pixels and convolve with weight [O, I, 3, 3] -> [B, O, 2 H, 2 W]."""
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return functional.conv2d(doubled, weight, bias, padding=1)
