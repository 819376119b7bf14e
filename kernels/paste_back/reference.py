"""What pasting a patch into a frame means: numpy, float64, every pixel of the frame, one frame at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.nv12 import RGB_ROWS, Nv12

Floats = NDArray[np.float64]
SIGMA, RADIUS = 1.2, 3  # patch pixels: border between the two bands, and where the blur ends
RIM_STEP = 2  # every second pixel of the patch measures the rim as well as all do
RIM_LEAST = 0.01  # of alpha (1 - alpha): what is less belongs to no rim
MIN_RING = 60.0  # weight (about pixels) below which the rim is too small to measure a colour on
LEVEL = 0.02  # pull of the slopes towards zero, for rims that are nearly a line


def paste_back_reference(
    frame: NDArray[np.uint8],
    patch: NDArray[Any],
    mask: NDArray[Any],
    matrix: NDArray[Any],
    texture: NDArray[Any] | None = None,
    gain: float = 1.0,
    match: bool = True,
    nv12: Nv12 | None = None,
) -> Floats:
    """The frame [H, W, 3] or NV12 [1.5 H, W] before it is rounded; patch [h, w, 3], mask [h, w], matrix [2, 3]."""
    planes = planes_of(frame) if nv12 else frame.astype(np.float64)
    rows = np.array(nv12.rows() if nv12 else RGB_ROWS)
    picture = patch.astype(np.float64)
    colours = picture @ rows[:, :3].T + rows[:, 3]
    shift = rim_shift(planes, colours, mask.astype(np.float64), matrix) if match else np.zeros((3, 3))
    if texture is not None:
        colours = two_band(picture, texture.astype(np.float64), gain) @ rows[:, :3].T + rows[:, 3]
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width) / width - 0.5, np.arange(height) / height - 0.5)
    colours = colours + shift[0] + x[..., None] * shift[1] + y[..., None] * shift[2]
    u, v = seen_from_patch(matrix, planes.shape[:2])
    alpha = read(np.pad(mask.astype(np.float64), 1)[..., None], u + 1, v + 1).clip(0, 1)
    mixed = planes + alpha * (read(colours, u, v).clip(0, 255) - planes)
    return nv12_of(mixed) if nv12 else mixed


def rim_shift(planes: Floats, colours: Floats, mask: Floats, matrix: NDArray[Any]) -> Floats:
    """[3, 3], rows 1, x and y (-0.5 to 0.5 over the patch): the plane from the patch's colours to the frame's at the rim.

    Weighted least squares at every `RIM_STEP`-th pixel where the mask is neither 0 nor 1 and the frame has a pixel.
    """
    height, width = mask.shape
    y, x = (g.ravel() for g in np.mgrid[0:height:RIM_STEP, 0:width:RIM_STEP])
    weight = mask[y, x] * (1 - mask[y, x])
    at_x, at_y = np.asarray(matrix, np.float64) @ np.stack([x, y, np.ones(len(x))])
    inside = (at_x >= 0) & (at_y >= 0) & (at_x <= planes.shape[1] - 1) & (at_y <= planes.shape[0] - 1)
    weight = np.where((weight > RIM_LEAST) & inside, weight, 0)
    if weight.sum() * RIM_STEP**2 < MIN_RING:
        return np.zeros((3, 3))
    difference = read(planes, at_x, at_y) - colours[y, x]
    terms = np.stack([np.ones(len(x)), x / width - 0.5, y / height - 0.5])
    normal = (terms * weight) @ terms.T + LEVEL * weight.sum() * np.diag([0, 1, 1])
    return np.linalg.solve(normal, (terms * weight) @ difference)


def two_band(picture: Floats, texture: Floats, gain: float) -> Floats:
    """The coarse band of the picture, the fine band of `gain` parts texture and 1 - gain parts picture."""
    return blur(picture) + gain * (texture - blur(texture)) + (1 - gain) * (picture - blur(picture))


def blur(picture: Floats) -> Floats:
    """Gaussian that ends after `RADIUS` pixels; the border goes on outside."""
    distance = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-(distance**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    height, width = picture.shape[:2]
    rows = np.clip(np.arange(height)[:, None] + distance, 0, height - 1)
    columns = np.clip(np.arange(width)[:, None] + distance, 0, width - 1)
    return np.einsum("yxkc,k->yxc", np.einsum("ykxc,k->yxc", picture[rows], kernel)[:, columns], kernel)


def seen_from_patch(matrix: NDArray[Any], shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Where every pixel of a frame lies in the patch: u, v [H, W]; `matrix` takes patch pixels to frame pixels."""
    back = np.linalg.inv(np.vstack([np.asarray(matrix, np.float64), [0, 0, 1]]))
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    u, v, _ = np.einsum("ij,jyx->iyx", back, np.stack([x, y, np.ones(x.shape)]))
    return u, v


def read(picture: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear; the border goes on outside."""
    x, y = np.clip(x, 0, picture.shape[1] - 1), np.clip(y, 0, picture.shape[0] - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, picture.shape[1] - 1), np.minimum(top + 1, picture.shape[0] - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    upper = (1 - fx) * picture[top, left] + fx * picture[top, right]
    return np.asarray((1 - fy) * upper + fy * ((1 - fx) * picture[bottom, left] + fx * picture[bottom, right]))


def planes_of(frame: NDArray[np.uint8]) -> Floats:
    """NV12 [1.5 H, W] -> Y, U, V [H, W, 3]; four pixels have the same U and V."""
    height = frame.shape[0] // 3 * 2
    differences = frame[height:].reshape(height // 2, -1, 2).repeat(2, 0).repeat(2, 1)
    return np.concatenate([frame[:height, :, None], differences], 2).astype(np.float64)


def nv12_of(planes: Floats) -> Floats:
    """Y, U, V [H, W, 3] -> [1.5 H, W]: U and V are the mean of four pixels."""
    height, width = planes.shape[:2]
    means = planes[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    return np.concatenate([planes[..., 0], means.reshape(height // 2, width)])
