"""The projection: definition, numba path, gradients, and what the door refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.checks import DtypeError, ShapeError
from kernels.gaussian_project import project
from kernels.gaussian_project.op import gaussian_project
from kernels.gaussian_project.reference import project_reference
from kernels.splats import Camera, Splats
from tests.kernels.gaussian_kit import Scene, close, make_scene


def reference(scene: Scene) -> tuple[torch.Tensor, ...]:
    s, c = scene, scene.camera
    return project_reference(s.means, s.quats, s.scales, s.opacities, c.view, c.intrinsics, c.height, c.width)


def fast(scene: Scene) -> Splats:
    return project(scene.means, scene.quats, scene.scales, scene.opacities, scene.camera)


def single(mean: list[float], scale: list[float], opacity: float = 0.5, quat: tuple[float, ...] = (1, 0, 0, 0)) -> Splats:
    camera = Camera(torch.eye(4)[None], torch.tensor([[20.0, 20, 15.5, 15.5]]), 32, 32)
    numbers = [torch.tensor([[value]], dtype=torch.float32) for value in (mean, list(quat), scale)]
    return project(*numbers, torch.tensor([[opacity]]), camera)


@pytest.mark.parametrize(
    ("frames", "splats", "height", "width"), [(1, 0, 5, 5), (1, 1, 1, 1), (3, 80, 17, 33), (2, 200, 300, 511)]
)
def test_matches_the_reference(frames: int, splats: int, height: int, width: int) -> None:
    scene = make_scene(frames, splats, height, width)
    found, wanted = fast(scene), reference(scene.double())
    for name, value in zip(("means", "conics", "depths", "extents"), wanted, strict=True):
        close(name, getattr(found, name), value, 1e-5)
    if splats > 50:
        shown = (found.extents[..., 0] > 0).float().mean()
        assert 0.1 < shown < 0.9, "the scene must hold both splats that are seen and splats that are not"


def test_gradients_match_autograd_of_the_reference() -> None:
    scene, random = make_scene(3, 60, 40, 50), torch.Generator().manual_seed(1)
    few = [scene.means.requires_grad_(), scene.quats.requires_grad_(), scene.scales.requires_grad_()]
    found = fast(scene)
    double = scene.double()
    many = [t.detach().requires_grad_() for t in (double.means, double.quats, double.scales)]
    wanted = reference(replace(double, means=many[0], quats=many[1], scales=many[2]))
    weights = [torch.randn(t.shape, generator=random) for t in wanted[:3]]
    sum((w * t).sum() for w, t in zip(weights, (found.means, found.conics, found.depths), strict=True)).backward()
    sum((w * t).sum() for w, t in zip(weights, wanted, strict=False)).backward()
    for name, have, want in zip(("means", "quats", "scales"), few, many, strict=True):
        assert have.grad is not None and want.grad is not None and want.grad.abs().max() > 0
        close(name, have.grad, want.grad, 1e-4)


def test_gradients_of_the_reference_match_finite_differences() -> None:
    scene = make_scene(2, 5, 40, 50, size=0.5, seed=3).double()
    leaves = [t.requires_grad_() for t in (scene.means, scene.quats, scene.scales)]
    assert (reference(scene)[3] > 0).any()
    torch.autograd.gradcheck(
        lambda m, q, s: reference(replace(scene, means=m, quats=q, scales=s))[:3], leaves, eps=1e-6, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("shared", [False, True])
def test_cameras_have_gradients_too(shared: bool) -> None:
    scene, random = make_scene(3, 60, 40, 50, size=0.8), torch.Generator().manual_seed(2)
    view, intrinsics = scene.camera.view, scene.camera.intrinsics
    view, intrinsics = (view[:1] if shared else view), intrinsics.expand(1 if shared else 3, 4)
    few = [t.clone().requires_grad_() for t in (view, intrinsics)]
    many = [t.double().requires_grad_() for t in (view, intrinsics)]
    found = fast(replace(scene, camera=replace(scene.camera, view=few[0], intrinsics=few[1])))
    double = scene.double()
    wanted = reference(replace(double, camera=replace(double.camera, view=many[0], intrinsics=many[1])))
    slopes = (found.means.detach() - intrinsics[:, None, 2:]).abs() / 50
    assert ((slopes > 0.7) & (found.extents > 0)).any(), "some are held back at the border"
    weights = [torch.randn(t.shape, generator=random) for t in wanted[:3]]
    sum((w * t).sum() for w, t in zip(weights, (found.means, found.conics, found.depths), strict=True)).backward()
    sum((w * t).sum() for w, t in zip(weights, wanted, strict=False)).backward()
    for name, have, want in zip(("view", "intrinsics"), few, many, strict=True):
        assert have.grad is not None and want.grad is not None and want.grad.abs().min() > 0
        close(name, have.grad, want.grad, 1e-4)


def test_gradients_of_the_references_camera_match_finite_differences() -> None:
    scene = make_scene(2, 5, 40, 50, size=0.5, seed=3).double()
    leaves = [t.requires_grad_() for t in (scene.camera.view, scene.camera.intrinsics)]
    torch.autograd.gradcheck(
        lambda v, k: reference(replace(scene, camera=replace(scene.camera, view=v, intrinsics=k)))[:3],
        leaves, eps=1e-6, atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_matches_a_peer() -> None:
    peer = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed; pip install gsplat==1.5.3")
    scene = make_scene(2, 100, 60, 80)
    found, camera = fast(scene), scene.camera
    covariances, _ = peer._quat_scale_to_covar_preci(scene.quats, scene.scales, compute_preci=False)
    for frame in range(2):
        view = torch.cat([camera.view[frame], torch.tensor([[0.0, 0, 0, 1]])])[None]
        fx, fy, cx, cy = camera.intrinsics[0].tolist()
        matrix = torch.tensor([[[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]]])  # its pixel centres lie at halves
        _, means, depths, conics, _ = peer._fully_fused_projection(
            scene.means[frame], covariances[0], view, matrix, camera.width, camera.height
        )
        shown = found.extents[frame, :, 0] > 0
        assert shown.sum() > 20
        close("means", found.means[frame][shown], means[0][shown] - 0.5, 1e-5)
        close("conics", found.conics[frame][shown], conics[0][shown], 1e-3)  # its determinants lose digits
        close("depths", found.depths[frame][shown], depths[0][shown], 1e-6)


@pytest.mark.parametrize(
    ("mean", "scale", "opacity"),
    [
        ([0, 0, -1], [0.1] * 3, 0.5),  # behind the camera
        ([0, 0, 0], [0.1] * 3, 0.5),  # in the camera
        ([0, 0, 0.005], [0.1] * 3, 0.5),  # nearer than the near plane
        ([1e4, 0, 1], [0.1] * 3, 0.5),  # far outside
        ([0, 0, 1], [0.1] * 3, 0.0),  # invisible
        ([0, 0, 1], [0.1] * 3, 0.0039),  # less than 1/255
        ([0, 0, 1], [1e30] * 3, 0.5),  # larger than float32 can say
        ([float("nan"), 0, 1], [0.1] * 3, 0.5),
        ([0, 0, 1], [float("inf"), 0.1, 0.1], 0.5),
    ],
)
def test_what_cannot_be_seen_is_all_zeros(mean: list[float], scale: list[float], opacity: float) -> None:
    splats = single(mean, scale, opacity)
    for value in (splats.means, splats.conics, splats.depths, splats.extents):
        assert (value == 0).all()


def test_a_point_becomes_a_blurred_dot_and_no_quaternion_nothing() -> None:
    dot = single([0, 0, 2], [0, 0, 0], 1.0)
    assert dot.means[0, 0].tolist() == [15.5, 15.5]
    torch.testing.assert_close(dot.conics[0, 0], torch.tensor([1 / 0.3, 0, 1 / 0.3]), rtol=1e-5, atol=1e-6)
    needle = single([0, 0, 1], [0, 0, 50.0], 1.0, (0.9, 0.3, 0.3, 0.1))
    assert torch.isfinite(needle.conics).all() and (needle.extents > 0).all()
    assert (single([0, 0, 2], [0.1] * 3, 0.5, (0, 0, 0, 0)).extents == 0).all()


def test_opcheck_and_compile() -> None:
    scene = make_scene(2, 10, 20, 30)
    inputs = (scene.means, scene.quats.clone().requires_grad_(), scene.scales, scene.opacities)
    rows, intrinsics = (t.clone().requires_grad_() for t in (scene.camera.view.reshape(2, 12), scene.camera.intrinsics))
    torch.library.opcheck(gaussian_project, (*inputs, rows, intrinsics, 2, 20, 30, 0.01, 1e10, 0.3))
    compiled = torch.compile(lambda m: project(m, *inputs[1:], scene.camera).means * 2, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(scene.means), fast(scene).means * 2)


def test_the_door_teaches() -> None:
    scene = make_scene(2, 4, 8, 8)
    with pytest.raises(DtypeError, match=r"convert it with \.float"):
        fast(scene.double())
    with pytest.raises(ShapeError, match=r"quats: expected shape \[B or 1, N, 4\]"):
        fast(replace(scene, quats=scene.quats[..., :3]))
    with pytest.raises(ShapeError, match="one number of frames"):
        fast(replace(scene, quats=scene.quats.repeat(3, 1, 1)))
    with pytest.raises(ShapeError, match="1 to 16384 pixels"):
        fast(replace(scene, camera=replace(scene.camera, height=0)))
    with pytest.raises(ShapeError, match="near < far"):
        fast(replace(scene, camera=replace(scene.camera, near=2.0, far=1.0)))
