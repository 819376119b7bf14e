"""Doubling and convolution by folded weights: the two steps one after the other give the same picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.checks import DtypeError, ShapeError
from kernels.upsample_conv import fold, upsample_conv
from kernels.upsample_conv.reference import upsample_conv_reference

SIZES = {"one": (1, 1, 1, 1, 1), "row": (1, 3, 2, 1, 6), "odd": (2, 5, 7, 3, 5), "wide": (1, 33, 16, 9, 4)}  # B I O H W


def scene(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    batch, inputs, outputs, height, width = SIZES[name]
    random = torch.Generator().manual_seed(0)
    shapes = ((batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,))
    x, weight, bias = (torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, weight / (3 * inputs**0.5), bias


@pytest.mark.parametrize("name", SIZES)
def test_the_reference_is_what_torch_interpolates_and_convolves(name: str) -> None:
    x, weight, bias = scene(name)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    peer = torch.nn.functional.conv2d(doubled, weight, bias, padding=1)
    torch.testing.assert_close(upsample_conv_reference(x, weight, bias), peer, atol=0, rtol=0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_the_folded_convolution_is_exact_up_to_the_borders(name: str, channels_last: bool) -> None:
    x, weight, bias = scene(name)
    wanted = upsample_conv_reference(x, weight, bias)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    out = upsample_conv(x, fold(weight), bias)
    torch.testing.assert_close(out, wanted, atol=1e-13, rtol=1e-13)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(upsample_conv(x, fold(weight)), upsample_conv_reference(x, weight), atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 4e-2), (torch.float16, 4e-3)])
def test_every_type_is_near_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias = scene("wide", dtype)
    wanted = upsample_conv_reference(x.double(), weight.double(), bias.double())
    out = upsample_conv(x, fold(weight), bias)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), wanted, atol=tolerance, rtol=tolerance)


def test_weights_are_added_up_in_float32() -> None:
    weight = torch.full((1, 1, 3, 3), 2**-8, dtype=torch.bfloat16)
    weight[0, 0, 0, 0] = 1
    corner = fold(weight)[3, 0, 0, 0].item()  # odd row and column: 1 + 3/256, rounded once; step by step it is 1 + 2/256
    assert corner == 1 + 4 / 256


def test_every_output_is_written_and_learns() -> None:
    x, weight, bias = (t.requires_grad_() for t in scene("odd"))
    fill, torch.utils.deterministic.fill_uninitialized_memory = torch.utils.deterministic.fill_uninitialized_memory, True
    torch.use_deterministic_algorithms(True)  # fills what is fresh with NaN
    try:
        out = upsample_conv(x, fold(weight), bias)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fill
    wanted = upsample_conv_reference(x, weight, bias)
    torch.testing.assert_close(out, wanted, atol=1e-13, rtol=1e-13)
    side = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wanted.dtype)
    gradients = [torch.autograd.grad(y, (x, weight, bias), side) for y in (out, wanted)]
    for found, want in zip(*gradients, strict=True):
        torch.testing.assert_close(found, want, atol=1e-12, rtol=1e-12)


def test_the_door_says_what_it_wants() -> None:
    x, weight, bias = scene("odd")
    with pytest.raises(ShapeError, match="only 3x3"):
        fold(weight[..., :2])
    with pytest.raises(ShapeError, match="folded: expected shape"):
        upsample_conv(x, weight[:4], bias)
    with pytest.raises(ShapeError, match=r"make it with fold"):
        upsample_conv(x, weight, bias)
    with pytest.raises(ShapeError, match="bias"):
        upsample_conv(x, fold(weight), bias[1:])
    with pytest.raises(DtypeError, match="folded: expected torch"):
        upsample_conv(x.float(), fold(weight), bias)
    with pytest.raises(DtypeError, match="float type"):
        fold(weight.long())
