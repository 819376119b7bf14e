"""Group norm and SiLU: torch's own, the reference, the CPU path, the interpreted Triton kernels; forward and gradients."""

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

from kernels.checks import DtypeError, ShapeError
from kernels.group_norm_silu import group_norm_silu
from kernels.group_norm_silu.op import group_norm_silu as registered
from kernels.group_norm_silu.op import group_norm_silu_backward
from kernels.group_norm_silu.reference import group_norm_silu_reference

ROOT = Path(__file__).resolve().parents[2]
# shape, groups, with SiLU; in Triton the first three are one program a group, the others go by chunks
SCENES = {
    "one": ((1, 1, 1, 1), 1, True),
    "odd": ((2, 3, 5, 6), 3, True),
    "plain": ((2, 7, 5, 12), 4, False),
    "chunks": ((2, 35, 31, 20), 4, True),
    "one_group": ((1, 9, 9, 130), 1, True),
    "plain_chunks": ((1, 47, 45, 6), 2, False),
}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def scene(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor, int, bool]:
    """x far from zero in some channels, weight, bias, a gradient."""
    shape, groups, silu = SCENES[name]
    random = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=random) * 2 + 3 * torch.randn(shape[-1], generator=random)
    weight, bias = (torch.randn(shape[-1], generator=random) for _ in range(2))
    return x, weight, bias, torch.randn(shape, generator=random), groups, silu


def truth(name: str) -> dict[str, Tensor]:
    """Result and gradients of the reference in float64."""
    x, weight, bias, grad, groups, silu = scene(name)
    inputs = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    out = group_norm_silu_reference(*inputs, groups, 1e-5, silu)
    gradients = torch.autograd.grad(out, inputs, grad.double())
    return dict(zip(("out", "dx", "dweight", "dbias"), (out.detach(), *gradients), strict=True))


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest value."""
    assert found.shape == wanted.shape
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found.double(), wanted, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("name", [name for name in SCENES if name != "one"])  # torch refuses to norm one number
def test_the_reference_is_torchs_norm(name: str) -> None:
    x, weight, bias, _, groups, silu = scene(name)
    made = torch.nn.functional.group_norm(x.double().permute(0, 3, 1, 2), groups, weight.double(), bias.double(), 1e-5)
    close(truth(name)["out"], (torch.nn.functional.silu(made) if silu else made).permute(0, 2, 3, 1), 1e-12)


@pytest.mark.parametrize("kind", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SCENES)
def test_the_cpu_path_is_the_reference(name: str, kind: torch.dtype) -> None:
    x, weight, bias, _, groups, silu = scene(name)
    rounded = [tensor.to(kind) for tensor in (x, weight, bias)]
    wanted = group_norm_silu_reference(*(tensor.double() for tensor in rounded), groups, 1e-5, silu)
    found = group_norm_silu(*rounded, groups, 1e-5, silu)
    assert found.dtype == kind
    close(found, wanted, TOLERANCE[kind])


@pytest.mark.parametrize("name", SCENES)
def test_gradients_are_those_of_the_reference(name: str) -> None:
    x, weight, bias, grad, groups, silu = scene(name)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    found = torch.autograd.grad(group_norm_silu(*inputs, groups, 1e-5, silu), inputs, grad)
    wanted = truth(name)
    for gradient, part in zip(found, ("dx", "dweight", "dbias"), strict=True):
        close(gradient, wanted[part], 2e-5)


def test_the_door_says_what_it_wants() -> None:
    x, weight, bias, *_ = scene("odd")
    with pytest.raises(ShapeError, match="groups that divide the 6 channels"):
        group_norm_silu(x, weight, bias, 4)
    with pytest.raises(ShapeError, match=r"\[N, H, W, C\]"):
        group_norm_silu(x[0], weight, bias, 3)
    with pytest.raises(ShapeError, match="weight: expected shape"):
        group_norm_silu(x, weight[:5], bias, 3)
    with pytest.raises(DtypeError, match="bias: expected torch.float32"):
        group_norm_silu(x, weight, bias.double(), 3)
    with pytest.raises(DtypeError, match="float32, float16 or bfloat16"):
        group_norm_silu(x.double(), weight, bias, 3)


def test_torch_accepts_the_registration() -> None:
    x, weight, bias, grad, groups, silu = scene("odd")
    torch.library.opcheck(registered, (x, weight, bias, groups, 1e-5, silu))
    _, mean, rstd = registered(x, weight, bias, groups, 1e-5, silu)
    parts = ("test_schema", "test_faketensor")
    torch.library.opcheck(group_norm_silu_backward, (grad, x, weight, bias, mean, rstd, silu), test_utils=parts)


def run(program: str, *arguments: str, **variables: str) -> str:
    pytest.importorskip("triton", reason="triton is not installed; pip install triton==3.9.0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_interpreted_kernels_are_the_reference(tmp_path: Path) -> None:
    arrays = {}
    for name in SCENES:
        *tensors, groups, silu = scene(name)
        arrays |= {f"{name}/{part}": t.numpy() for part, t in zip(("x", "weight", "bias", "grad"), tensors, strict=True)}
        arrays[f"{name}/numbers"] = np.array([groups, silu])
    np.savez(tmp_path / "in.npz", **arrays)
    run("interpret_group_norm.py", str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), TRITON_INTERPRET="1")
    with np.load(tmp_path / "out.npz") as found:
        for name in SCENES:
            for part, wanted in truth(name).items():
                close(torch.from_numpy(found[f"{name}/{part}"]), wanted, 2e-5)


def test_they_compile_for_an_h100_without_stack_or_spills() -> None:
    for name, figures in json.loads(run("compile_group_norm.py")).items():
        assert figures["stack"] == figures["spills"] == 0, (name, figures)
        assert figures["registers"] <= 144, (name, figures)
        if name in ("chunk_statistics", "apply", "backward_sums", "backward_apply"):
            assert figures["wide"] > 0, f"{name} reads 16 bytes at once: {figures}"
