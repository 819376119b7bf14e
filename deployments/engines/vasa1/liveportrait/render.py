"""One portrait: what is made of the photo once, and frames of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.vasa1.liveportrait.config import CropConfig
from deployments.engines.vasa1.liveportrait.keypoints import Face, moved, read_face
from deployments.engines.vasa1.liveportrait.load import PortraitNets
from deployments.engines.vasa1.liveportrait.square import cut_small, paste_of, square_of

TOGETHER = 4  # frames that a GPU draws at once


class Portrait:
    """A photo [H, W, 3] whose face [478, 3] moves."""

    def __init__(self, nets: PortraitNets, photo: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> None:
        self.nets, self.photo, side = nets, photo, nets.config.side
        square = square_of(landmarks, 2 * side, CropConfig())
        self.paste = paste_of(square, photo.shape, CropConfig())
        picture = torch.from_numpy(cut_small(photo, square, side)).permute(2, 0, 1)[None].to(nets.device) / 255
        with torch.inference_mode():
            self.volume = nets.appearance(picture).to(nets.dtype)
            self.source = read_face(nets.pose(picture))
            self.points = self.source.points()

    def faces(self, motion: Face, head: float = 1.0, lips: float = 1.0, nearer: float = 1.0) -> Iterator[NDArray[np.uint8]]:
        """Drawn squares [S, S, 3] of the motion's frames; the amounts are those of `keypoints.moved`."""
        with torch.inference_mode():
            goals = moved(self.source, on(motion, self.nets.device), head, lips, nearer).points()
            goals = self.nets.stitching(self.points, goals)
        for few in goals.split(TOGETHER if self.nets.device.type == "cuda" else 1):
            yield from self.draw(few)

    def draw(self, goals: torch.Tensor) -> NDArray[np.uint8]:
        """The squares [B, S, S, 3] whose key points are [B, P, 3]."""
        with torch.inference_mode():
            features = self.nets.warping(self.volume, self.points, goals)
            pictures = self.nets.generator(features).permute(0, 2, 3, 1)
            pixels = (pictures.float() * 255).round().clamp(0, 255).to(torch.uint8)
        return pixels.contiguous().cpu().numpy()

    def frames(self, motion: Face, head: float = 1.0, lips: float = 1.0, nearer: float = 1.0) -> Iterator[NDArray[np.uint8]]:
        """The photo with each of the drawn squares in its place."""
        for face in self.faces(motion, head, lips, nearer):
            yield self.paste.put(self.photo, face)


def on(face: Face, device: torch.device) -> Face:
    """The same face on a device."""
    return Face(**{field.name: getattr(face, field.name).to(device) for field in fields(Face)})
