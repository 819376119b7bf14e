"""Registers the projection with torch: CPU is numba, CUDA is Triton, shapes are known without running either."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.threads import cut, run_spans

SPAN = 4096  # Gaussians a thread; below it starting a thread costs more than it saves


@torch.library.custom_op("lipsync::gaussian_project", mutates_args=(), device_types="cpu")
def gaussian_project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    frames: int,
    height: int,
    width: int,
    near: float,
    far: float,
    blur: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means [B, N, 2], conics [B, N, 3], depths [B, N], extents [B, N, 2]; `view` is [B or 1, 12]."""
    from kernels.gaussian_project.cpu import project_forward

    out = _project_fake(means, quats, scales, opacities, view, intrinsics, frames)
    inputs = [t.detach().numpy() for t in (means, quats, scales, opacities, view.double(), intrinsics.double())]
    results = [t.numpy() for t in out]

    def work(_: int, first: int, last: int) -> None:
        for b in range(frames):
            frame: list[Any] = [array[b % array.shape[0]] for array in inputs]
            project_forward(*frame, height, width, near, far, blur, *(result[b] for result in results), first, last)

    run_spans(work, cut(means.shape[1], SPAN))
    return out


@gaussian_project.register_kernel("cuda")
def _project_cuda(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from kernels.gaussian_project.gpu import launch_project

    return launch_project(*inputs)


@gaussian_project.register_fake
def _project_fake(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, view: Tensor, intrinsics: Tensor, frames: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = means.shape[1]
    return (
        means.new_empty(frames, n, 2),
        means.new_empty(frames, n, 3),
        means.new_empty(frames, n),
        means.new_empty(frames, n, 2),
    )


@torch.library.custom_op("lipsync::gaussian_project_backward", mutates_args=(), device_types="cpu")
def gaussian_project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    conics: Tensor,
    extents: Tensor,
    grad_means: Tensor,
    grad_conics: Tensor,
    grad_depths: Tensor,
) -> Tensor:
    """Gradients [B, N, 10] by mean, quaternion and scales, frame by frame."""
    from kernels.gaussian_project.cpu import project_backward

    out = means.new_empty(*extents.shape[:2], 10)
    inputs = [t.detach().numpy() for t in (means, quats, scales, view.double(), intrinsics.double())]
    rest = [t.detach().numpy() for t in (conics, extents, grad_means, grad_conics, grad_depths, out)]

    def work(_: int, first: int, last: int) -> None:
        for b in range(extents.shape[0]):
            frame: list[Any] = [array[b % array.shape[0]] for array in inputs]
            project_backward(*frame, height, width, *(array[b] for array in rest), first, last)

    run_spans(work, cut(means.shape[1], SPAN))
    return out


@gaussian_project_backward.register_kernel("cuda")
def _project_backward_cuda(*inputs: Any) -> Tensor:
    from kernels.gaussian_project.gpu import launch_project_backward

    return launch_project_backward(*inputs)


@gaussian_project_backward.register_fake
def _project_backward_fake(means: Tensor, *rest: Any) -> Tensor:
    extents = rest[7]
    return means.new_empty(extents.shape[0], extents.shape[1], 10)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    means, quats, scales, _, view, intrinsics, _, height, width, *_ = inputs
    ctx.save_for_backward(means, quats, scales, view, intrinsics, output[1], output[3])
    ctx.size = (height, width)
    ctx.mark_non_differentiable(output[3])


def _backward(ctx: Any, grad_means: Tensor, grad_conics: Tensor, grad_depths: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    means, quats, scales, view, intrinsics, conics, extents = ctx.saved_tensors
    grads = [g.contiguous() for g in (grad_means, grad_conics, grad_depths)]
    all_frames = gaussian_project_backward(means, quats, scales, view, intrinsics, *ctx.size, conics, extents, *grads)
    parts = all_frames.split([3, 4, 3], -1)
    own = [part.sum_to_size(t.shape) for part, t in zip(parts, (means, quats, scales), strict=True)]
    by_view = by_intrinsics = None
    if ctx.needs_input_grad[4] or ctx.needs_input_grad[5]:
        from kernels.gaussian_project.camera import camera_gradients

        found = camera_gradients((means, quats, scales), view, intrinsics, ctx.size, (conics, extents), grads)
        by_view, by_intrinsics = (part.sum_to_size(t.shape) for part, t in zip(found, (view, intrinsics), strict=True))
    return (*own, None, by_view, by_intrinsics, *[None] * 6)


gaussian_project.register_autograd(_backward, setup_context=_keep)
