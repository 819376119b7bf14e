"""Convolutions with the batch norm behind them, which is folded into their weights once these are loaded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from kernels.upsample_conv import fold as fold_phases

Convolution = nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm2d | nn.BatchNorm3d


class Folds(nn.Module):
    """A part that computes the same with fewer steps once its weights are loaded; folded parts are only used, not saved."""

    def fold(self) -> None:
        """Do it; a second time changes nothing."""
        raise NotImplementedError


def fold_all(net: nn.Module) -> None:
    """Fold every part of a network that folds; it learns nothing from then on."""
    for part in list(net.modules()):
        if isinstance(part, Folds):
            part.fold()
    net.requires_grad_(False)


@torch.no_grad()
def fold_norm(conv: Convolution, norm: Norm) -> None:
    """Put a batch norm behind a convolution into its weights, added up in float64."""
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    share = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * share.view(-1, *[1] * (conv.weight.ndim - 1))
    bias = (conv.bias.double() - norm.running_mean.double()) * share + norm.bias.double()
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)


class ConvNorm(Folds):
    """Convolution, batch norm, ReLU, leaky where a slope is given; `flat` pictures or volumes."""

    norm: nn.Module

    def __init__(self, channels: int, out: int, kernel: int = 3, flat: bool = True, slope: float = 0.0) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if flat else (nn.Conv3d, nn.BatchNorm3d)
        self.conv = conv(channels, out, kernel, padding=kernel // 2)
        self.norm = norm(out)
        self.slope = slope

    def fold(self) -> None:
        """The norm becomes part of the convolution."""
        if isinstance(self.norm, Norm):
            fold_norm(self.conv, self.norm)
            self.norm = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] -> [N, O, ...]."""
        return functional.leaky_relu(self.norm(self.conv(x)), self.slope)


class GrowingConvNorm(ConvNorm):
    """The same for volumes [N, C, D, H, W] whose height and width are doubled before.

    Folded, the convolution reads the small volume: 12 products where 27 were, see `kernels.upsample_conv`.
    """

    phases: torch.Tensor | None

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, flat=False)
        self.register_buffer("phases", None, persistent=False)

    def fold(self) -> None:
        """Four small convolutions, one for each place in a doubled pixel, instead of one on the doubled volume."""
        super().fold()
        if self.phases is None:
            weight = self.conv.weight.detach()  # [O, I, 3, 3, 3], depth first
            self.phases = fold_phases(weight.flatten(1, 2)).unflatten(1, (-1, 3))
            del self.conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, D, H, W] -> [N, O, D, 2 H, 2 W]."""
        if self.phases is None:
            return super().forward(functional.interpolate(x, scale_factor=(1, 2, 2)))
        assert self.conv.bias is not None
        height, width = x.shape[3:]
        every = functional.conv3d(x, self.phases, self.conv.bias.repeat(4), padding=1).unflatten(1, (4, -1))
        parts = [every[:, k, :, :, k // 2 : k // 2 + height, k % 2 : k % 2 + width] for k in range(4)]
        grown = torch.stack([torch.stack(parts[:2], -1), torch.stack(parts[2:], -1)], 4)  # [N, O, D, H, 2, W, 2]
        return functional.relu(grown.flatten(5, 6).flatten(3, 4))


class VolumeBlock(Folds):
    """Norm, ReLU and convolution of a volume, twice, the input added."""

    norm_middle: nn.Module

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_in, self.norm_middle = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)
        self.conv_in, self.conv_out = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))

    def fold(self) -> None:
        """The norm between the convolutions becomes part of the first one; the one before it cannot."""
        if isinstance(self.norm_middle, Norm):
            fold_norm(self.conv_in, self.norm_middle)
            self.norm_middle = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, D, H, W] -> the same."""
        inside = self.norm_middle(self.conv_in(functional.relu(self.norm_in(x))))
        return torch.as_tensor(self.conv_out(functional.relu(inside)) + x)


def chain(sizes: list[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Linear layers from size to size with the activation between them."""
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), activation()]
    return nn.Sequential(*parts[:-1])
