"""G: features to the picture; every norm is told the features again (SPADE: Park et al. 2019, arXiv 1903.07291)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import PortraitNetsConfig
from deployments.engines.vasa1.liveportrait.enlarged import EnlargedConv
from deployments.engines.vasa1.liveportrait.layers import Folds

SLOPE = 0.2


class Modulation(nn.Module):
    """What one norm is told: gain and offset of C channels at every pixel, from the features."""

    def __init__(self, channels: int, features: int, told: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(features, told, 3, padding=1)
        self.gain, self.offset = (nn.Conv2d(told, channels, 3, padding=1) for _ in range(2))


class StyledBlock(Folds):
    """Two convolutions behind told norms, the input added, told itself where the width changes.

    Folded, all norms of the block read the features, enlarged as often as the picture has grown, by one convolution on
    the small map; gain and offset of a norm come from one convolution.
    """

    def __init__(self, channels: int, out: int, features: int, told: int, times: int) -> None:
        super().__init__()
        middle = min(channels, out)
        self.times = times
        self.conv_in = nn.Conv2d(channels, middle, 3, padding=1)
        self.conv_out = nn.Conv2d(middle, out, 3, padding=1)
        self.norms = nn.ModuleDict({"first": Modulation(channels, features, told), "second": Modulation(middle, features, told)})
        if channels != out:
            self.conv_skip = nn.Conv2d(channels, out, 1, bias=False)
            self.norms["skip"] = Modulation(channels, features, told)
        self.read: EnlargedConv | None = None
        self.tell = nn.ModuleDict()

    def fold(self) -> None:
        """Join the convolutions that read the same."""
        if self.read is not None:
            return
        parts = [part for part in self.norms.values() if isinstance(part, Modulation)]
        assert all(part.shared.bias is not None for part in parts)
        weight = torch.cat([part.shared.weight for part in parts])
        self.read = EnlargedConv(weight, torch.cat([part.shared.bias for part in parts]), self.times)  # type: ignore[misc]
        for name, part in self.norms.items():
            assert isinstance(part, Modulation)
            self.tell[name] = joined(part.gain, part.offset)
        self.norms = nn.ModuleDict()

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """x [N, C, H, W] -> [N, O, H, W] after doubling wherever this block is where the picture grows."""
        told = self._listen(features)
        still = functional.instance_norm(x)
        if self.times > 1:  # a doubled picture has the same mean and spread
            x, still = (functional.interpolate(y, scale_factor=2.0) for y in (x, still))
        inside = functional.leaky_relu(self._told(still, "first", told), SLOPE)
        inside = functional.instance_norm(self.conv_in(inside))
        inside = self.conv_out(functional.leaky_relu(self._told(inside, "second", told), SLOPE))
        skip = self.conv_skip(self._told(still, "skip", told)) if "skip" in told else x
        return torch.as_tensor(skip + inside)

    def _listen(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.read is not None:
            return dict(zip(self.tell, functional.relu(self.read(features)).chunk(len(self.tell), 1), strict=True))
        large = functional.interpolate(features, scale_factor=float(self.times))
        return {name: functional.relu(part.shared(large)) for name, part in self.norms.items() if isinstance(part, Modulation)}

    def _told(self, still: torch.Tensor, name: str, told: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.read is not None:
            gain, offset = self.tell[name](told[name]).chunk(2, 1)
            return torch.addcmul(offset, still, gain)
        part = self.norms[name]
        assert isinstance(part, Modulation)
        return still * (1 + part.gain(told[name])) + part.offset(told[name])


def joined(gain: nn.Conv2d, offset: nn.Conv2d) -> nn.Conv2d:
    """One convolution that answers 1 + gain, then offset."""
    assert gain.bias is not None and offset.bias is not None
    both = nn.Conv2d(gain.in_channels, 2 * gain.out_channels, 3, padding=1).to(gain.weight)
    with torch.no_grad():
        both.weight.copy_(torch.cat([gain.weight, offset.weight]))
        both.bias.copy_(torch.cat([1 + gain.bias, offset.bias]))  # type: ignore[union-attr]
    return both


class Generator(nn.Module):
    """Features [N, 256, S, S] -> picture [N, 3, 8 S, 8 S] in 0..1."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        features, sizes = config.warp.width, config.generator
        wide = 2 * features
        self.enter = nn.Conv2d(features, wide, 3, padding=1)
        self.middle = nn.ModuleList(StyledBlock(wide, wide, features, sizes.told, 1) for _ in range(sizes.middle))
        self.grow = nn.ModuleList(
            [StyledBlock(wide, features, features, sizes.told, 2), StyledBlock(features, sizes.last, features, sizes.told, 4)]
        )
        self.leave = nn.Conv2d(sizes.last, 12, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The blocks of `grow` double the picture before they work; the last layer doubles it by shuffling pixels."""
        x = self.enter(features)
        for block in [*self.middle, *self.grow]:
            x = block(x, features)
        return functional.pixel_shuffle(self.leave(functional.leaky_relu(x, SLOPE)), 2).sigmoid()
