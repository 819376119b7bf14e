"""Runs the Triton kernels in Triton's interpreter and saves what they wrote. A program of its own: the interpreter is
chosen by TRITON_INTERPRET=1 when a kernel is defined, for the whole process.

    TRITON_INTERPRET=1 python interpret_gaussians.py IN.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def poison() -> None:
    """Fill every new buffer with NaN (or an absurd number), so that what a kernel does not write is seen."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 2**30)

    torch.empty = lambda *args, **kwargs: spoil(empty(*args, **kwargs))  # type: ignore[method-assign]
    torch.Tensor.new_empty = lambda self, *args, **kwargs: spoil(new_empty(self, *args, **kwargs))  # type: ignore[method-assign]


def run(scene: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Project, bin and raster one scene forwards and backwards, by the launchers that a GPU would use."""
    from kernels.gaussian_bin.gpu import launch_bin
    from kernels.gaussian_project.gpu import launch_project, launch_project_backward
    from kernels.gaussian_raster.gpu import launch_raster, launch_raster_backward

    frames, height, width, tile, capacity = (int(value) for value in scene["size"])
    space = [scene[name] for name in ("means", "quats", "scales")]
    camera = (scene["view"], scene["intrinsics"])
    opacities, colours, background = scene["opacities"], scene["colours"], scene["background"]
    splats = launch_project(*space, opacities, *camera, frames, height, width, 0.01, 1e10, 0.3)
    means, conics, _, extents = splats
    lists = launch_bin(*splats, opacities, height, width, tile, capacity)
    inputs = (means, conics, extents, opacities, colours, background, *lists)
    out, alpha = launch_raster(*inputs, height, width, tile)
    raster = launch_raster_backward(*inputs, out, alpha, scene["grad_out"], scene["grad_alpha"], tile)
    grads = (scene["grad_means"], scene["grad_conics"], scene["grad_depths"])
    projection = launch_project_backward(*space, *camera, height, width, conics, extents, *grads)
    names = ("means", "conics", "depths", "extents", "entries", "starts", "needed", "out", "alpha", "raster", "projection")
    return dict(zip(names, (*splats, *lists, out, alpha, raster, projection), strict=True))


def main() -> None:
    poison()
    results = {}
    with np.load(sys.argv[1]) as file:
        scenes = sorted({name.split("/")[0] for name in file})
        for scene in scenes:
            tensors = {name.split("/")[1]: torch.from_numpy(file[name]) for name in file if name.startswith(scene + "/")}
            results.update({f"{scene}/{name}": value.numpy() for name, value in run(tensors).items()})
    np.savez(sys.argv[2], **results)


if __name__ == "__main__":
    main()
