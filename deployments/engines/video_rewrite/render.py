"""One frame: warp the chosen pictures onto the target face, blend, match colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Patch, Picture
from deployments.engines.video_rewrite.bank import Bank
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.face.composite import match_rim, two_band
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from kernels.mesh_warp import MeshRaster, rasterize

FEATHER = 0.03  # eye distances: sigma of the mask's blur
EVEN = 2  # patches start on even pixels, where chroma samples lie


def render_patch(
    bank: Bank,
    picture: Picture,
    target: NDArray[np.float32],
    rows: NDArray[np.int32],
    weights: NDArray[np.float32],
    config: VideoRewriteConfig,
) -> Patch | None:
    """Lower face of a picture with mesh vertices `target` [U, 2] (pixels), from bank rows; None if off screen."""
    box = mesh_box(bank, target, picture.size())
    if box is None:
        return None
    x0, y0, x1, y1 = box
    raster = rasterize(bank.mesh.triangles, target, y1 - y0, x1 - x0, (x0, y0))
    alpha = soft_mask(bank, raster, target)
    rows_shown, columns_shown = shown(alpha)
    raster, alpha = raster.window(rows_shown, columns_shown), alpha[rows_shown, columns_shown]
    x0, y0 = x0 + columns_shown.start, y0 + rows_shown.start
    frame = picture.window(x0, y0, alpha.shape[1], alpha.shape[0]).astype(np.float32)
    mouth = match_rim(blend(bank, raster, rows, weights, config), frame, alpha)
    return Patch(x0, y0, np.clip(np.rint(mouth), 0, 255).astype(np.uint8), alpha)


def soft_mask(bank: Bank, raster: MeshRaster, target: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mask [h, w] of the mesh's vertex alphas, softened in proportion to the face and zero outside the mesh."""
    eyes = target[LEFT_EYE_OUTER] - target[RIGHT_EYE_OUTER]
    sigma = max(0.8, FEATHER * float(np.hypot(*eyes)))
    mask = cv2.GaussianBlur(raster.values(bank.mesh.alpha[:, None], fill=0.0)[..., 0], (0, 0), sigma)
    mask[(raster.index < 0) | (mask < 1 / 255)] = 0
    return mask


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
    return (x0, y0, x1, y1) if x1 - x0 >= 8 and y1 - y0 >= 8 else None


def blend(
    bank: Bank, raster: MeshRaster, rows: NDArray[np.int32], weights: NDArray[np.float32], config: VideoRewriteConfig
) -> NDArray[np.float32]:
    """Weighted mean of the warped pictures with the first one's fine texture [h, w, 3].

    Only the coarse band of the others shows, so they are warped at half size.
    """
    nearest = warp(bank, raster, int(rows[0]), cv2.INTER_CUBIC)
    height, width = raster.index.shape
    half = raster.window(slice(0, height, 2), slice(0, width, 2))
    others = np.zeros((*half.index.shape, 3), np.float32)
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        cv2.scaleAdd(warp(bank, half, int(row), cv2.INTER_LINEAR), float(weight), others, others)
    return two_band(weights[0] * nearest + enlarge(others, width, height), nearest, config.texture_gain)


def enlarge(half: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """A picture of every second pixel at full size; sample (i, j) stays at pixel (2i, 2j)."""
    matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(half, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def warp(bank: Bank, raster: MeshRaster, row: int, interpolation: int) -> NDArray[np.float32]:
    """A bank picture seen through the target mesh [h, w, 3] float32; pixels outside the mesh mean nothing."""
    source = raster.values(bank.vertices[row], fill=0.0)
    return cv2.remap(bank.pictures[row], source, None, interpolation, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
