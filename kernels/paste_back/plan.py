"""Where each patch lies in its frame, worked out once on the host in float64: one row of numbers per frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.checks import ShapeError
from kernels.jit import Array
from kernels.nv12 import RGB_ROWS, Nv12

# columns of a plan's row
BOX = 0  # 4: first column and row that can change, and those behind the last
TO_PATCH = 4  # 6: from pixels, counted from the box's corner, to patch pixels
TO_FRAME = 10  # 6: from patch pixels to frame pixels
COLOURS = 16  # 12: from RGB to the frame's colours
LENGTH = 28
SMALLEST = 1e-9  # area of a patch pixel in the frame, below which a matrix is no placement


def make_plan(matrices: Tensor, patch: tuple[int, int], frame: tuple[int, int], nv12: Nv12 | None) -> tuple[Tensor, int, int]:
    """Plan [B, LENGTH] float32 on the CPU, rows and columns of the largest box; sizes are (height, width)."""
    forward = matrices.detach().to("cpu", torch.float64).numpy()
    area = forward[:, 0, 0] * forward[:, 1, 1] - forward[:, 0, 1] * forward[:, 1, 0]
    if not (np.isfinite(forward).all() and (np.abs(area) > SMALLEST).all()):
        bad = int(np.argmin(np.where(np.isfinite(area), np.abs(area), -1)))
        wanted = "expected finite, invertible [2, 3] from patch to frame pixels"
        raise ShapeError(f"matrices: {wanted}, got {forward[bad].tolist()} for frame {bad}; leave that frame out")
    boxes = boxes_of(forward, patch, frame, 2 if nv12 else 1)
    linear = np.linalg.inv(forward[:, :, :2])
    start = np.einsum("bij,bj->bi", linear, boxes[:, :2] - forward[:, :, 2])
    back = np.concatenate([linear, start[:, :, None]], 2).reshape(-1, 6)
    colours = np.broadcast_to(np.array(nv12.rows() if nv12 else RGB_ROWS).reshape(12), (len(forward), 12))
    plan = np.concatenate([boxes, back, forward.reshape(-1, 6), colours], 1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(0)
    return torch.from_numpy(plan.astype(np.float32)), int(sizes[1]), int(sizes[0])


def boxes_of(forward: Array, patch: tuple[int, int], frame: tuple[int, int], step: int) -> Array:
    """[B, 4]: the part of each frame that its patch, with one pixel around it, can touch; a multiple of `step`."""
    height, width = patch
    corners = np.array([[x, y, 1] for x in (-1, width) for y in (-1, height)], np.float64)
    placed = np.einsum("bij,kj->bki", forward, corners)
    limits = np.array([frame[1], frame[0]], np.float64)
    low = np.clip(np.floor(placed.min(1) / step) * step, 0, limits)
    high = np.clip((np.floor(placed.max(1) / step) + 1) * step, 0, limits)
    return np.concatenate([low, np.maximum(low, high)], 1)
