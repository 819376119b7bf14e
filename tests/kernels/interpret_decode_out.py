"""Runs the Triton kernel of decode_out in Triton's interpreter and saves what it wrote, as `interpret_warp3d.py` does.

TRITON_INTERPRET=1 python interpret_decode_out.py IN.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def main() -> None:
    from kernels.decode_out.gpu import launch_decode_out

    empty = torch.empty
    # bytes have no NaN: a pixel that is not written stays 77 and is found by the comparison
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(77)  # type: ignore[method-assign]
    with np.load(sys.argv[1]) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file}
    found = {}
    for scene in sorted({name.split("/")[0] for name in tensors}):
        x, scale, offset, kernel, shift = (tensors[f"{scene}/{p}"] for p in ("x", "scale", "offset", "kernel", "shift"))
        x = x.to(getattr(torch, scene.split(", ")[1]))  # numpy knows no bfloat16
        found[scene] = launch_decode_out(x, scale, offset, kernel, shift, tensors[f"{scene}/nv12"].tolist()).numpy()
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
