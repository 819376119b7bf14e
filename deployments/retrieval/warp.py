"""Remembered pictures seen through the mesh of another moment: the training-free picture that every engine starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.mesh import JAW, smoothstep
from deployments.retrieval.bank import Bank
from kernels.mesh_warp import MeshRaster, rasterize

FEATHER = 0.03  # eye distances: sigma of the blur of mask and movement
BELOW_JAW = 0.06  # eye distances below the jaw that may change: twice the feather, so that the jaw itself shows whole
EVEN = 2  # windows start on even pixels, where chroma samples lie
SMALLEST = 8  # pixels a side
LEAST_SIGMA = 0.8  # pixels
FINE = 2.0  # sigma of the blur, in points, that the points of a smooth field carry
SUBPIXEL = 4  # binary digits of a polygon's corners
HARDLY, WELL = 0.25, 0.55  # of a triangle's area now: what a picture shows smaller is not, and what it shows larger is, trusted
SMALLEST_TRIANGLE = 1e-5  # square eye distances: smaller ones are seen from the side themselves
STILL = 0.1  # pixels: what moves less is as it was filmed

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """Where the lower face goes in one frame: a window at (x, y), its mesh raster, how much of a new picture shows in it
    [h, w], and how far away what was filmed there now lies [h, w, 2] (x, y; pixels)."""

    x: int
    y: int
    raster: MeshRaster
    alpha: NDArray[np.float32]
    way: NDArray[np.float32]
    skin: NDArray[np.float32] | None = None  # [h, w] 0 at the lips, 1 away from them; None: not known
    unit: float = 1.0  # eye distance in pixels


def place(
    bank: Bank, target: Floats, filmed: Floats, size: tuple[int, ...], skin: NDArray[np.float32] | None = None
) -> Place | None:
    """The place of mesh vertices `target` [U, 2] (pixels) in a picture of `size` (height, width); None if off screen.

    `filmed` [U, 2] is where the picture itself has them; `skin` [U] is 0 at the lips and 1 away from them.
    """
    box = mesh_box(bank, target, size)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    raster = rasterize(bank.mesh.triangles, target, y1 - y0, x1 - x0, (x0, y0))
    alpha = soft_mask(bank, raster, target - np.array([x0, y0], np.float32))
    way = smooth(raster, filmed - target, target)
    rows, columns = shown(np.maximum(alpha, longest(way) > STILL))
    corner, part = (x0 + columns.start, y0 + rows.start), (rows, columns)
    away = None if skin is None else smooth(raster, skin[:, None], target)[part]
    return Place(*corner, raster.window(*part), alpha[part], way[part], away, eye_distance(target))


def soft_mask(bank: Bank, raster: MeshRaster, target: Floats) -> Floats:
    """Mask [h, w] of the mesh's vertex alphas inside the jaw of `target` [U, 2] (the raster's pixels), softened in
    proportion to the face.

    Neck and collar do not move with the head: a remembered one below the jaw would be a second collar.
    """
    unit = eye_distance(target)
    jaw = target[JAW,]
    outward = jaw - jaw.mean(0)
    outward *= 1 + BELOW_JAW * unit / np.maximum(np.hypot(*outward.T), 1e-3)[:, None]
    mask = smooth(raster, bank.mesh.alpha[:, None], target, cv2.convexHull(jaw.mean(0) + outward))
    mask[(raster.index < 0) | (mask < 1 / 255)] = 0
    return mask


def unseen(bank: Bank, target: Floats, rows: NDArray[np.int32], weights: Floats, skin: Floats) -> Floats:
    """How little of the skin at mesh vertices `target` [U, 2] the chosen pictures `rows` [n] saw [U], 0..1.

    The cheek of a turned head is a few pixels wide; pulled out to its full width it would be a smear of what is behind it.
    """
    triangles, unit = bank.mesh.triangles, eye_distance(target)
    here = areas(target, triangles) / unit**2
    hidden = np.zeros(len(triangles), np.float32)
    for row, weight in zip(rows, weights, strict=True):
        seen = areas(bank.vertices[row], triangles) / eye_distance(bank.vertices[row]) ** 2
        part = np.where(here > SMALLEST_TRIANGLE, seen / np.maximum(here, SMALLEST_TRIANGLE), np.float32(1))
        share = ((part - HARDLY) / (WELL - HARDLY)).astype(np.float32)
        hidden += weight * (1 - smoothstep(share))
    out = np.zeros(len(target), np.float32)
    for corner in triangles.T:
        np.maximum.at(out, corner, hidden)
    return out * skin


def areas(points: Floats, triangles: NDArray[np.int32]) -> Floats:
    """Signed areas [M] of triangles over points [U, 2]; those seen from behind are negative."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    return np.asarray(0.5 * (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]), np.float32)


