"""Pasting patches into frames: the reference, the CPU path and the interpreted Triton kernels agree to a rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from paste_kit import INTERPRETED, SCENES, check, make_scene

from deployments.face.composite import match_rim, two_band
from kernels.checks import DeviceError, DtypeError, GradientError, ShapeError
from kernels.paste_back import Nv12, feather, paste_back
from kernels.paste_back import reference as meaning
from kernels.paste_back.op import paste_back_op, rim_moments_op
from kernels.paste_back.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
# grey levels beside the half of rounding. Patches are rounded before both paths see them, so that no type needs more
TOLERANCE = 0.02
REGISTERS = {
    "rim, rgb": 96,
    "rim, nv12": 96,
    "paste, rgb": 40,
    "paste, nv12": 56,
    "paste textured, nv12": 72,
    "paste, one pixel": 40,
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("textured", [False, True], ids=["plain", "textured"])
@pytest.mark.parametrize("nv12", [None, Nv12(), Nv12("bt601", True)], ids=["rgb", "709", "601 full"])
def test_the_cpu_path_is_the_reference(name: str, textured: bool, nv12: Nv12 | None) -> None:
    scene = make_scene(name, textured=textured, nv12=nv12)
    inputs, options = scene.arguments()
    paste_back(*inputs, **options)
    check(inputs[0], scene, TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16])
def test_the_cpu_path_takes_every_type_of_patch(dtype: torch.dtype) -> None:
    for textured, match in ((True, False), (False, True)):
        scene = make_scene("odd and turned", dtype, textured=textured, match=match)
        inputs, options = scene.arguments()
        paste_back(*inputs, **options)
        check(inputs[0], scene, TOLERANCE)


def test_what_it_means_is_what_the_compositor_does() -> None:
    """A patch that lies square in the frame: the rim's plane and the two bands of `deployments.face.composite`."""
    scene = make_scene("odd and turned", textured=True)
    assert scene.texture is not None
    mask, patch, texture = scene.mask[0].numpy(), scene.patches[0].numpy(), scene.texture[0].numpy()
    frame = scene.frames[0].numpy()
    window = frame[5 : 5 + mask.shape[0], 9 : 9 + mask.shape[1]].astype(np.float32)
    shift = match_rim(patch, window, mask) - patch
    assert np.abs(shift).max() > 1
    matrix = np.array([[1.0, 0, 9], [0, 1, 5]])
    found = meaning.rim_shift(frame.astype(np.float64), patch.astype(np.float64), mask.astype(np.float64), matrix)
    x, y = np.arange(mask.shape[1]) / mask.shape[1] - 0.5, np.arange(mask.shape[0]) / mask.shape[0] - 0.5
    np.testing.assert_allclose(found[0] + x[None, :, None] * found[1] + y[:, None, None] * found[2], shift, atol=1e-2)
    bands = meaning.two_band(patch.astype(np.float64), texture.astype(np.float64), 0.6)
    np.testing.assert_allclose(bands, two_band(patch, texture, 0.6), atol=1.5)  # OpenCV's blur ends two pixels later
    soft = cv2.GaussianBlur(patch, (7, 7), meaning.SIGMA, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(meaning.blur(patch.astype(np.float64)), soft, atol=1e-3)
    pasted = meaning.paste_back_reference(frame, patch, mask, matrix, match=False)[5 : 5 + mask.shape[0], 9 : 9 + mask.shape[1]]
    np.testing.assert_allclose(pasted, window + mask[..., None] * (patch - window), atol=1e-3)


def test_a_patch_of_another_brightness_takes_the_frames_own() -> None:
    """Light that falls from one side is followed: the patch is the frame itself, darker to the right."""
    y, x = np.mgrid[0:80, 0:90]
    picture = np.stack([120 + 20 * np.sin(x / 9), 90 + y / 2, 100 + 0 * x], -1)
    frame = torch.from_numpy(picture.round().astype(np.uint8))[None].contiguous()
    before, patch = frame.clone(), frame[:, 12:60, 20:84].float()
    patch = patch - torch.linspace(5, 40, patch.shape[2])[None, None, :, None]
    place = torch.tensor([[[1.0, 0, 20], [0, 1, 12]]])
    darker = frame.clone()
    paste_back(darker, patch, feather(48, 64, 12), place, match=False)
    paste_back(frame, patch, feather(48, 64, 12), place)
    away, away_darker = ((f.float() - before).abs().mean().item() for f in (frame, darker))
    assert away_darker > 4 and away < 0.1 * away_darker


def test_pasting_everything_nowhere_leaves_the_frames_alone() -> None:
    scene = make_scene("odd and turned")
    for matrices, mask in (
        (scene.matrices + torch.tensor([[0, 0, 500.0], [0, 0, 0]]), scene.mask),
        (scene.matrices, torch.zeros_like(scene.mask)),
    ):
        frames = scene.frames.clone()
        paste_back(frames, scene.patches, mask, matrices)
        assert torch.equal(frames, scene.frames)


def test_threads_do_not_change_a_byte() -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            random = torch.Generator().manual_seed(1)
            frames = torch.randint(0, 256, (1, 150, 160, 3), generator=random, dtype=torch.uint8)
            patch = torch.rand(1, 120, 120, 3, generator=random) * 255
            paste_back(frames, patch, feather(120, 120, 20), torch.tensor([[[1.1, 0.1, 5], [-0.1, 1.1, 12]]]))
            found.append(frames)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_the_door_says_what_it_wants() -> None:
    scene = make_scene("odd and turned")
    frames, patches, mask, matrices = scene.arguments()[0]
    with pytest.raises(ShapeError, match=r"even height and width.*by a pixel, or use RGB"):
        paste_back(torch.zeros(2, 60, 57, dtype=torch.uint8), patches, mask, matrices, nv12=Nv12())
    with pytest.raises(ShapeError, match=r"1.5 H rows for an even H, got 40"):
        paste_back(torch.zeros(2, 40, 56, dtype=torch.uint8), patches, mask, matrices, nv12=Nv12())
    with pytest.raises(ShapeError, match=r"frames: expected uint8 \[B, H, W, 3\].*nv12=Nv12\(\)"):
        paste_back(torch.zeros(2, 60, 56, dtype=torch.uint8), patches, mask, matrices)
    with pytest.raises(DtypeError, match="frames: expected uint8"):
        paste_back(frames.float(), patches, mask, matrices)
    with pytest.raises(ShapeError, match="bt601 or bt709"):
        paste_back(torch.zeros(2, 60, 56, dtype=torch.uint8), patches, mask, matrices, nv12=Nv12("bt2020"))
    with pytest.raises(ShapeError, match="in place"):
        paste_back(frames.permute(0, 2, 1, 3), patches, mask, matrices)
    with pytest.raises(ShapeError, match="mask: expected shape"):
        paste_back(frames, patches, mask[:, 1:], matrices)
    with pytest.raises(DtypeError, match="the same for patches and texture"):
        paste_back(frames, patches, mask, matrices, texture=patches.half())
    with pytest.raises(ShapeError, match=r"invertible.*for frame 1"):
        paste_back(frames, patches, mask, matrices * torch.tensor([1.0, 0])[:, None, None])
    with pytest.raises(DeviceError, match="floats on the CPU"):
        paste_back(frames, patches, mask, matrices.long())
    with pytest.raises(ShapeError, match="gain: expected 0 to 1"):
        paste_back(frames, patches, mask, matrices, gain=1.5)
    with pytest.raises(GradientError, match="writes bytes"):
        paste_back(frames, patches.clone().requires_grad_(), mask, matrices)
    assert torch.equal(frames, scene.frames)


@pytest.mark.parametrize("nv12", [None, Nv12()], ids=["rgb", "nv12"])
def test_torch_accepts_the_registration(nv12: Nv12 | None) -> None:
    scene = make_scene("odd and turned", textured=True, nv12=nv12)
    frames, patches, mask, matrices = scene.arguments()[0]
    size = frames.shape[1] // 3 * 2 if nv12 else frames.shape[1], frames.shape[2]
    plan, rows, columns = make_plan(matrices, (*mask.shape[1:],), size, nv12)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    yes = nv12 is not None
    torch.library.opcheck(rim_moments_op, (frames, patches, mask, plan, yes), test_utils=checks)
    moments = rim_moments_op(frames, patches, mask, plan, yes)
    for texture, known in ((scene.texture, moments), (None, None)):
        inputs = (frames, patches, mask, texture, plan, known, rows, columns, 0.5, yes)
        torch.library.opcheck(paste_back_op, inputs, test_utils=checks)


def run(program: str, *arguments: str, **variables: str) -> str:
    pytest.importorskip("triton", reason="triton is not installed; pip install triton==3.9.0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_interpreted_kernels_are_the_reference(tmp_path: Path) -> None:
    run("interpret_paste_back.py", str(tmp_path / "out.npz"), TRITON_INTERPRET="1")
    with np.load(tmp_path / "out.npz") as found:
        assert len(found.files) == len(INTERPRETED)
        for number, how in enumerate(INTERPRETED):
            check(torch.from_numpy(found[str(number)]), make_scene(**how), TOLERANCE)


def test_they_compile_for_an_h100_without_stack_or_spills() -> None:
    found = json.loads(run("compile_paste_back.py"))
    assert set(found) == set(REGISTERS), "every kernel has a ceiling"
    for name, figures in found.items():
        assert figures["stack"] == figures["spills"] == 0, (name, figures)
        assert figures["registers"] <= REGISTERS[name] and figures["shared"] <= 1024, (name, figures)
