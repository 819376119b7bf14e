"""The fast parts as modules that take the place of slower ones."""

from __future__ import annotations

from torch import Tensor, nn

from kernels.checks import ShapeError
from kernels.group_norm_silu import group_norm_silu
from kernels.upsample_conv import fold, upsample_conv


class FusedNorm(nn.Module):
    """Takes the place of a GroupNorm, and of the SiLU after it; channels come second and lie last in memory."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__()
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same size."""
        return group_norm_silu(x.movedim(1, -1), self.groups, self.weight, self.bias, self.eps, self.silu).movedim(-1, 1)


class FoldedUpsample(nn.Module):
    """Takes the place of a nearest doubling with a 3x3 convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(fold(conv.weight.detach()), requires_grad=False)
        self.bias = conv.bias

    def forward(self, hidden_states: Tensor, output_size: object = None) -> Tensor:
        """[B, I, H, W] -> [B, O, 2 H, 2 W]."""
        if output_size is not None:
            raise ShapeError(f"output_size: this upsampler doubles, expected None, got {output_size}; do not accelerate")
        return upsample_conv(hidden_states, self.weight, self.bias)
