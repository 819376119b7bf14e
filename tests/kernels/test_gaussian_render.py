"""The three operations in a row: pictures and gradients from space to pixels, compiled or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.kernels import gaussians
from kernels.gaussian_project.reference import project_reference
from kernels.gaussian_raster.reference import raster_reference
from kernels.gaussians import render
from tests.kernels.gaussian_kit import close, make_scene


def test_gradients_reach_space() -> None:
    scene, random = make_scene(2, 60, 24, 31), torch.Generator().manual_seed(4)
    few = [scene.means, scene.quats, scene.scales, scene.opacities, scene.colours]
    many = [t.double().requires_grad_() for t in few]
    few = [t.clone().requires_grad_() for t in few]
    picture = render(*few, scene.camera, background=scene.background)
    camera = scene.camera
    splats = project_reference(*many[:4], camera.view.double(), camera.intrinsics.double(), 24, 31)
    wanted, _, doubt = raster_reference(*splats, *many[3:], scene.background.double(), 24, 31)
    sure = (doubt > 1e-3)[..., None]
    assert sure.float().mean() > 0.9
    close("colours", picture.colours * sure, wanted * sure, 1e-4)
    weights = torch.randn(wanted.shape, generator=random) * sure
    (picture.colours * weights).sum().backward()
    (wanted * weights).sum().backward()
    for name, have, want in zip(("means", "quats", "scales", "opacities", "colours"), few, many, strict=True):
        assert have.grad is not None and want.grad is not None and want.grad.abs().max() > 0
        close(name, have.grad, want.grad, 2e-3)


def test_frames_are_independent() -> None:
    scene = make_scene(3, 40, 20, 20)
    shared = (scene.quats, scene.scales, scene.opacities, scene.colours)
    whole = render(scene.means, *shared, scene.camera, background=scene.background)
    for frame in range(3):
        camera = replace(scene.camera, view=scene.camera.view[frame : frame + 1])
        alone = render(scene.means[frame : frame + 1], *shared, camera, background=scene.background[frame : frame + 1])
        assert torch.equal(alone.colours[0], whole.colours[frame])
    repeated = [t.repeat(3, *[1] * (t.ndim - 1)) for t in shared]
    assert torch.equal(render(scene.means, *repeated, scene.camera, background=scene.background).colours, whole.colours)


def test_the_whole_chain_compiles_without_a_break() -> None:
    scene = make_scene(2, 30, 20, 20)

    def loss(means: Tensor) -> Tensor:
        rest = (scene.quats, scene.scales, scene.opacities, scene.colours)
        return render(means, *rest, scene.camera, capacity=500).colours.square().sum()

    leaf = scene.means.clone().requires_grad_()
    (one,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(leaf), leaf)
    (two,) = torch.autograd.grad(loss(leaf), leaf)
    assert two.abs().max() > 0
    torch.testing.assert_close(one, two)


def test_every_number_of_the_result_is_written() -> None:
    """The same with all new buffers full of NaN."""
    scene = make_scene(2, 50, 20, 37)
    inputs = (scene.means, scene.quats, scene.scales, scene.opacities, scene.colours)

    def both() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in inputs]
        picture = render(*leaves, scene.camera, background=scene.background)
        return [picture.colours, picture.alpha, *torch.autograd.grad(picture.colours.square().sum(), leaves)]

    wanted = both()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all(), "torch fills new buffers with NaN now"
        found = both()
    finally:
        torch.use_deterministic_algorithms(False)
    for have, want in zip(found, wanted, strict=True):
        assert torch.equal(have, want)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same_and_fits_a_cuda_graph() -> None:
    scene = make_scene(3, 200, 70, 90)
    inputs = [scene.means, scene.quats, scene.scales, scene.opacities, scene.colours]
    wanted = render(*inputs, scene.camera, background=scene.background)
    moved = [t.cuda() for t in inputs]
    camera = replace(scene.camera, view=scene.camera.view.cuda(), intrinsics=scene.camera.intrinsics.cuda())
    for tile in (8, 16):
        found = render(*moved, camera, background=scene.background.cuda(), capacity=20000, tile=tile)
        apart = (found.colours.cpu() - wanted.colours).abs().amax(-1)
        assert apart.max() < 1 / 255 + 1e-3 and (apart > 1e-4).float().mean() < 0.01
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        again = render(*moved, camera, background=scene.background.cuda(), capacity=20000)
    graph.replay()
    torch.testing.assert_close(again.colours, found.colours)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_has_no_ratio_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["gaussians", "--device", "cuda", "--save", str(tmp_path / "times.json")])
    assert gaussians.main() == 1
    assert "no GPU" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_benchmark_times_nothing_whose_pictures_or_gradients_differ() -> None:
    x = torch.linspace(0.1, 1, 48).reshape(1, 4, 4, 3)
    assert gaussians.agree_both_ways(lambda t: t[0] ** 2, lambda t: t[0] * t[0], [x])["same"]
    steep = gaussians.agree_both_ways(lambda t: t[0] ** 2, lambda t: t[0].detach() * t[0], [x])
    assert steep["largest"] == 0 and not steep["same"], "half the gradient"
    assert not gaussians.agree_both_ways(lambda t: t[0] ** 2, lambda t: t[0] ** 2 + 0.01, [x])["same"]
