"""What the fused normalisation means: torch, any float type, autograd."""

from __future__ import annotations

from torch import Tensor


def group_norm_silu_reference(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """Normalise x [B, ..., C] over each group of C / groups channels and all places, scale, shift, then SiLU."""
    parts = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = parts.mean((1, 3), keepdim=True)
    variance = ((parts - mean) ** 2).mean((1, 3), keepdim=True)
    y = ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return y * y.sigmoid() if silu else y
