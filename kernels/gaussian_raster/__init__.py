"""From splats on the screen to pictures, for all frames of a chunk at once.

The door of the operation; `reference.py` says what it means, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.checks import DeviceError, ShapeError, check_numbers, check_shape
from kernels.gaussian_raster.op import gaussian_raster
from kernels.splats import Splats, Tiles, tile_grid

__all__ = ["Picture", "rasterize"]

MOST_CHANNELS = 16


@dataclass(frozen=True)
class Picture:
    """What the splats show. `depth` is the mean depth weighted like a colour; divide by alpha to get a distance."""

    colours: Tensor  # [B, H, W, C]
    alpha: Tensor  # [B, H, W], 0 where only the background is seen
    depth: Tensor | None = None  # [B, H, W]


def rasterize(
    splats: Splats,
    opacities: Tensor,
    colours: Tensor,
    tiles: Tiles,
    *,
    background: Tensor | None = None,
    with_depth: bool = False,
) -> Picture:
    """Blend splats front to back; gradients flow to everything that is a number.

    opacities [B or 1, N] in 0..1, colours [B or 1, N, C] with up to 16 channels (depth counts as one),
    background [B or 1, C] or None for black. `tiles` comes from `bin_splats` of the same splats.
    """
    if colours.ndim != 3:
        raise ShapeError(f"colours: expected shape [B or 1, N, C], got {list(colours.shape)}; add a first dimension")
    sizes = {"B": splats.means.shape[0], "N": splats.means.shape[1], "C": colours.shape[2]}
    if not 1 <= sizes["C"] + with_depth <= MOST_CHANNELS:
        raise ShapeError(f"expected 1 to {MOST_CHANNELS} channels (depth is one), got {sizes['C'] + with_depth}; call it twice")
    check_shape("splats.means", splats.means, ("B", "N", 2), sizes)
    check_shape("splats.conics", splats.conics, ("B", "N", 3), sizes)
    check_shape("splats.extents", splats.extents, ("B", "N", 2), sizes)
    check_shape("opacities", opacities, ("B?", "N"), sizes)
    check_shape("colours", colours, ("B?", "N", "C"), sizes)
    if background is None:
        background = colours.new_zeros(1, sizes["C"])
    check_shape("background", background, ("B?", "C"), sizes)
    device = splats.means.device
    numbers = {"means": splats.means, "conics": splats.conics, "depths": splats.depths, "extents": splats.extents}
    check_numbers(device, **numbers, opacities=opacities, colours=colours, background=background)
    _check_tiles(tiles, sizes["B"], sizes["N"], device)
    if with_depth:
        colours = torch.cat([colours.expand(sizes["B"], -1, -1), splats.depths[..., None]], -1)
        background = torch.cat([background, background.new_zeros(background.shape[0], 1)], -1)
    inputs = (splats.means, splats.conics, splats.extents.detach(), opacities, colours, background)
    out, alpha = gaussian_raster(
        *(tensor.contiguous() for tensor in inputs),
        *(tiles.entries, tiles.starts, tiles.needed, tiles.height, tiles.width, tiles.tile),
    )
    return Picture(out[..., :-1], alpha, out[..., -1]) if with_depth else Picture(out, alpha)


def _check_tiles(tiles: Tiles, frames: int, splats: int, device: torch.device) -> None:
    rows, columns = tile_grid(tiles.height, tiles.width, tiles.tile)
    if tiles.starts.shape[0] != frames * rows * columns + 1 or tiles.splats != splats:
        raise ShapeError(
            f"tiles: expected lists for {frames} frames of {rows}x{columns} tiles and {splats} splats, "
            f"got {tiles.starts.shape[0] - 1} lists of {tiles.splats}; use the tiles that bin_splats made from these splats"
        )
    if tiles.entries.device != device:
        raise DeviceError(f"tiles: expected lists on {device} like the splats, got {tiles.entries.device}; bin them there")
    if device.type == "cpu" and tiles.tile != 16:
        raise ShapeError(f"tiles: the CPU draws tiles of 16 pixels, got {tiles.tile}; leave out `tile` in bin_splats")
