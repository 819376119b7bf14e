"""Patches into whole frames: placed by a matrix, colours matched at the rim, fine texture kept, soft border.

The door of the operation; `reference.py` says what it means, `plan.py` where it lands, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import DeviceError, DtypeError, ShapeError, check_no_gradient, check_numbers, check_shape, check_size
from kernels.nv12 import Nv12, check_even
from kernels.paste_back.op import paste_back_op, rim_moments_op
from kernels.paste_back.plan import make_plan

__all__ = ["Nv12", "feather", "paste_back"]

MOST_FRAMES = 65535  # programs along a GPU grid's second axis
COLOURS = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)


def paste_back(
    frames: Tensor,
    patches: Tensor,
    mask: Tensor,
    matrices: Tensor,
    *,
    texture: Tensor | None = None,
    gain: float = 1.0,
    match: bool = True,
    nv12: Nv12 | None = None,
) -> None:
    """Write patches [B, h, w, 3] (RGB, 0..255, bytes or floats) into frames, in place.

    frames: uint8 [B, H, W, 3], or NV12 [B, 1.5 H, W] with `nv12`. mask: float32 [B or 1, h, w], how much of the patch
    shows; outside the patch it is 0, and where it is 0 a frame keeps its bytes. matrices [B, 2, 3], on the CPU: from
    patch pixels to frame pixels (centres at integers). `match`: add the plane that brings the patch to the frame's colours
    at the mask's rim. `texture` [B, h, w, 3]: a picture whose fine band replaces `gain` of the patch's own.
    """
    height, width = _check_frames(frames, nv12)
    if patches.ndim != 4 or patches.shape[-1] != 3 or patches.shape[0] != frames.shape[0]:
        raise ShapeError(f"patches: expected [B, h, w, 3] with B={frames.shape[0]}, got {[*patches.shape]}; reshape them")
    check_size(*patches.shape[1:3])
    sizes = dict(zip(("B", "h", "w"), patches.shape[:3], strict=True))
    check_shape("mask", mask, ("B?", "h", "w"), sizes)
    check_shape("matrices", matrices, ("B", 2, 3), sizes)
    check_numbers(frames.device, mask=mask)
    for name, picture in (("patches", patches), ("texture", texture)):
        if picture is not None:
            _check_picture(name, picture, patches, frames.device)
    if matrices.device.type != "cpu" or not matrices.is_floating_point():
        wanted = "expected floats on the CPU, since the size of the launch follows from them"
        raise DeviceError(f"matrices: {wanted}, got {matrices.dtype} on {matrices.device}; use .cpu().float()")
    if not 0 <= gain <= 1:
        raise ShapeError(f"gain: expected 0 to 1, got {gain}")
    given = {"patches": patches, "mask": mask} | ({} if texture is None else {"texture": texture})
    check_no_gradient("the kernel writes bytes; train with a loss on the patch", **given)
    plan, rows, columns = make_plan(matrices, (sizes["h"], sizes["w"]), (height, width), nv12)
    if rows < 1 or columns < 1:
        return  # every patch lies outside its frame
    plan = plan.to(frames.device, non_blocking=True)
    patches, mask = patches.contiguous(), mask.contiguous()
    texture = None if texture is None else texture.contiguous()
    moments = rim_moments_op(frames, patches, mask, plan, nv12 is not None) if match else None
    paste_back_op(frames, patches, mask, texture, plan, moments, rows, columns, float(gain), nv12 is not None)


def feather(height: int, width: int, border: float) -> Tensor:
    """A mask [1, height, width] float32 that is 1 in the middle and falls to 0 within `border` pixels of the edge."""
    check_size(height, width)
    if not border > 0:
        raise ShapeError(f"border: expected a width above 0 pixels, got {border}; a mask of ones has no soft edge")
    sides = []
    for length in (height, width):
        place = torch.arange(length, dtype=torch.float32)
        edge = (torch.minimum(place, length - 1 - place) / border).clamp(0, 1)
        sides.append(edge * edge * (3 - 2 * edge))
    return (sides[0][:, None] * sides[1])[None]


def _check_frames(frames: Tensor, nv12: Nv12 | None) -> tuple[int, int]:
    """Height and width."""
    layout = "[B, 1.5 H, W]" if nv12 else "[B, H, W, 3]"
    fits = frames.ndim == 3 if nv12 else frames.ndim == 4 and frames.shape[-1] == 3
    if not fits or frames.dtype != torch.uint8:
        error = ShapeError if not fits else DtypeError
        hint = "convert them" if nv12 else "convert them, or hand over nv12=Nv12() if they are NV12"
        raise error(f"frames: expected uint8 {layout}, got {frames.dtype} {[*frames.shape]}; {hint}")
    height, width = frames.shape[1:3]
    if nv12:
        if height % 3:
            raise ShapeError(f"frames: expected NV12 of 1.5 H rows for an even H, got {height} rows; append the chroma plane")
        height = height // 3 * 2
        check_even(height, width)
    check_size(height, width)
    if not 1 <= frames.shape[0] <= MOST_FRAMES:
        raise ShapeError(f"frames: expected 1 to {MOST_FRAMES}, got {frames.shape[0]}; paste them in several calls")
    if not frames.is_contiguous():
        raise ShapeError("frames: expected contiguous memory, since they are written in place; use .contiguous() and keep it")
    return height, width


def _check_picture(name: str, picture: Tensor, like: Tensor, device: torch.device) -> None:
    if picture.dtype not in COLOURS or picture.dtype != like.dtype:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in COLOURS)
        raise DtypeError(f"{name}: expected {kinds}, the same for patches and texture, got {picture.dtype}; convert it")
    if picture.shape != like.shape:
        raise ShapeError(f"{name}: expected {[*like.shape]} like patches, got {[*picture.shape]}; reshape it")
    if picture.device != device:
        raise DeviceError(f"{name}: expected a tensor on {device} like frames, got {picture.device}; move it there")
