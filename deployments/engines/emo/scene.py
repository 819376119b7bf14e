"""The training-free picture as the networks see it: looked-up mouths on the wanted mesh, in the mouth window.

Only the plan and the bank are needed, no pixel of the frame: so a chunk can make the pictures of its neighbours' frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Track
from deployments.engines.emo.autoencoder import FACTOR
from deployments.engines.emo.config import WindowConfig
from deployments.face.landmarks import LIPS_INNER, LIPS_OUTER
from deployments.face.mesh import smoothstep
from deployments.retrieval.bank import Bank
from deployments.retrieval.warp import read_at, soft_mask
from deployments.retrieval.window import Bytes, Floats, Window, scale_of, window_around
from kernels.mesh_warp import MeshRaster, rasterize

GREY = 0.5
RIM = 8  # window pixels over which the generated part fades to the window's border
SUBPIXEL = 4  # bits of a polygon's corners
GUESS_LIMIT = 3.0  # spreads: a wild wish stays a mouth
SPEEDS = ((0.0, 0.004), (0.006, 0.006), (0.015, 0.01), (0.03, 0.02), (0.06, 0.04))  # centre, radius: radians a frame
JUMP = 4  # frames: rows farther apart do not follow one another


@dataclass(frozen=True)
class Start:
    """One frame before anything is generated."""

    picture: Floats  # [3, H, W] 0..1, grey where the mask hides it
    planes: Floats  # [8, H/4, W/4]
    alpha: Floats  # [H, W] the mask
    raw: Floats  # [H, W, 3] 0..255, the picture without grey
    raster: MeshRaster


@dataclass(frozen=True)
class Scene:
    """Where a person's looked-up mouths come from."""

    bank: Bank
    small: Bytes  # [F, h, w, 3] the bank's pictures at the window's scale
    window: Window

    def start(self, target: Floats, rows: NDArray[np.int32], weights: Floats) -> Start:
        """The picture of mesh vertices `target` [U, 2] (window pixels) from bank rows [n] and their weights [n]."""
        bank, window = self.bank, self.window
        raster = rasterize(bank.mesh.triangles, target, window.height, window.width)
        alpha = soft_mask(bank, raster, target)
        pictures = [self.warped(raster, int(row)) for row in rows]
        mean = np.tensordot(weights, np.stack(pictures), 1).astype(np.float32)
        place = raster.values(np.ascontiguousarray(bank.shape.mean[:, :2] - (0.0, 0.9), np.float32), 0.0)
        rings = [polygon(target[list(ring)], alpha.shape) for ring in (LIPS_OUTER, LIPS_INNER)]
        planes = np.dstack([alpha, *rings, place, (pictures[0] - mean) / 255])
        height, width = (side // FACTOR for side in alpha.shape)
        pooled = np.ascontiguousarray(planes.reshape(height, FACTOR, width, FACTOR, -1).mean((1, 3)).transpose(2, 0, 1))
        return Start(shown(mean, alpha), pooled.astype(np.float32), alpha, mean, raster)

    def warped(self, raster: MeshRaster, row: int) -> Floats:
        """A bank picture on a raster's mesh [h, w, 3], 0..255."""
        scale = scale_of(self.bank, self.small)
        source = raster.values((self.bank.vertices[row] + np.float32(0.5)) * scale - np.float32(0.5), fill=0.0)
        return read_at(self.small[row], source).astype(np.float32)


def mouth_window(bank: Bank, config: WindowConfig) -> Window:
    """The window around all that the lips ever do."""
    lips = bank.shape.shape(bank.coefficients)[:, list(LIPS_OUTER), :2]
    return window_around(bank, lips, config.margin, config.density, config.pixels)


def face_window(bank: Bank, config: WindowConfig) -> Window:
    """The window of all that is ever shown, small."""
    points = bank.shape.shape(bank.coefficients)[:, bank.mesh.alpha > 0, :2]
    return window_around(bank, points, 0.06, config.colour_density, config.pixels)


def shown(picture: Floats, alpha: Floats) -> Floats:
    """Picture [H, W, 3], 0..255 -> [3, H, W], 0..1, grey where the mask hides it."""
    out = GREY + alpha[..., None] * (picture / 255 - GREY)
    return np.ascontiguousarray(out.transpose(2, 0, 1), np.float32)


def rim(window: Window) -> Floats:
    """Share [H, W] of the generated part: 1 inside, 0 at the window's border."""
    sides = [np.minimum(np.arange(n), np.arange(n)[::-1]).astype(np.float32) for n in (window.height, window.width)]
    return np.asarray(np.minimum.outer(*(smoothstep(side / np.float32(RIM)) for side in sides)), np.float32)


def detail(difference: Floats, window: Window, config: WindowConfig) -> Floats:
    """A difference of pictures [H, W, 3] without what changes slowly over the face: light is matched, not generated."""
    sigma = config.light * window.density
    return np.asarray(difference - cv2.GaussianBlur(difference, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def polygon(points: Floats, shape: tuple[int, ...]) -> Floats:
    """Filled polygon [H, W] of corners [P, 2], 0..1, smooth at its rim."""
    mask: Bytes = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 2**SUBPIXEL).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL)
    return np.asarray(mask / np.float32(255), np.float32)


def told_of(bank: Bank, wanted: Floats, angles: Floats, frames: NDArray[np.int64]) -> Floats:
    """Numbers [T, 16] told of rows that show `frames` [T]: lip shape in the person's own spread, head angles, speed."""
    own = bank.coefficients
    shape = np.clip((wanted - own.mean(0)) / (own.std(0) + 1e-3), -GUESS_LIMIT, GUESS_LIMIT)
    turn = np.clip(5 * (angles - bank.angles.mean(0)), -GUESS_LIMIT, GUESS_LIMIT)
    return np.concatenate([shape, turn, speeds(angles, frames)], axis=1).astype(np.float32)


def speeds(angles: Floats, frames: NDArray[np.int64]) -> Floats:
    """How fast the head turns [T, 5]: EMO's buckets, tanh(3 (w - c) / r)."""
    pace = np.linalg.norm(np.diff(angles, axis=0), axis=1) / np.maximum(np.diff(frames), 1)
    pace = np.concatenate([pace[:1], pace]) if len(pace) else np.zeros(len(angles))
    centre, radius = np.array(SPEEDS).T
    return np.tanh(3 * (pace[:, None] - centre) / radius).astype(np.float32)


def runs_of(frames: NDArray[np.int64], track: Track) -> NDArray[np.int64]:
    """Number [T] of the run of frames that follow one another in one shot."""
    breaks = (np.diff(frames) > JUMP) | (np.diff(track.shot[frames]) != 0)
    return np.concatenate([[0], np.cumsum(breaks)]).astype(np.int64)
