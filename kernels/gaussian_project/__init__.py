"""From Gaussians in space to splats on the screen, for all frames of a chunk at once.

The door of the operation; `reference.py` says what it means, `cpu.py` and `gpu.py` do it fast.
"""

from __future__ import annotations

from torch import Tensor

from kernels.checks import ShapeError, check_numbers, check_shape, check_size
from kernels.gaussian_project.op import gaussian_project
from kernels.splats import BLUR, Camera, Splats

__all__ = ["Camera", "Splats", "project"]


def _frames(**tensors: Tensor) -> int:
    """Number of frames: the one first dimension that is not 1."""
    found = {name: tensor.shape[0] for name, tensor in tensors.items() if tensor.ndim and tensor.shape[0] != 1}
    if len(set(found.values())) > 1 or 0 in found.values():
        raise ShapeError(f"expected one number of frames (or 1: shared), got {found}; repeat or cut the tensors")
    return next(iter(found.values()), 1)


def project(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, camera: Camera, *, blur: float = BLUR) -> Splats:
    """Project Gaussians; gradients flow to means, quaternions, scales and the camera.

    means [B, N, 3], quats [B, N, 4] (w, x, y, z; any length but zero), scales [B, N, 3] (standard deviations, >= 0),
    opacities [B, N] in 0..1 (only decides what can be seen). Each of them, and the camera, may have a first
    dimension of 1: shared by all frames.
    """
    view, intrinsics = camera.view, camera.intrinsics
    check_size(camera.height, camera.width)
    sizes = {
        "B": _frames(means=means, quats=quats, scales=scales, opacities=opacities, view=view, intrinsics=intrinsics),
        "N": means.shape[1] if means.ndim == 3 else -1,
    }
    check_shape("means", means, ("B?", "N", 3), sizes)
    check_shape("quats", quats, ("B?", "N", 4), sizes)
    check_shape("scales", scales, ("B?", "N", 3), sizes)
    check_shape("opacities", opacities, ("B?", "N"), sizes)
    check_shape("camera.view", view[..., :3, :] if view.ndim == 3 else view, ("B?", 3, 4), sizes)
    check_shape("camera.intrinsics", intrinsics, ("B?", 4), sizes)
    check_numbers(means.device, means=means, quats=quats, scales=scales, opacities=opacities, view=view, intrinsics=intrinsics)
    if not (blur > 0 and 0 < camera.near < camera.far):
        raise ShapeError(f"expected blur > 0 and 0 < near < far, got blur {blur}, near {camera.near}, far {camera.far}")
    rows = view[:, :3].reshape(view.shape[0], 12).contiguous()
    splats = gaussian_project(
        *(tensor.contiguous() for tensor in (means, quats, scales, opacities)),
        *(rows, intrinsics.contiguous(), sizes["B"], camera.height, camera.width, camera.near, camera.far, blur),
    )
    return Splats(*splats)
