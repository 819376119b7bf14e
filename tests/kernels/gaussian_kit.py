"""Scenes for the tests of the Gaussian kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.splats import Camera


@dataclass(frozen=True)
class Scene:
    means: Tensor  # [B, N, 3]
    quats: Tensor  # [1, N, 4]
    scales: Tensor  # [1, N, 3]
    opacities: Tensor  # [1, N]
    colours: Tensor  # [1, N, C]
    background: Tensor  # [B, C]
    camera: Camera

    def double(self) -> Scene:
        camera = replace(self.camera, view=self.camera.view.double(), intrinsics=self.camera.intrinsics.double())
        fields = {name: getattr(self, name).double() for name in self.__dataclass_fields__ if name != "camera"}
        return Scene(**fields, camera=camera)


def make_scene(
    frames: int, splats: int, height: int, width: int, channels: int = 3, size: float = 0.3, seed: int = 0, kind: str = "mixed"
) -> Scene:
    """A cloud about the origin, seen by cameras that step back and turn; some splats are off screen or behind.

    Kinds: "mixed"; "solid": a third has an opacity of 1, no other less than 0.6, the first fills the view; "veil": all 0.2.
    """
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(frames, splats, 3, generator=random) * 1.5
    quats = torch.randn(1, splats, 4, generator=random)
    scales = torch.rand(1, splats, 3, generator=random) * size
    opacities = torch.rand(1, splats, generator=random)
    if kind == "solid":
        opacities.clamp_(min=0.6)[:, ::3] = 1.0
        means[:, 0], scales[:, 0] = 0.0, size
    elif kind == "veil":
        opacities.fill_(0.2)
    colours = torch.rand(1, splats, channels, generator=random)
    background = torch.rand(frames, channels, generator=random)
    turn, _ = torch.linalg.qr(torch.eye(3) + 0.2 * torch.randn(frames, 3, 3, generator=random))
    shift = torch.stack([torch.tensor([0.1, -0.1, 3.0 + frame]) for frame in range(frames)])
    view = torch.cat([turn * torch.sign(torch.diagonal(turn, dim1=1, dim2=2))[:, None], shift[..., None]], -1)
    intrinsics = torch.tensor([[0.9 * width, 0.95 * width, 0.48 * width, 0.45 * height]])
    return Scene(means, quats, scales, opacities, colours, background, Camera(view, intrinsics, height, width))


def close(name: str, have: Tensor, want: Tensor, tolerance: float) -> None:
    """Largest difference below `tolerance` times the largest wanted number (at least 1e-6)."""
    assert have.shape == want.shape, f"{name}: {list(have.shape)} is not {list(want.shape)}"
    assert torch.isfinite(have).all(), f"{name}: not finite"
    if have.numel():
        worst = (have.double() - want.double()).abs().max().item()
        assert worst <= tolerance * max(want.abs().max().item(), 1e-6), f"{name}: differs by {worst}"
