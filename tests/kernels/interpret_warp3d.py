"""Runs the Triton kernel of warp3d in Triton's interpreter and saves what it wrote, as `interpret_gaussians.py` does.

TRITON_INTERPRET=1 python interpret_warp3d.py IN.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def main() -> None:
    from kernels.warp3d.gpu import launch_warp

    empty = torch.empty
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan)  # type: ignore[method-assign]
    with np.load(sys.argv[1]) as file:
        scenes = sorted({name.split("/")[0] for name in file})
        tensors = {name: torch.from_numpy(file[name]) for name in file}
    np.savez(sys.argv[2], **{s: launch_warp(tensors[f"{s}/volume"], tensors[f"{s}/grid"]).numpy() for s in scenes})


if __name__ == "__main__":
    main()
