"""What the tile lists mean: for every tile every splat, asked one by one. Plain torch, any float type."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.splats import tile_grid


def least_distance(mean: Tensor, conic: Tensor, box: tuple[float, float, float, float]) -> float:
    """Smallest half squared Mahalanobis distance between a splat and a box (x0, y0, x1, y1) of pixel centres."""
    (x, y), (a, b, c), (x0, y0, x1, y1) = mean.tolist(), conic.tolist(), box
    if x0 <= x <= x1 and y0 <= y <= y1:
        return 0.0
    found = math.inf
    for edge in (x0, x1):
        dx = edge - x
        dy = min(max(-b * dx / c, y0 - y), y1 - y)
        found = min(found, 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy)
    for edge in (y0, y1):
        dy = edge - y
        dx = min(max(-b * dy / a, x0 - x), x1 - x)
        found = min(found, 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy)
    return found


def bin_reference(
    means: Tensor, conics: Tensor, depths: Tensor, extents: Tensor, opacities: Tensor, height: int, width: int, tile: int
) -> list[list[tuple[int, float]]]:
    """Per tile (frame, row, column) its splats, nearest first: number, and by how much it passed the test."""
    rows, columns = tile_grid(height, width, tile)
    lists: list[list[tuple[int, float]]] = []
    for frame in range(means.shape[0]):
        order = torch.argsort(depths[frame], stable=True).tolist()
        limits = torch.log(255 * opacities[frame % opacities.shape[0]]).tolist()
        shown = (extents[frame] > 0).all(-1).tolist()
        for index in range(rows * columns):
            y0, x0 = index // columns * tile, index % columns * tile
            box = (x0, y0, min(x0 + tile, width) - 1, min(y0 + tile, height) - 1)
            slack = {n: limits[n] - least_distance(means[frame, n], conics[frame, n], box) for n in order if shown[n]}
            lists.append([(n, spare) for n, spare in slack.items() if spare >= 0])
    return lists
