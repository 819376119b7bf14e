"""The fast parts as modules that take the place of slower ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kernels.checks import ShapeError
from kernels.group_norm_silu import group_norm_silu
from kernels.upsample_conv import fold, upsample_conv

BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # what x86 and ARM call their instructions


class FusedNorm(nn.Module):
    """Takes the place of a GroupNorm, and of the SiLU after it; channels come second and lie last in memory."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__()
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same size."""
        return group_norm_silu(x.movedim(1, -1), self.groups, self.weight, self.bias, self.eps, self.silu).movedim(-1, 1)


class FusedResidual(nn.Module):
    """Takes the place of a block x + conv_2(SiLU(norm_2(conv_1(SiLU(norm_1(x)))))) that nothing scales or shifts between."""

    def __init__(self, norms: tuple[nn.GroupNorm, nn.GroupNorm], convs: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (FusedNorm(norm, silu=True) for norm in norms)
        self.conv_1, self.conv_2 = convs

    def forward(self, x: Tensor, told: None = None) -> Tensor:
        """[B, C, h, w] -> the same size."""
        if told is not None:
            raise ShapeError(f"told: this block hears nothing, expected None, got {type(told).__name__}; do not accelerate")
        out: Tensor = x + self.conv_2(self.norm_2(self.conv_1(self.norm_1(x))))
        return out


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


def multiplies(dtype: torch.dtype, device: torch.device, known: Mapping[str, object] | None = None) -> bool:
    """Whether a device has instructions that multiply this type; `known` is what a CPU says of itself.

    One that has none for bfloat16 takes every number apart: five times the time of float32 for the same convolution.
    """
    if dtype != torch.bfloat16 or device.type != "cpu":
        return True
    known = torch.cpu.get_capabilities() if known is None else known
    return any(known.get(name, False) for name in BF16)


class Widened(nn.Module):
    """Takes the place of a layer of a type that the device cannot multiply: float32 inside, no less exact."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.dtype = next(layer.parameters()).dtype
        self.layer = layer.float()

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives the type that the layer had."""
        out: Tensor = self.layer(x.float())
        return out.to(self.dtype)
