"""Registers the rim's moments and the pasting with torch: CPU is numba, CUDA is Triton. Frames are changed in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNKS = 16  # parts of a patch whose moments are summed apart: enough programs for a GPU
MOMENTS = 15  # of the weight: 1, x, y, xx, xy, yy; of the weight times each colour's difference: 1, x, y


@torch.library.custom_op("lipsync::rim_moments", mutates_args=(), device_types="cpu")
def rim_moments_op(frames: Tensor, patches: Tensor, mask: Tensor, plan: Tensor, nv12: bool) -> Tensor:
    """[B, CHUNKS, MOMENTS] float32 of frames uint8 and patches [B, h, w, 3] where mask [B or 1, h, w] is neither 0 nor 1."""
    from kernels.paste_back.cpu import rim

    return rim(frames, patches, mask, plan, nv12)


@rim_moments_op.register_kernel("cuda")
def _rim_cuda(*inputs: Any) -> Tensor:
    from kernels.paste_back.gpu_rim import launch_rim

    return launch_rim(*inputs)


@rim_moments_op.register_fake
def _rim_fake(frames: Tensor, patches: Tensor, mask: Tensor, plan: Tensor, nv12: bool) -> Tensor:
    return plan.new_empty((frames.shape[0], CHUNKS, MOMENTS))


@torch.library.custom_op("lipsync::paste_back", mutates_args=("frames",), device_types="cpu")
def paste_back_op(
    frames: Tensor,
    patches: Tensor,
    mask: Tensor,
    texture: Tensor | None,
    plan: Tensor,
    moments: Tensor | None,
    rows: int,
    columns: int,
    gain: float,
    nv12: bool,
) -> None:
    """Writes into frames; rows and columns are those of the largest box of the plan."""
    from kernels.paste_back.cpu import paste

    paste(frames, patches, mask, texture, plan, moments, gain, nv12)


@paste_back_op.register_kernel("cuda")
def _paste_cuda(*inputs: Any) -> None:
    from kernels.paste_back.gpu import launch_paste

    launch_paste(*inputs)


@paste_back_op.register_fake
def _paste_fake(*_: Any) -> None:
    return None
