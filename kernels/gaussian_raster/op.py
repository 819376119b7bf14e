"""Registers the raster with torch: CPU is numba, CUDA is Triton, shapes are known without running either.

The CPU path carries the signature of the operation; the others take what comes, in its order.
"""

from __future__ import annotations

import bisect
from typing import Any

import torch
from torch import Tensor

from kernels.threads import cut, run_spans

SPAN = 8192  # tile entries a thread; below it starting a thread costs more than it saves


@torch.library.custom_op("lipsync::gaussian_raster", mutates_args=(), device_types="cpu")
def gaussian_raster(
    means: Tensor,
    conics: Tensor,
    extents: Tensor,
    opacities: Tensor,
    colours: Tensor,
    background: Tensor,
    entries: Tensor,
    starts: Tensor,
    needed: Tensor,
    height: int,
    width: int,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Colours [B, H, W, C] and alpha [B, H, W]; NaN if the lists of entries were cut."""
    from kernels.gaussian_raster.cpu import forward_kernel

    out = colours.new_empty(means.shape[0], height, width, colours.shape[2])
    alpha = colours.new_empty(means.shape[0], height, width)
    if int(needed) > entries.shape[0]:
        return out.fill_(torch.nan), alpha.fill_(torch.nan)
    kernel, pictures, alphas, lists = forward_kernel(colours.shape[2]), out.numpy(), alpha.numpy(), entries.numpy()
    for b in range(means.shape[0]):
        packed, frame_starts, bounds = _frame(b, means, conics, extents, opacities, colours, starts)
        behind = background[b % background.shape[0]].detach().numpy()

        def work(_: int, first: int, last: int, args: tuple[Any, ...] = (frame_starts, lists, packed, behind, b)) -> None:
            kernel(*args[:4], pictures[args[4]], alphas[args[4]], first, last)

        run_spans(work, bounds)
    return out, alpha


def _frame(
    b: int, means: Tensor, conics: Tensor, extents: Tensor, opacities: Tensor, colours: Tensor, starts: Tensor
) -> tuple[Any, Any, list[int]]:
    """Packed splats and list bounds of one frame, and spans of its tiles with equally many entries each."""
    from kernels.gaussian_raster.cpu import pack, row_length

    frames, splats, channels = means.shape[0], means.shape[1], colours.shape[2]
    shared: list[Any] = [t[b % t.shape[0]].detach().numpy() for t in (means, conics, extents, opacities, colours)]
    packed = torch.empty(splats, row_length(channels)).numpy()
    pack(*shared, packed, 0, splats)
    tiles = (starts.shape[0] - 1) // frames
    own = starts[b * tiles : (b + 1) * tiles + 1].numpy()
    total = int(own[-1] - own[0])
    bounds = [bisect.bisect_left(own, int(own[0]) + at) for at in cut(total, SPAN)]
    return packed, own, [0, *bounds[1:-1], tiles]


@gaussian_raster.register_kernel("cuda")
def _raster_cuda(*inputs: Any) -> tuple[Tensor, Tensor]:
    from kernels.gaussian_raster.gpu import launch_raster

    return launch_raster(*inputs)


@gaussian_raster.register_fake
def _raster_fake(*inputs: Any) -> tuple[Tensor, Tensor]:
    means, colours, (height, width) = inputs[0], inputs[4], inputs[9:11]
    frames = means.shape[0]
    return colours.new_empty(frames, height, width, colours.shape[2]), colours.new_empty(frames, height, width)


@torch.library.custom_op("lipsync::gaussian_raster_backward", mutates_args=(), device_types="cpu")
def gaussian_raster_backward(
    means: Tensor,
    conics: Tensor,
    extents: Tensor,
    opacities: Tensor,
    colours: Tensor,
    background: Tensor,
    entries: Tensor,
    starts: Tensor,
    needed: Tensor,
    out: Tensor,
    alpha: Tensor,
    grad_out: Tensor,
    grad_alpha: Tensor,
    tile: int,
) -> Tensor:
    """Per frame and splat [B, N, 6 + C]: moments 1, x, y, xx, xy, yy of the gradient by the exponent, then by colours."""
    from kernels.gaussian_raster.cpu import backward_kernel

    grads = means.new_zeros(means.shape[0], means.shape[1], 6 + colours.shape[2])
    if int(needed) > entries.shape[0]:
        return grads.fill_(torch.nan)
    kernel, lists = backward_kernel(colours.shape[2]), entries.numpy()
    pixels = [t.detach().numpy() for t in (out, alpha, grad_out, grad_alpha)]
    for b in range(means.shape[0]):
        packed, frame_starts, bounds = _frame(b, means, conics, extents, opacities, colours, starts)
        behind = background[b % background.shape[0]].detach().numpy()
        sums = [grads[b]] + [torch.zeros_like(grads[b]) for _ in bounds[2:]]  # one per thread: no atomics, same order always
        args = (frame_starts, lists, packed, behind, *(pixel[b] for pixel in pixels))

        def work(span: int, first: int, last: int, args: tuple[Any, ...] = args, sums: list[Tensor] = sums) -> None:
            kernel(*args, sums[span].numpy(), first, last)

        run_spans(work, bounds)
        for other in sums[1:]:
            grads[b] += other
    return grads


@gaussian_raster_backward.register_kernel("cuda")
def _raster_backward_cuda(*inputs: Any) -> Tensor:
    from kernels.gaussian_raster.gpu import launch_raster_backward

    return launch_raster_backward(*inputs)


@gaussian_raster_backward.register_fake
def _raster_backward_fake(means: Tensor, conics: Tensor, extents: Tensor, opacities: Tensor, colours: Tensor, *_: Any) -> Tensor:
    return means.new_empty(means.shape[0], means.shape[1], 6 + colours.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:9], *output)
    ctx.tile = inputs[11]


def _backward(ctx: Any, grad_out: Tensor, grad_alpha: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, out, alpha = ctx.saved_tensors
    _, conics, _, opacities, colours, background, *_ = inputs
    grads = gaussian_raster_backward(*inputs, out, alpha, grad_out.contiguous(), grad_alpha.contiguous(), ctx.tile)
    total, x, y, xx, xy, yy = grads[..., :6].unbind(-1)
    a, b, c = conics.unbind(-1)
    by_means = torch.stack([a * x + b * y, b * x + c * y], -1)
    by_conics = torch.stack([-0.5 * xx, -xy, -0.5 * yy], -1)
    by_opacities = torch.where(total != 0, total / opacities, 0.0).sum_to_size(opacities.shape)
    by_colours = grads[..., 6:].sum_to_size(colours.shape)
    by_background = None
    if ctx.needs_input_grad[5]:
        by_background = ((1 - alpha)[..., None] * grad_out).sum((1, 2)).sum_to_size(background.shape)
    return by_means, by_conics, None, by_opacities, by_colours, by_background, *[None] * 6


gaussian_raster.register_autograd(_backward, setup_context=_keep)
