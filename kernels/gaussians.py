"""From Gaussians in space to pictures in one call: project, bin, raster."""

from __future__ import annotations

from torch import Tensor

from kernels.gaussian_bin import TILE, bin_splats
from kernels.gaussian_project import project
from kernels.gaussian_raster import Picture, rasterize
from kernels.splats import Camera

__all__ = ["Camera", "Picture", "render"]


def render(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
    camera: Camera,
    *,
    background: Tensor | None = None,
    capacity: int | None = None,
    tile: int = TILE,
    with_depth: bool = False,
) -> Picture:
    """Pictures of B frames of N Gaussians; each input is given per frame or once for all (first dimension 1).

    Without a `capacity` the number of tile entries is read back once; with one nothing waits for the device, and
    pictures are NaN if it was too small (see `kernels.gaussian_bin`).
    """
    splats = project(means, quats, scales, opacities, camera)
    tiles = bin_splats(splats, opacities, camera.height, camera.width, capacity=capacity, tile=tile)
    return rasterize(splats, opacities, colours, tiles, background=background, with_depth=with_depth)
