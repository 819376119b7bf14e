"""Read a volume of features at moved places: the dense motion field of a face decoder, in three dimensions.

The door of the operation; `reference.py` says what it means, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

from torch import Tensor

from kernels.checks import ShapeError, check_no_gradient, check_numbers, check_shape
from kernels.warp3d.op import warp3d

__all__ = ["warp"]

MOST = 2**31 - 1  # offsets inside one volume are 32-bit


def warp(volume: Tensor, grid: Tensor) -> Tensor:
    """Sample `volume` [B, D, H, W, C] at `grid` [B, d, h, w, 3] -> [B, d, h, w, C], trilinear, zeros outside.

    A place is (x, y, z) in -1..1, -1 and 1 being the outer faces of the outer voxels; what is not finite reads zeros.
    Either first dimension may be 1: shared by all samples. Channels lie last, so that one place is one read.
    """
    if volume.ndim != 5 or grid.ndim != 5:
        raise ShapeError(f"expected volume [B, D, H, W, C] and grid [B, d, h, w, 3], got {[*volume.shape]} and {[*grid.shape]}")
    batch = max(volume.shape[0], grid.shape[0])
    sizes = {"B": batch, **dict(zip("DHWC", volume.shape[1:], strict=True)), **dict(zip("dhw", grid.shape[1:4], strict=True))}
    check_shape("volume", volume, ("B?", "D", "H", "W", "C"), sizes)
    check_shape("grid", grid, ("B?", "d", "h", "w", 3), sizes)
    check_numbers(volume.device, volume=volume, grid=grid)
    check_no_gradient("the kernel is for rendering; train with kernels.warp3d.reference", volume=volume, grid=grid)
    if min(sizes.values()) < 1 or max(volume[0].numel(), batch * grid[0].numel() // 3) > MOST:
        raise ShapeError(f"expected sizes of at least 1 and fewer than 2^31 values, got {sizes}; cut the batch")
    return warp3d(volume.contiguous(), grid.contiguous())
