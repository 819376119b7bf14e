"""Scenes for the tests of paste_back: frames, patches and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.paste_back import Nv12, feather
from kernels.paste_back.reference import paste_back_reference


def placed(scale: float, degrees: float, x: float, y: float) -> list[list[float]]:
    """A similarity from patch to frame pixels."""
    turn = scale * np.exp(1j * np.radians(degrees))
    return [[turn.real, -turn.imag, x], [turn.imag, turn.real, y]]


# frame (height, width), patch (height, width), matrices of the frames
SCENES = {
    "one pixel": ((1, 1), (1, 1), [placed(1, 0, 0, 0)]),
    "small": ((13, 19), (7, 11), [placed(0.8, -15, 4.3, 5.1)]),
    "one frame": ((25, 45), (17, 33), [placed(1.1, 12, 4.3, 1.8)]),
    "odd and turned": ((41, 57), (17, 33), [placed(0.9, 20, 14.3, 7.8), placed(1.3, -35, 5.2, 15.1)]),
    "over the borders": ((24, 30), (17, 33), [placed(1.1, 5, -9.6, -4.4), placed(1, 170, 34.3, 25.7)]),
    "one lies outside": ((24, 30), (17, 33), [placed(1, 0, 200, 3), placed(0.7, 10, 3.3, 2.2)]),
    "a thin frame": ((64, 2), (9, 12), [placed(1.0, 88, 3.5, 9.2)]),
}
# what the interpreter, which is slow, is shown: every type and kind of frame once or twice
INTERPRETED: list[dict[str, Any]] = [
    {"name": "one pixel", "dtype": torch.uint8, "match": False, "nv12": Nv12()},
    {"name": "small", "dtype": torch.bfloat16, "textured": True, "match": False},
    {"name": "one frame", "dtype": torch.uint8},
    {"name": "one frame", "nv12": Nv12("bt601", True)},
    {"name": "over the borders", "dtype": torch.float16, "match": False},
]


@dataclass(frozen=True)
class Scene:
    frames: Tensor
    patches: Tensor
    mask: Tensor
    matrices: Tensor
    texture: Tensor | None
    gain: float
    match: bool
    nv12: Nv12 | None

    def arguments(self) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], dict[str, Any]]:
        inputs = self.frames.clone(), self.patches, self.mask, self.matrices
        return inputs, {"texture": self.texture, "gain": self.gain, "match": self.match, "nv12": self.nv12}


def make_scene(
    name: str, dtype: torch.dtype = torch.float32, textured: bool = False, match: bool = True, nv12: Nv12 | None = None
) -> Scene:
    """Smooth colours with noise; a mask of its own for each frame where `textured`, else one for all."""
    (height, width), (tall, wide), matrices = SCENES[name]
    if nv12:
        height, width = 2 * -(-height // 2), 2 * -(-width // 2)
    random = torch.Generator().manual_seed(3)
    batch = len(matrices)
    shape = (batch, height * 3 // 2, width) if nv12 else (batch, height, width, 3)
    frames = torch.randint(60, 200, shape, generator=random, dtype=torch.uint8)
    pictures = (torch.rand(2, batch, tall, wide, 3, generator=random) * 250).to(dtype)
    mask = feather(tall, wide, 9.0) if min(tall, wide) > 2 else torch.full((1, tall, wide), 0.7)
    if textured:
        mask = mask * torch.linspace(0.9, 1, batch)[:, None, None]
    place = torch.tensor(matrices, dtype=torch.float64)
    return Scene(frames, pictures[0], mask, place, pictures[1] if textured else None, 0.6, match, nv12)


def wanted(scene: Scene) -> Tensor:
    """Every frame as the reference has it, before rounding."""
    found = []
    for b in range(len(scene.frames)):
        frame, patch, matrix = scene.frames[b].numpy(), scene.patches[b].double().numpy(), scene.matrices[b].numpy()
        mask = scene.mask[b % len(scene.mask)].double().numpy()
        texture = None if scene.texture is None else scene.texture[b].double().numpy()
        found.append(paste_back_reference(frame, patch, mask, matrix, texture, scene.gain, scene.match, scene.nv12))
    return torch.from_numpy(np.stack(found))


def check(found: Tensor, scene: Scene, tolerance: float) -> None:
    """Within rounding of the reference, and where that leaves a byte alone equal to the bit."""
    pixels = wanted(scene)
    assert found.dtype == torch.uint8 and found.shape == scene.frames.shape
    assert (found.double() - pixels).abs().max() <= 0.5 + tolerance
    alone = pixels == scene.frames.double()
    assert torch.equal(found[alone], scene.frames[alone])
