"""Runs the Triton kernels of group_norm_silu in Triton's interpreter and saves what they wrote, as `interpret_warp3d.py` does.

TRITON_INTERPRET=1 python interpret_group_norm.py IN.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def main() -> None:
    from kernels.group_norm_silu.gpu import launch_backward, launch_forward

    empty, like = torch.empty, torch.empty_like
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan)  # type: ignore[method-assign]
    torch.empty_like = lambda *args, **kwargs: like(*args, **kwargs).fill_(torch.nan)  # type: ignore[method-assign]
    with np.load(sys.argv[1]) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file}
    found = {}
    for scene in sorted({name.split("/")[0] for name in tensors}):
        x, weight, bias, grad, numbers = (tensors[f"{scene}/{part}"] for part in ("x", "weight", "bias", "grad", "numbers"))
        silu = bool(numbers[1])
        out, mean, rstd = launch_forward(x, weight, bias, int(numbers[0]), 1e-5, silu)
        gradients = launch_backward(grad, x, weight, bias, mean, rstd, silu)
        for name, tensor in zip(("out", "dx", "dweight", "dbias"), (out, *gradients), strict=True):
            found[f"{scene}/{name}"] = tensor.numpy()
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
