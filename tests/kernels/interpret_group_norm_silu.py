"""Runs the Triton kernels of group_norm_silu in Triton's interpreter and saves what they wrote.

TRITON_INTERPRET=1 python interpret_group_norm_silu.py IN.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def main() -> None:
    from kernels.group_norm_silu.gpu import launch_backward, launch_forward

    empty = torch.empty
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan)  # type: ignore[method-assign]
    found = {}
    with np.load(sys.argv[1]) as file:
        for name in sorted({key.split("/")[0] for key in file}):
            groups, silu, one_pass = (int(v) for v in file[f"{name}/how"])
            dtype = getattr(torch, str(file[f"{name}/dtype"]))
            x, grad = (torch.from_numpy(file[f"{name}/{part}"]).to(dtype) for part in ("x", "grad"))
            weight, bias = (torch.from_numpy(file[f"{name}/{part}"]) for part in ("weight", "bias"))
            out, mean, rstd = launch_forward(x, weight, bias, groups, 1e-5, bool(silu), one_pass)
            found |= {f"{name}/out": out.float().numpy()}
            if one_pass:  # what comes before does not change the backward
                gradients = launch_backward(grad, x, weight, bias, mean, rstd, bool(silu))
                parts = zip(("dx", "dweight", "dbias"), gradients, strict=True)
                found |= {f"{name}/{part}": tensor.float().numpy() for part, tensor in parts}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
