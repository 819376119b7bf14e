"""What the decoder sees of one frame, in its window: the pictures to mix, the frame around them, the mesh."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.appearance import Appearance
from deployments.face.composite import match_rim
from deployments.face.landmarks import LIPS_INNER, LIPS_OUTER
from deployments.retrieval.bank import Bank
from deployments.retrieval.warp import read_at, soft_mask
from deployments.retrieval.window import Bytes, Floats, Window, scale_of
from kernels.mesh_warp import MeshRaster, rasterize

SHOWN = 0.02  # of the mask: from here on the frame's own pixels are hidden from the decoder
SOFT = 1.5  # window pixels: finer than this, looked-up pictures are right where the painted one is smooth
SUBPIXEL = 4  # bits of a polygon's corners


@dataclass(frozen=True)
class Sample:
    """Pictures are 0..1, n = looked-up ones and, last, the one that the appearance model paints."""

    pictures: Floats  # [n + 1, 3, H, W] matched to the frame's colours
    lift: Floats  # [3, H, W] what the painted one adds to the mean of the others
    extra: Floats  # [8, H, W]
    weights: Floats  # [n + 1] sum 1: how they are mixed before the decoder has a say
    alpha: Floats  # [H, W]

    def planes(self) -> Floats:
        """Input planes [3 (n + 1) + 8, H, W] of the decoder."""
        return np.concatenate([self.pictures.reshape(-1, *self.alpha.shape), self.extra])


@dataclass(frozen=True)
class Told:
    """What is decided for a frame before it is drawn."""

    target: Floats  # [U, 2] mesh vertices, window pixels
    rows: NDArray[np.int32]  # [n] looked-up pictures
    weights: Floats  # [n]
    code: Floats  # [K] guessed look
    share: float  # of the painted picture in the first mix


@dataclass(frozen=True)
class Sources:
    """Where a person's looked-up pictures come from."""

    bank: Bank
    small: Bytes  # [F, h, w, 3] the bank's pictures at the window's scale
    window: Window


@dataclass(frozen=True)
class Looked:
    """The pictures of a frame in its window, 0..255."""

    raster: MeshRaster
    alpha: Floats  # [H, W]
    pictures: Floats  # [n + 1, H, W, 3]
    lift: Floats  # [3, H, W] what the painted one adds to the mean of the others, 1 = white


def look_up(sources: Sources, appearance: Appearance, told: Told, frame: Floats) -> Looked:
    """The looked-up pictures and the painted one of a frame that the window shows as `frame` [H, W, 3], 0..255."""
    bank, window = sources.bank, sources.window
    raster = rasterize(bank.mesh.triangles, told.target, window.height, window.width)
    alpha = soft_mask(bank, raster, told.target)
    scale = scale_of(bank, sources.small)
    pictures = np.empty((len(told.rows) + 1, window.height, window.width, 3), np.float32)
    for k, row in enumerate(told.rows):
        source = raster.values((bank.vertices[row] + 0.5) * scale - 0.5, fill=0.0)
        pictures[k] = read_at(sources.small[row], source)
    pictures[-1] = appearance.picture(told.code, raster)
    mean = np.tensordot(told.weights, pictures[:-1], 1)
    matched = match_rim(mean, frame, alpha)
    pictures[:-1] += matched - mean
    lift = cv2.GaussianBlur(match_rim(pictures[-1], frame, alpha) - matched, (0, 0), SOFT, borderType=cv2.BORDER_REPLICATE)
    pictures[-1] = matched + lift
    return Looked(raster, alpha, pictures, lift.transpose(2, 0, 1) / np.float32(255))


def make_sample(sources: Sources, appearance: Appearance, told: Told, frame: Floats) -> Sample:
    """The decoder's view of a frame that the window shows as `frame` [H, W, 3], 0..255."""
    looked = look_up(sources, appearance, told, frame)
    weights = np.append((1 - told.share) * told.weights, told.share).astype(np.float32)
    place = looked.raster.values(place_on_face(sources.bank), 0.0)
    planes = looked.pictures.transpose(0, 3, 1, 2) / np.float32(255)
    return Sample(planes, looked.lift, extra_planes(place, told.target, frame, looked.alpha), weights, looked.alpha)


def place_on_face(bank: Bank) -> Floats:
    """Coordinates [U, 2] of the mesh vertices on the mean face, about -1..1."""
    mean = bank.shape.mean[:, :2]
    return np.ascontiguousarray(mean - (0.0, 0.9), np.float32)


def extra_planes(place: Floats, target: Floats, frame: Floats, alpha: Floats) -> Floats:
    """Planes [8, H, W]: the frame where it stays, place on the face, lips, inner mouth, mask."""
    kept = (alpha <= SHOWN)[..., None] * frame / 255
    polygons = [polygon(target[list(ring)], alpha.shape) for ring in (LIPS_OUTER, LIPS_INNER)]
    return np.concatenate([kept.transpose(2, 0, 1), place.transpose(2, 0, 1), np.stack([*polygons, alpha])]).astype(np.float32)


def polygon(points: Floats, shape: tuple[int, ...]) -> Floats:
    """Filled polygon [H, W] of corners [P, 2], 0..1, smooth at its rim."""
    mask: Bytes = np.zeros(shape, np.uint8)
    corners = np.round(points * 2**SUBPIXEL).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, SUBPIXEL)
    return np.asarray(mask / np.float32(255), np.float32)
