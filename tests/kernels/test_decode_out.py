"""The last step of a decoder: the reference, the CPU path and the interpreted Triton kernel agree to one step of a byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.checks import DtypeError, GradientError, ShapeError
from kernels.decode_out import Nv12, decode_out, normalisation
from kernels.decode_out.op import decode_out_op
from kernels.decode_out.reference import decode_out_reference, nv12_reference, pixels_reference

ROOT = Path(__file__).resolve().parents[2]
# B, H, W, C, groups
SCENES = {"one": (1, 1, 1, 4, 2), "odd": (2, 3, 37, 40, 8), "thin": (1, 5, 2, 33, 3), "even": (2, 4, 38, 40, 8)}
KINDS = {"709": Nv12(), "601": Nv12("bt601"), "709 full": Nv12(full_range=True), "601 full": Nv12("bt601", True)}
# registers a thread on an H100 (128 threads a program)
REGISTERS = {"fp32": 64, "bf16": 64, "bf16, nv12": 64}


def scene(shape: tuple[int, ...]) -> tuple[Tensor, int, Tensor, Tensor, Tensor, Tensor]:
    batch, height, width, channels, groups = shape
    random = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(batch, height, width, channels, generator=random) + 1
    weight, bias = (torch.randn(channels, generator=random) for _ in range(2))
    kernel = torch.randn(3, channels, 3, 3, generator=random) / (3 * channels**0.5)
    return x, groups, weight, bias, kernel, torch.randn(3, generator=random) / 4


def close(found: Tensor, pixels: Tensor, tolerance: float) -> None:
    """Bytes lie within half a step, and the tolerance, of the picture before it was rounded."""
    assert found.dtype == torch.uint8 and found.shape == pixels.shape
    assert (found.double() - pixels.double()).abs().max() <= 0.5 + tolerance


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_cpu_path_is_the_reference(name: str, dtype: torch.dtype) -> None:
    x, groups, *rest = scene(SCENES[name])
    x = x.to(dtype)  # the features are rounded before both; the arithmetic is float32 in every type
    close(decode_out(x, groups, *rest), pixels_reference(x.double(), groups, *(t.double() for t in rest)), 1e-2)


def test_the_reference_is_what_torch_normalises_and_rounds() -> None:
    x, groups, weight, bias, kernel, shift = scene(SCENES["odd"])
    y = torch.nn.functional.silu(torch.nn.functional.group_norm(x.permute(0, 3, 1, 2), groups, weight, bias))
    picture = torch.nn.functional.conv2d(y, kernel, shift, padding=1).permute(0, 2, 3, 1).clamp(-1, 1)
    close(decode_out_reference(x, groups, weight, bias, kernel, shift), (picture + 1) * 127.5, 1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_path_writes_nv12(kind: str) -> None:
    x, groups, *rest = scene(SCENES["even"])
    pixels = pixels_reference(x.double(), groups, *(t.double() for t in rest))
    found = decode_out(x, groups, *rest, nv12=KINDS[kind])
    assert found.shape == (2, 6, 38)
    close(found, nv12_reference(pixels, KINDS[kind]), 2e-2)
    close(decode_out_reference(x, groups, *rest, nv12=KINDS[kind]), nv12_reference(pixels, KINDS[kind]), 2e-2)


def test_nv12_has_the_numbers_of_the_standards() -> None:
    """Bars of 100 %: white, red, blue and black in 2x2 pixels each."""
    bars = torch.tensor([[255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]], dtype=torch.float64)
    picture = bars.repeat_interleave(2, 0)[None, None].expand(1, 2, 8, 3)
    wanted = {
        "709": ([235, 63, 32, 16], [128, 128, 102, 240, 240, 118, 128, 128]),
        "601": ([235, 81, 41, 16], [128, 128, 90, 240, 240, 110, 128, 128]),
        "709 full": ([255, 54, 18, 0], [128, 128, 99, 256, 256, 116, 128, 128]),
        "601 full": ([255, 76, 29, 0], [128, 128, 85, 256, 256, 107, 128, 128]),
    }
    for kind, (luma, chroma) in wanted.items():
        found = nv12_reference(picture, KINDS[kind]).round()
        assert found[0, 0, ::2].tolist() == found[0, 1, 1::2].tolist() == luma, kind
        assert found[0, 2].tolist() == chroma, kind


def test_the_door_says_what_it_wants() -> None:
    x, groups, weight, bias, kernel, shift = scene(SCENES["odd"])
    with pytest.raises(ShapeError, match="groups that divide"):
        decode_out(x, 7, weight, bias, kernel, shift)
    with pytest.raises(ShapeError, match="kernel: expected shape"):
        decode_out(x, groups, weight, bias, kernel[:2], shift)
    with pytest.raises(DtypeError, match="float32"):
        decode_out(x.double(), groups, weight, bias, kernel, shift)
    with pytest.raises(GradientError, match="reference"):
        decode_out(x.requires_grad_(), groups, weight, bias, kernel, shift)
    with pytest.raises(ShapeError, match=r"even height and width.*got 3 x 37; crop or pad"):
        decode_out(x.detach(), groups, weight, bias, kernel, shift, nv12=Nv12())


def test_torch_accepts_the_registration() -> None:
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    numbers = [number for row in Nv12().rows() for number in row]
    for shape, nv12 in ((SCENES["odd"], []), (SCENES["even"], numbers)):
        x, groups, weight, bias, kernel, shift = scene(shape)
        inputs = (x, *normalisation(x, groups, weight, bias, 1e-5), kernel, shift, nv12)
        torch.library.opcheck(decode_out_op, inputs, test_utils=checks)


def run(program: str, *arguments: str, **variables: str) -> str:
    pytest.importorskip("triton", reason="triton is not installed; pip install triton==3.9.0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_interpreted_kernel_is_the_reference(tmp_path: Path) -> None:
    arrays, wanted = {}, {}
    small = {"one": (1, 1, 1, 4, 2), "odd": (1, 3, 19, 20, 4), "thin": (1, 5, 1, 5, 1), "even": (2, 2, 18, 6, 3)}
    shown = [("one", "float32", None), ("odd", "bfloat16", None), ("thin", "float16", None), ("even", "bfloat16", "601 full")]
    for name, dtype, kind in shown:
        x, groups, weight, bias, kernel, shift = scene(small[name])
        x = x.to(getattr(torch, dtype)).float()
        numbers = torch.tensor([n for row in KINDS[kind].rows() for n in row] if kind else [], dtype=torch.float64)
        values = (x, *normalisation(x, groups, weight, bias, 1e-5), kernel, shift, numbers)
        parts = ("x", "scale", "offset", "kernel", "shift", "nv12")
        arrays |= {f"{name}, {dtype}/{part}": value.numpy() for part, value in zip(parts, values, strict=True)}
        pixels = pixels_reference(x, groups, weight, bias, kernel, shift)
        wanted[f"{name}, {dtype}"] = nv12_reference(pixels, KINDS[kind]) if kind else pixels
    np.savez(tmp_path / "in.npz", **arrays)
    run("interpret_decode_out.py", str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), TRITON_INTERPRET="1")
    with np.load(tmp_path / "out.npz") as found:
        assert set(found.files) == set(wanted)
        for name, pixels in wanted.items():
            close(torch.from_numpy(found[name]), pixels, 2e-2)


def test_it_compiles_for_an_h100_without_stack_or_spills() -> None:
    found = json.loads(run("compile_decode_out.py"))
    assert set(found) == set(REGISTERS)
    for features, figures in found.items():
        assert figures["stack"] == figures["spills"] == 0, (features, figures)
        assert figures["registers"] <= REGISTERS[features] and figures["shared"] <= 4096, (features, figures)
