"""Runs the Triton kernels of paste_back in Triton's interpreter on the scenes of `paste_kit.py` and saves what they wrote.

TRITON_INTERPRET=1 python interpret_paste_back.py OUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    from paste_kit import INTERPRETED, make_scene

    from kernels.paste_back.gpu import launch_paste
    from kernels.paste_back.gpu_rim import launch_rim
    from kernels.paste_back.plan import make_plan

    empty = torch.empty
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan)  # type: ignore[method-assign]
    found = {}
    for number, how in enumerate(INTERPRETED):
        scene = make_scene(**how)
        inputs = scene.frames.clone(), scene.patches, scene.mask.contiguous()
        nv12 = scene.nv12 is not None
        size = scene.frames.shape[1] // 3 * 2 if nv12 else scene.frames.shape[1], scene.frames.shape[2]
        plan, rows, columns = make_plan(scene.matrices, (*scene.mask.shape[1:],), size, scene.nv12)
        moments = launch_rim(*inputs, plan, nv12) if scene.match else None
        launch_paste(*inputs, scene.texture, plan, moments, rows, columns, scene.gain, nv12)
        found[str(number)] = inputs[0].numpy()
    np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    main()
