"""Group normalisation with SiLU: torch's own, the reference, the CPU path and the interpreted Triton kernels agree."""

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

from kernels.checks import DtypeError, KernelError, ShapeError
from kernels.group_norm_silu import group_norm_silu
from kernels.group_norm_silu.op import group_norm_silu_op
from kernels.group_norm_silu.reference import group_norm_silu_reference

ROOT = Path(__file__).resolve().parents[2]
# places, channels, groups, SiLU; sizes of one and sizes that no block divides
SCENES = {
    "one": ((1, 1, 1), 2, 1, True),
    "odd": ((2, 7, 9), 30, 3, True),
    "group_each": ((1, 5, 3), 7, 7, True),
    "plain": ((3, 11), 12, 4, False),
    "many_groups": ((1, 33, 5), 160, 32, True),
}
# (absolute, relative): rounding of the answer, and of float32 sums
TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.bfloat16: (1e-2, 8e-3), torch.float16: (1e-3, 1e-3)}


def scene(name: str, dtype: torch.dtype = torch.float32, mean: float = 2.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x off zero, a gradient for the answer, weight and bias; whatever type, the values are exact in it."""
    places, channels, _, _ = SCENES[name]
    random = torch.Generator().manual_seed(0)
    x = torch.randn(*places, channels, generator=random) * 1.5 + mean
    grad = torch.randn(*places, channels, generator=random)
    weight, bias = torch.randn(channels, generator=random), torch.randn(channels, generator=random)
    return x.to(dtype), grad.to(dtype), weight, bias


def truth(name: str, x: Tensor, grad: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Answer and gradients by the reference in float64 from the very values that the kernels read."""
    _, _, groups, silu = SCENES[name]
    leaves = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    out = group_norm_silu_reference(leaves[0], groups, leaves[1], leaves[2], silu=silu)
    return [t.detach().float() for t in (out, *torch.autograd.grad(out, leaves, grad.double()))]


@pytest.mark.parametrize("name", SCENES)
def test_the_reference_is_what_torch_normalises(name: str) -> None:
    x, _, weight, bias = scene(name)
    _, _, groups, silu = SCENES[name]
    peer = torch.nn.functional.group_norm(x.movedim(-1, 1), groups, weight, bias).movedim(1, -1)
    peer = torch.nn.functional.silu(peer) if silu else peer
    torch.testing.assert_close(group_norm_silu_reference(x, groups, weight, bias, silu=silu), peer, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SCENES)
def test_the_cpu_path_is_the_reference_with_all_its_gradients(name: str, dtype: torch.dtype) -> None:
    x, grad, weight, bias = scene(name, dtype)
    wanted = truth(name, x, grad, weight, bias)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    out = group_norm_silu(x, SCENES[name][2], weight, bias, silu=SCENES[name][3])
    assert out.dtype == dtype and out.shape == x.shape
    absolute, relative = TOLERANCE[dtype]
    torch.testing.assert_close(out.detach().float(), wanted[0], atol=absolute, rtol=relative)
    for found, want in zip(torch.autograd.grad(out, leaves, grad), wanted[1:], strict=True):
        torch.testing.assert_close(found.float(), want, atol=3 * absolute * max(1.0, want.abs().max().item()), rtol=relative)


def test_a_large_mean_does_not_eat_the_variance() -> None:
    x, grad, weight, bias = scene("odd", mean=3000.0)
    out = group_norm_silu(x, 3, weight, bias)
    torch.testing.assert_close(out, truth("odd", x, grad, weight, bias)[0], atol=2e-3, rtol=1e-3)  # rounding of x itself: 1e-4


def test_weight_and_bias_may_be_missing() -> None:
    x = scene("odd")[0]
    torch.testing.assert_close(group_norm_silu(x, 3), group_norm_silu_reference(x, 3), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silu_holds_far_out_and_what_is_broken_stays_broken(dtype: torch.dtype) -> None:
    x, bias = torch.tensor([-1.0, 1.0]).repeat(401).view(1, -1, 2), torch.linspace(-250, 250, 401)
    for value in bias:  # normalised x is -1 and 1, so that the bias alone decides
        wanted = torch.nn.functional.silu(torch.tensor([-1.0, 1.0]) + value)
        found = group_norm_silu(x.to(dtype), 1, None, value.repeat(2))[0, 0].float()
        torch.testing.assert_close(found, wanted, atol=TOLERANCE[dtype][0], rtol=TOLERANCE[dtype][1])
    x = x.repeat(2, 1, 2).to(dtype)
    x[0, 3, 1] = torch.nan
    out = group_norm_silu(x, 2)
    assert out[0, :, :2].isnan().all() and not out[0, :, 2:].isnan().any() and not out[1].isnan().any()


def test_threads_leave_no_trace_but_rounding() -> None:
    x = torch.randn(1, 300, 301, 8, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = group_norm_silu(x, 2)
        torch.set_num_threads(3)
        torch.testing.assert_close(group_norm_silu(x, 2), one, atol=1e-5, rtol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_the_door_says_what_it_wants() -> None:
    x, _, weight, bias = scene("odd")
    for match, wrong in (
        ("divisor of the 30 channels", lambda: group_norm_silu(x, 4)),
        (r"at least one dimension of places", lambda: group_norm_silu(x[0, 0], 3)),
        ("weight: expected shape", lambda: group_norm_silu(x, 3, weight[1:], bias)),
        ("eps", lambda: group_norm_silu(x, 3, eps=float("nan"))),
        ("sizes of at least 1", lambda: group_norm_silu(x[:, :0], 3)),
    ):
        with pytest.raises(ShapeError, match=match):
            wrong()
    with pytest.raises(DtypeError, match="float64"):
        group_norm_silu(x.double(), 3)
    with pytest.raises(DtypeError, match="bias"):
        group_norm_silu(x, 3, weight, bias.half())
    with pytest.raises(KernelError, match="cpu or cuda"):
        group_norm_silu(x.to("meta"), 3)


def test_torch_accepts_the_registration() -> None:
    x, _, weight, bias = (t.requires_grad_() for t in scene("odd"))
    torch.library.opcheck(group_norm_silu_op, (x.detach().flatten(1, 2).requires_grad_(), weight, bias, 3, 1e-5, True))


def run(program: str, *arguments: str, **variables: str) -> str:
    pytest.importorskip("triton", reason="triton is not installed; pip install triton==3.9.0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_interpreted_kernels_are_the_reference_in_one_pass_and_in_two(tmp_path: Path) -> None:
    cases = {f"{name}-{way}-float32": (name, way, torch.float32) for name in SCENES for way in (0, 2**16)}
    cases |= {
        f"odd-{way}-{d}".replace("torch.", ""): ("odd", way, d) for way in (0, 2**16) for d in (torch.bfloat16, torch.float16)
    }
    arrays = {}
    for case, (name, way, dtype) in cases.items():
        parts = dict(zip(("x", "grad", "weight", "bias"), scene(name, dtype), strict=True))
        rows = {key: t.float().flatten(1, -2) if t.ndim > 1 else t for key, t in parts.items()}
        arrays |= {f"{case}/{key}": t.contiguous().numpy() for key, t in rows.items()}
        arrays[f"{case}/how"] = np.array([SCENES[name][2], SCENES[name][3], way])
        arrays[f"{case}/dtype"] = np.array(str(dtype).removeprefix("torch."))
    np.savez(tmp_path / "in.npz", **arrays)
    run("interpret_group_norm_silu.py", str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), TRITON_INTERPRET="1")
    with np.load(tmp_path / "out.npz") as found:
        for case, (name, way, dtype) in cases.items():
            wanted = truth(name, *scene(name, dtype))
            absolute, relative = TOLERANCE[dtype]
            for part, want in list(zip(("out", "dx", "dweight", "dbias"), wanted, strict=True))[: 4 if way else 1]:
                room = absolute * (3 * max(1.0, want.abs().max().item()) if part != "out" else 1)
                have = found[f"{case}/{part}"].reshape(want.shape)
                np.testing.assert_allclose(have, want.numpy(), atol=room, rtol=relative, err_msg=f"{case} {part}")


def test_they_compile_for_an_h100_without_stack_or_spills() -> None:
    # a tenth over what was measured
    ceilings = {
        "norm_once_of_ones": 80,
        "norm_once": 80,
        "norm_sums": 68,
        "norm_apply": 64,
        "norm_backward_sums": 104,
        "norm_backward_apply": 80,
    }
    found = json.loads(run("compile_group_norm_silu.py"))
    assert set(found) == set(ceilings)
    for name, figures in found.items():
        assert figures["stack"] == figures["spills"] == 0, (name, figures)
        assert figures["registers"] <= ceilings[name] and figures["shared"] <= 1024, (name, figures)
