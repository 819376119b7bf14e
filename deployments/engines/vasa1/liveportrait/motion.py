"""From speech to how a face moves: the transformer's numbers in the template's ranges, head and size smoothed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.vasa1.liveportrait.config import SamplingConfig
from deployments.engines.vasa1.liveportrait.keypoints import Face, rotation
from deployments.engines.vasa1.liveportrait.load import Template
from deployments.engines.vasa1.liveportrait.sampling import generate
from deployments.engines.vasa1.liveportrait.transformer import MotionNet

HEAD = 7  # last numbers of a frame: size, shift, pitch, yaw, roll


def motion_of(
    net: MotionNet, template: Template, samples: NDArray[np.float32], frames: int, config: SamplingConfig, seed: int
) -> Face:
    """Motion of `frames` frames of speech [N] at 16 kHz; its own face at rest is of no use and is zero."""
    latents = generate(net, samples, frames, config, seed)[:, : len(template.scale)] * template.scale + template.offset
    return face_of(smoothed(latents, config.smooth))


def smoothed(latents: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """A running mean of size, shift and angles in [T, D]; expression stays as it is."""
    out = latents.copy()
    for row in range(1, len(out)):
        out[row, -HEAD:] = share * out[row, -HEAD:] + (1 - share) * out[row - 1, -HEAD:]
    return out


def face_of(latents: NDArray[np.float32]) -> Face:
    """The face of every row [T, D]."""
    rows = torch.from_numpy(latents)
    expression = rows[:, :-HEAD].unflatten(1, (-1, 3))
    size, shift, angles = rows[:, -7], rows[:, -6:-3], rows[:, -3:]
    return Face(torch.zeros_like(expression[:1]), expression, rotation(*angles.unbind(1)), size, shift)
