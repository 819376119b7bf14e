"""One chunk: rig to pixels, Gaussians to windows in one raster call a batch, fine texture, colours, patch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Avatar, Motion, Patch, Picture, Track
from deployments.engines.gaussian_splatting.avatar import Head, load_head
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.network import DEVICE, Binding, Gaussians, Pose, draw, pose
from deployments.errors import RenderError
from deployments.face.composite import blur
from deployments.retrieval.bank import Bank
from deployments.retrieval.plan import Plan, PlanKey
from deployments.retrieval.settle import settle
from deployments.retrieval.warp import Place, enlarge, warp
from kernels.checks import KernelError
from kernels.gaussian_mix import add_fine, draw_over, mix_mouth
from kernels.mesh_warp import MeshRaster

TILE = 16  # windows are whole tiles, so that what is drawn does not depend on the batch
SURE = 0.5  # alpha below which a drawn colour is too thin to be divided by

Floats = NDArray[np.float32]
Drawn = tuple[Floats, Floats]  # a window's colours [h, w, 3], weighted by alpha, and alpha [h, w]


@dataclass(frozen=True)
class Piece:
    """One frame of a batch that has something to draw."""

    picture: Picture
    row: int
    here: Place


class Stage:
    """A job's plan and its avatar on the device; a worker keeps the last one."""

    def __init__(self, head: Head, motion: Motion, track: Track, config: GaussianConfig) -> None:
        self.head, self.config = head, config
        self.plan = Plan(head.bank, motion, track, config.retrieval)
        self.gaussians, self.binding = shown(head, DEVICE)
        if (self.plan.row >= 0).any():
            self.codes = head.coder.encode(self.plan.wanted, self.plan.faces.angles())
            self.vertices = head.rig.vertices(self.plan.target)

    def patches(self, pictures: Iterable[Picture]) -> Iterator[Patch | None]:
        """One patch or None for every picture."""
        size = self.config.batch if DEVICE.type == "cuda" else 1
        source = iter(pictures)
        while batch := list(islice(source, size)):
            yield from self._batch(batch)

    def _batch(self, batch: list[Picture]) -> Iterator[Patch | None]:
        found = [self._piece(picture) for picture in batch]
        pieces = [piece for piece in found if piece is not None]
        windows = iter(self._draw(pieces) if pieces else ())
        for piece in found:
            yield None if piece is None else self._finish(piece, next(windows))

    def _piece(self, picture: Picture) -> Piece | None:
        found = self.plan.place(picture)
        return None if found is None else Piece(picture, *found)

    def _draw(self, pieces: list[Piece]) -> list[Drawn]:
        """Windows of all pieces, as large as the largest: colours weighted by alpha, and alpha."""
        height, width = (-(-max(p.here.alpha.shape[axis] for p in pieces) // TILE) * TILE for axis in (0, 1))
        rows = [piece.row for piece in pieces]
        vertices = np.stack([self.plan.faces.to_pixels(self.vertices[row], row) for row in rows])
        arrays = (vertices, self.plan.faces.scale[rows], self.codes[rows])
        corners = [(p.here.x, p.here.y) for p in pieces]
        try:
            return drawn(self.gaussians, self.binding, arrays, corners, (height, width))
        except KernelError as error:
            raise RenderError(f"gaussian_splatting could not draw {len(pieces)} frames of {width}x{height}: {error}") from error

    def _finish(self, piece: Piece, window: Drawn) -> Patch:
        """The coarse band is Gaussians and retrieved mouths, the fine band the nearest filmed mouth; colours by the rim."""
        here, share = piece.here, self.config.retrieved_share
        height, width = here.alpha.shape
        nearest, others, first = self._retrieved(piece, share > 0)
        # where hardly any Gaussian is, the filmed mouth is
        base, apart = mix_mouth(draw_over(*window, nearest, SURE), nearest, others, first, share)
        textured = add_fine(base, apart, blur(apart), self.config.texture_gain, np.ones((height, width), np.float32))
        frame = piece.picture.window(here.x, here.y, width, height).astype(np.float32)
        return settle(here, frame, textured)

    def _retrieved(self, piece: Piece, mean: bool) -> tuple[Floats, Floats, float]:
        """The nearest retrieved mouth warped onto this frame, the weighted sum of the others, and the first one's weight."""
        rows, weights = self.plan.choice.rows[piece.row], self.plan.choice.weights[piece.row]
        return filmed_mouths(self.head.bank, piece.here.raster, rows, weights if mean else weights[:0])


def drawn(
    avatar: Gaussians, binding: Binding, arrays: tuple[Floats, ...], corners: list[tuple[int, int]], size: tuple[int, int]
) -> list[Drawn]:
    """Windows of `size` (height, width) at `corners` (x, y), of vertices [B, V, 3], scale [B] and code [B, C]."""
    at = Pose(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(DEVICE) for a in arrays))
    with torch.inference_mode():
        picture = draw(pose(avatar, binding, at), torch.tensor(corners, dtype=torch.float32, device=DEVICE), *size)
    return list(zip(picture.colours.cpu().numpy(), picture.alpha.cpu().numpy(), strict=True))


def filmed_mouths(bank: Bank, raster: MeshRaster, rows: NDArray[np.int32], weights: Floats) -> tuple[Floats, Floats, float]:
    """The nearest mouth [h, w, 3], the weighted sum of the others [h, w, 3], read at half size, and the first one's weight.

    What `blend` gives, with its sum left to whoever mixes them; without weights the nearest stands alone.
    """
    nearest = warp(bank, raster, int(rows[0]), cv2.INTER_CUBIC)
    if not len(weights):
        return nearest, np.zeros_like(nearest), 1.0
    height, width = raster.index.shape
    half = raster.window(slice(0, height, 2), slice(0, width, 2))
    others = np.zeros((*half.index.shape, 3), np.float32)
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        cv2.scaleAdd(warp(bank, half, int(row), cv2.INTER_LINEAR), float(weight), others, others)
    return nearest, enlarge(others, width, height), float(weights[0])


def shown(head: Head, device: torch.device) -> tuple[Gaussians, Binding]:
    """The Gaussians of triangles that a mask shows, on the device."""
    alpha = np.concatenate([head.bank.mesh.alpha, np.ones(2 * len(head.rig.upper), np.float32)])
    visible = torch.from_numpy(alpha[head.rig.triangles].max(1) > 0)[head.binding.owner]
    cut = {
        name: (value[:, visible] if name.endswith("_basis") else value[visible]).contiguous().to(device)
        for name, value in vars(head.gaussians).items()
    }
    own = head.binding
    kept = replace(own, owner=own.owner[visible], weights=own.weights[visible], layer=own.layer[visible])
    return Gaussians(**cut), kept.to(device)


@lru_cache(maxsize=1)
def stage_of(key: PlanKey, config: GaussianConfig) -> Stage:
    """The stage of a job."""
    return Stage(load_head(key.avatar.path), key.motion, key.track, config)


def render(
    avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, config: GaussianConfig
) -> Iterator[Patch | None]:
    """Patches of a span's frames."""
    yield from stage_of(PlanKey(avatar, motion, track, config.retrieval), config).patches(pictures)
