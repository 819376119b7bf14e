"""A synthetic head for timing: many small Gaussians on an ellipsoid that fills most of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.splats import Camera

DISTANCE = 2.0
FOOTPRINT = 55.0  # pixels with an alpha of at least 1/255 that a splat covers on average, as on fitted heads


@dataclass(frozen=True)
class Head:
    means: Tensor  # [B, N, 3], every frame moved a little
    quats: Tensor  # [1, N, 4]
    scales: Tensor  # [1, N, 3]
    opacities: Tensor  # [1, N]
    colours: Tensor  # [1, N, 3]
    camera: Camera

    def inputs(self) -> list[Tensor]:
        return [self.means, self.quats, self.scales, self.opacities, self.colours]


def make_head(frames: int, splats: int, height: int, width: int, device: str = "cpu", seed: int = 0) -> Head:
    """The same head for the same numbers, on any device."""
    random = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(1, splats, 3, generator=random), dim=-1)
    focal = float(min(height, width))
    half = torch.tensor([0.28 * focal, 0.40 * focal, 0.30 * focal]) * DISTANCE / focal
    means = direction * half + 0.004 * torch.randn(frames, 1, 3, generator=random)
    spread = (FOOTPRINT / 31) ** 0.5 * DISTANCE / focal * 0.76
    scales = torch.exp(0.4 * torch.randn(1, splats, 3, generator=random)) * spread
    uniform = torch.rand(1, splats, generator=random)
    opacities = 0.02 + 0.97 * uniform.sqrt()  # most are rather opaque
    view = torch.eye(4)[None, :3].clone()
    view[:, 2, 3] = DISTANCE
    intrinsics = torch.tensor([[focal, focal, (width - 1) / 2, (height - 1) / 2]])
    quats, colours = torch.randn(1, splats, 4, generator=random), torch.rand(1, splats, 3, generator=random)
    moved = [t.to(device) for t in (means, quats, scales, opacities, colours)]
    return Head(*moved, Camera(view.to(device), intrinsics.to(device), height, width))