def veiled(here: Place, hidden: Floats, target: Floats) -> Place:
    """The place, showing less of the new picture where vertices are `hidden` [U]."""
    origin = np.array([here.x, here.y], np.float32)
    veil = smooth(here.raster, hidden[:, None], target - origin)
    return replace(here, alpha=here.alpha * (1 - np.clip(veil, 0, 1)))


def smooth(raster: MeshRaster, corners: Floats, target: Floats, inside: Floats | None = None) -> Floats:
    """Corner values [U, C] over the raster [h, w, C] (C = 1: [h, w]), 0 outside it and outside the convex polygon `inside`
    [P, 1, 2], blurred in proportion to the face: where a turned cheek folds its triangles over one another, what is
    filmed there would be torn."""
    sigma = max(LEAST_SIGMA, FEATHER * eye_distance(target))
    # a field this smooth needs no more points than the blur leaves
    step = max(1, int(sigma / FINE))
    height, width = raster.index.shape
    sparse = raster.window(slice(0, height, step), slice(0, width, step)) if step > 1 else raster
    field = sparse.values(corners, fill=0.0)
    if inside is not None:
        kept = np.zeros(field.shape[:2], np.uint8)
        cv2.fillConvexPoly(kept, np.rint(inside / step * 2**SUBPIXEL).astype(np.int32), 1, shift=SUBPIXEL)
        field *= kept[..., None]
    soft = np.asarray(cv2.GaussianBlur(field, (0, 0), sigma / step), np.float32)
    return enlarge(soft, width, height, step) if step > 1 else soft


def eye_distance(target: Floats) -> float:
    """Between the outer corners, in pixels."""
    return float(np.hypot(*(target[LEFT_EYE_OUTER] - target[RIGHT_EYE_OUTER])))


def longest(way: Floats) -> Floats:
    """The larger of |x| and |y| [h, w]; `max(axis=-1)` takes ten times as long on two columns."""
    return np.maximum(np.abs(way[..., 0]), np.abs(way[..., 1]))


def shown(alpha: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns, from even starts, that hold all of alpha > 0 (and at least one pixel)."""
    parts = []
    for axis in (1, 0):
        used = np.flatnonzero(alpha.max(axis=axis) > 0)
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        parts.append(slice(first // EVEN * EVEN, last + 1))
    return parts[0], parts[1]


def mesh_box(bank: Bank, target: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Even-aligned box x0, y0, x1, y1 of the vertices that show, inside the picture."""
    used = target[np.unique(bank.mesh.triangles)]
    low = np.floor(used.min(0)).astype(int) // EVEN * EVEN
    high = np.ceil(used.max(0)).astype(int) + 1
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    x1, y1 = min(shape[1], int(high[0])), min(shape[0], int(high[1]))
    return (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= SMALLEST else None


def blend(bank: Bank, raster: MeshRaster, rows: NDArray[np.int32], weights: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Weighted mean of the warped pictures, and the first of them alone; both [h, w, 3] float32.

    Of the mean only the coarse band may be shown (`two_band` puts the first one's fine band on it), so all but the
    first are warped at half size.
    """
    nearest = warp(bank, raster, int(rows[0]), cv2.INTER_CUBIC)
    height, width = raster.index.shape
    half = raster.window(slice(0, height, 2), slice(0, width, 2))
    others = np.zeros((*half.index.shape, 3), np.float32)
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        cv2.scaleAdd(warp(bank, half, int(row), cv2.INTER_LINEAR), float(weight), others, others)
    return weights[0] * nearest + enlarge(others, width, height), nearest


def enlarge(small: NDArray[np.float32], width: int, height: int, step: int = 2) -> NDArray[np.float32]:
    """A picture of every `step`-th pixel at full size; sample (i, j) stays at pixel (step i, step j)."""
    matrix = np.array([[1 / step, 0, 0], [0, 1 / step, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(small, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(large, np.float32)


def warp(bank: Bank, raster: MeshRaster, row: int, interpolation: int) -> NDArray[np.float32]:
    """A bank picture seen through the target mesh [h, w, 3] float32; pixels outside the mesh mean nothing."""
    # OpenCV reads floats faster than bytes
    return read_at(bank.pictures[row].astype(np.float32), raster.values(bank.vertices[row], fill=0.0), interpolation)


def read_at(picture: NDArray[Any], source: Floats, interpolation: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """A picture [H, W, C] read at places `source` [h, w, 2] (x, y; pixels); beyond its border the border goes on."""
    # the stubs want a second map; an empty one makes OpenCV 5 read what is not there
    seen = cv2.remap(picture, source, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(seen)
