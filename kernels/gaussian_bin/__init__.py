"""Lists of splats by tile, nearest first, for all frames of a chunk at once.

The door of the operation; `reference.py` says what it means, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

from torch import Tensor

from kernels.checks import ShapeError, check_numbers, check_shape, check_size
from kernels.gaussian_bin.op import gaussian_bin
from kernels.splats import Splats, Tiles, tile_grid

__all__ = ["Tiles", "bin_splats", "usual_capacity"]

TILE = 16


def usual_capacity(frames: int, splats: int, height: int, width: int, tile: int = TILE) -> int:
    """Room for heads of many small splats: four tiles each, and a share for splats that cover the picture."""
    rows, columns = tile_grid(height, width, tile)
    return frames * (4 * splats + 16 * rows * columns)


def bin_splats(
    splats: Splats, opacities: Tensor, height: int, width: int, *, capacity: int | None = None, tile: int = TILE
) -> Tiles:
    """List the splats that reach an alpha of 1/255 somewhere in each tile of 8 or 16 pixels.

    With a `capacity` nothing waits for the device, shapes are fixed and a CUDA graph can hold the call: if the lists
    are too long, `Tiles.check()` raises and every picture made from them is NaN. Without one the number of entries
    is read back, and the lists are made again where the first guess was too small.
    """
    check_size(height, width)
    if splats.means.ndim != 3:
        raise ShapeError(f"splats.means: expected shape [B, N, 2], got {list(splats.means.shape)}; reshape it")
    sizes = {"B": splats.means.shape[0], "N": splats.means.shape[1]}
    check_shape("splats.means", splats.means, ("B", "N", 2), sizes)
    check_shape("splats.conics", splats.conics, ("B", "N", 3), sizes)
    check_shape("splats.depths", splats.depths, ("B", "N"), sizes)
    check_shape("splats.extents", splats.extents, ("B", "N", 2), sizes)
    check_shape("opacities", opacities, ("B?", "N"), sizes)
    tensors = (splats.means, splats.conics, splats.depths, splats.extents, opacities)
    names = ("splats.means", "splats.conics", "splats.depths", "splats.extents", "opacities")
    check_numbers(splats.means.device, **dict(zip(names, tensors, strict=True)))
    if tile not in (8, 16):
        raise ShapeError(f"tile: expected 8 or 16 pixels, got {tile}; leave it out")
    if capacity is not None and not 1 <= capacity < 2**31:
        raise ShapeError(f"capacity: expected 1 to 2147483647 entries, got {capacity}; see usual_capacity()")
    inputs = [tensor.detach().contiguous() for tensor in tensors]
    room = capacity if capacity is not None else usual_capacity(sizes["B"], sizes["N"], height, width, tile)
    entries, starts, needed = gaussian_bin(*inputs, height, width, tile, room)
    if capacity is None and int(needed) > room:
        entries, starts, needed = gaussian_bin(*inputs, height, width, tile, int(needed))
    return Tiles(entries, starts, needed, height, width, tile, sizes["N"])
