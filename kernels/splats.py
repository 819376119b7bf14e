"""What the Gaussian kernels hand to one another: camera, splats on the screen, lists of splats by tile.

Pixel centres lie at integers, as everywhere in this project. The camera looks along +z, x to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kernels.checks import CapacityError

ALPHA_MIN = 1 / 255  # below it a Gaussian does not count: half a step of 8 bits would not show it
ALPHA_MAX = 0.999  # above it nothing would be left behind, and gradients would divide by zero
STOP = 1e-4  # a tile is done when all of its pixels let less light through than this
BLUR = 0.3  # pixels squared, added to each projected covariance: no splat falls between pixel centres
MAX_EXTENT = 1e6  # pixels; float32 conics of larger splats hold no digits
SLACK = 1e-4  # the tile test is that much generous, so that rounding never loses a pixel


@dataclass(frozen=True)
class Camera:
    """One camera for all frames (first dimension 1) or one each."""

    view: Tensor  # [B or 1, 3 or 4, 4] float32, world to camera
    intrinsics: Tensor  # [B or 1, 4] float32: fx, fy, cx, cy in pixels
    height: int
    width: int
    near: float = 0.01
    far: float = 1e10


@dataclass(frozen=True)
class Splats:
    """Gaussians on the screen. One that cannot be seen is all zeros."""

    means: Tensor  # [B, N, 2] x, y in pixels
    conics: Tensor  # [B, N, 3] a, b, c of the inverse covariance [[a, b], [b, c]]
    depths: Tensor  # [B, N] distance along the view axis
    extents: Tensor  # [B, N, 2] half size of the box in which the alpha reaches 1/255


@dataclass(frozen=True)
class Tiles:
    """For each tile of each frame its splats, nearest first. `entries[starts[t] : starts[t + 1]]` belong to tile t."""

    entries: Tensor  # [capacity] int32, number of the splat in its frame
    starts: Tensor  # [B * tiles + 1] int32
    needed: Tensor  # [1] int64, how many entries there are; above the capacity the lists are not complete
    height: int
    width: int
    tile: int
    splats: int  # in each frame; entries are smaller than this

    @property
    def capacity(self) -> int:
        return self.entries.shape[0]

    def check(self) -> None:
        """Raise CapacityError if entries were lost. Waits for the device, so not for use inside a CUDA graph."""
        needed = int(self.needed)
        if needed > self.capacity:
            raise CapacityError(
                f"expected at most {self.capacity} tile entries, got {needed}; bin again with capacity={needed} or more"
            )


def tile_grid(height: int, width: int, tile: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // tile), -(-width // tile)
