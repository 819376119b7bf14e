"""The raster: definition, numba path, gradients, a peer, and what the door refuses."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from kernels.checks import DeviceError, DtypeError, ShapeError
from kernels.gaussian_bin import bin_splats
from kernels.gaussian_project import project
from kernels.gaussian_raster import Picture, rasterize
from kernels.gaussian_raster.op import gaussian_raster
from kernels.gaussian_raster.reference import raster_reference
from kernels.splats import Splats
from tests.kernels.gaussian_kit import close, make_scene

NAMES = ("means", "conics", "opacities", "colours", "background")


@dataclass(frozen=True)
class Case:
    """Everything the raster takes, as leaves of a gradient; and the same in float64."""

    leaves: list[Tensor]
    depths: Tensor
    extents: Tensor
    height: int
    width: int

    def fast(self, with_depth: bool = False) -> Picture:
        means, conics, opacities, colours, background = self.leaves
        splats = Splats(means, conics, self.depths, self.extents)
        tiles = bin_splats(splats, opacities, self.height, self.width)
        return rasterize(splats, opacities, colours, tiles, background=background, with_depth=with_depth)

    def slow(self, leaves: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        means, conics, opacities, colours, background = leaves
        splats = (means, conics, self.depths.double(), self.extents.double())
        return raster_reference(*splats, opacities, colours, background, self.height, self.width)


def make_case(
    frames: int, count: int, height: int, width: int, channels: int = 3, size: float = 0.3, seed: int = 0, kind: str = "mixed"
) -> Case:
    scene = make_scene(frames, count, height, width, channels, size, seed, kind)
    splats = project(scene.means, scene.quats, scene.scales, scene.opacities, scene.camera)
    leaves = [splats.means, splats.conics, scene.opacities, scene.colours, scene.background]
    return Case([leaf.clone().requires_grad_() for leaf in leaves], splats.depths, splats.extents, height, width)


def compare(case: Case, gradient_tolerance: float = 1e-4) -> None:
    """Pictures and all gradients against the reference, except where rounding decides about the threshold."""
    picture = case.fast()
    doubles = [leaf.detach().double().requires_grad_() for leaf in case.leaves]
    colours, alpha, doubt = case.slow(doubles)
    sure = doubt > 1e-4
    assert sure.float().mean() > 0.98
    close("colours", picture.colours * sure[..., None], colours * sure[..., None], 1e-5)
    close("alpha", picture.alpha * sure, alpha * sure, 1e-5)
    random = torch.Generator().manual_seed(5)
    by_colour = torch.randn(colours.shape, generator=random) * sure[..., None]
    by_alpha = torch.randn(alpha.shape, generator=random) * sure
    ((picture.colours * by_colour).sum() + (picture.alpha * by_alpha).sum()).backward()
    ((colours * by_colour).sum() + (alpha * by_alpha).sum()).backward()
    for name, leaf, double in zip(NAMES, case.leaves, doubles, strict=True):
        assert leaf.grad is not None
        close(name, leaf.grad, torch.zeros_like(leaf) if double.grad is None else double.grad, gradient_tolerance)


@pytest.mark.parametrize(
    ("frames", "count", "height", "width", "channels"),
    [(1, 0, 5, 7, 3), (1, 1, 1, 1, 3), (1, 1, 17, 33, 3), (3, 120, 17, 33, 3), (1, 80, 32, 16, 1), (1, 40, 20, 20, 16)],
)
def test_matches_the_reference_with_all_gradients(frames: int, count: int, height: int, width: int, channels: int) -> None:
    compare(make_case(frames, count, height, width, channels))


def test_a_large_odd_picture_matches_the_reference() -> None:
    compare(make_case(1, 60, 300, 511, size=0.6))


@pytest.mark.parametrize("kind", ["solid", "veil"])
def test_deep_scenes_match_the_reference(kind: str) -> None:
    """Hundreds of layers: tiles stop early, transmittance would fall below what float32 can hold."""
    case = make_case(1, 400, 24, 24, size=3.0, kind=kind)
    picture = case.fast()
    colours, alpha, doubt = case.slow([leaf.detach().double() for leaf in case.leaves])
    sure = doubt > 1e-4
    assert alpha.min() > 0.9999
    close("colours", (picture.colours * sure[..., None]).detach(), colours * sure[..., None], 1.5e-4)
    close("alpha", (picture.alpha * sure).detach(), alpha * sure, 1.5e-4)
    picture.colours.sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in case.leaves if leaf.grad is not None)


def test_where_the_alpha_is_cut_its_gradient_is_zero() -> None:
    """Large opaque splats, few enough that no pixel is dark: around the centres the alpha stays at 0.999."""
    compare(make_case(1, 5, 17, 33, size=4.0, kind="solid"), 1e-3)


def test_the_order_is_by_depth_and_alpha_is_what_a_formula_says() -> None:
    means, conics = torch.tensor([[[4.0, 4.0], [4.0, 4.0]]]), torch.tensor([[[0.1, 0.0, 0.1]] * 2])
    splats = Splats(means, conics, torch.tensor([[2.0, 1.0]]), torch.full((1, 2, 2), 20.0))
    opacities = torch.tensor([[1.0, 0.25]])
    colours = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    picture = rasterize(splats, opacities, colours, bin_splats(splats, opacities, 9, 9), with_depth=True)
    torch.testing.assert_close(picture.colours[0, 4, 4], torch.tensor([0.75 * 0.999, 0.25]))
    torch.testing.assert_close(picture.alpha[0, 4, 4], torch.tensor(1 - 0.75 * 0.001))
    assert picture.depth is not None
    torch.testing.assert_close(picture.depth[0, 4, 4], torch.tensor(0.25 * 1 + 0.75 * 0.999 * 2))


def test_gradients_of_the_reference_match_finite_differences() -> None:
    case = make_case(1, 4, 5, 6, size=0.6, seed=2)
    doubles = [leaf.detach().double().requires_grad_() for leaf in case.leaves]
    assert case.slow(doubles)[2].min() > 1e-3, "no alpha may lie near the threshold here"
    torch.autograd.gradcheck(lambda *leaves: case.slow(list(leaves))[:2], doubles, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_depth_is_one_more_colour() -> None:
    case = make_case(2, 50, 20, 20)
    plain, deep = case.fast(), case.fast(with_depth=True)
    assert deep.depth is not None and deep.depth.max() > 0
    torch.testing.assert_close(deep.colours, plain.colours)
    bare = case.leaves[4].new_zeros(1, 1)
    wanted = raster_reference(*_no_colours(case), case.depths.double()[..., None], bare.double(), 20, 20)
    sure = wanted[2] > 1e-4
    close("depth", deep.depth.detach() * sure, wanted[0][..., 0] * sure, 1e-5)


def _no_colours(case: Case) -> tuple[Tensor, ...]:
    means, conics, opacities = (leaf.detach().double() for leaf in case.leaves[:3])
    return means, conics, case.depths.double(), case.extents.double(), opacities


def test_matches_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """gsplat's own alphas and sums; only the running product is ours, because its library for that needs CUDA."""
    peer = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed; pip install gsplat==1.5.3")
    case = make_case(1, 60, 33, 47)
    means, conics, opacities, colours, _ = (leaf.detach()[0] for leaf in case.leaves)
    order = torch.argsort(case.depths[0], stable=True)
    order = order[case.extents[0, order, 0] > 0]
    pixels = torch.arange(33 * 47)
    delta = torch.stack([pixels % 47, pixels // 47], -1)[:, None] - means[order]  # [P, N, 2]
    power = 0.5 * (conics[order, 0] * delta[..., 0] ** 2 + conics[order, 2] * delta[..., 1] ** 2)
    power = power + conics[order, 1] * delta[..., 0] * delta[..., 1]
    rows, columns = torch.nonzero(opacities[order] * torch.exp(-power) >= 1 / 255, as_tuple=True)

    def weights(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
        dense = alphas.new_zeros(n_rays, len(order)).index_put((ray_indices, columns), alphas)
        through = torch.cumprod(torch.cat([dense.new_ones(n_rays, 1), 1 - dense], 1), 1)
        return alphas * through[ray_indices, columns], through

    def add_up(weight: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
        source = weight[:, None] if values is None else weight[:, None] * values
        return source.new_zeros(n_rays, source.shape[1]).index_add(0, ray_indices, source)

    stand_in = types.SimpleNamespace(render_weight_from_alpha=weights, accumulate_along_rays=add_up)
    monkeypatch.setitem(sys.modules, "nerfacc", stand_in)
    wanted, alphas = peer.accumulate(
        *(means[None] + 0.5, conics[None], opacities[None], colours[None]),
        *(order[columns], rows, torch.zeros_like(rows), 47, 33),
    )
    with torch.no_grad():
        case.leaves[4].zero_()
    picture = case.fast()
    assert alphas.max() > 0.5
    close("colours", picture.colours.detach(), wanted, 1e-5)
    close("alpha", picture.alpha.detach(), alphas[..., 0], 1e-5)


def test_threads_do_not_change_the_picture() -> None:
    case, threads = make_case(2, 2000, 128, 128, size=0.2), torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            picture = case.fast()
            results.append((picture.colours, torch.autograd.grad(picture.colours.square().sum(), case.leaves)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    for name, one, two in zip(NAMES, results[0][1], results[1][1], strict=True):
        close(name, two, one, 1e-5)


def test_opcheck_and_compile() -> None:
    case = make_case(1, 10, 20, 30)
    means, conics, opacities, colours, background = case.leaves
    tiles = bin_splats(Splats(means, conics, case.depths, case.extents), opacities, 20, 30, capacity=100)
    lists = (tiles.entries, tiles.starts, tiles.needed)
    torch.library.opcheck(gaussian_raster, (means, conics, case.extents, opacities, colours, background, *lists, 20, 30, 16))

    def loss(colours: Tensor) -> Tensor:
        splats = Splats(means, conics, case.depths, case.extents)
        lists = bin_splats(splats, opacities, 20, 30, capacity=100)
        return rasterize(splats, opacities, colours, lists, background=background).colours.square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (one,) = torch.autograd.grad(compiled(colours), colours)
    (two,) = torch.autograd.grad(loss(colours), colours)
    torch.testing.assert_close(one, two)
    assert two.abs().max() > 0


def test_the_door_teaches() -> None:
    case = make_case(1, 4, 8, 8)
    means, conics, opacities, colours, _ = case.leaves
    splats = Splats(means, conics, case.depths, case.extents)
    tiles = bin_splats(splats, opacities, 8, 8)
    with pytest.raises(ShapeError, match="1 to 16 channels"):
        rasterize(splats, opacities, torch.zeros(1, 4, 16), tiles, with_depth=True)
    with pytest.raises(ShapeError, match="add a first dimension"):
        rasterize(splats, opacities, torch.zeros(4, 3), tiles)
    with pytest.raises(DtypeError, match=r"colours: expected float32, got torch.float64"):
        rasterize(splats, opacities, colours.double(), tiles)
    with pytest.raises(ShapeError, match="tiles: expected lists for 1 frames of 2x2 tiles"):
        rasterize(splats, opacities, colours, replace(tiles, height=20, width=30))
    fewer = Splats(means[:, :2], conics[:, :2], case.depths[:, :2], case.extents[:, :2])
    with pytest.raises(ShapeError, match="and 2 splats, got 1 lists of 4"):
        rasterize(fewer, opacities[:, :2], colours[:, :2], tiles)
    with pytest.raises(DeviceError, match="opacities: expected a tensor on cpu like the others, got meta"):
        rasterize(splats, opacities.to("meta"), colours, tiles)
    with pytest.raises(ShapeError, match="CPU draws tiles of 16"):
        rasterize(splats, opacities, colours, bin_splats(splats, opacities, 8, 8, tile=8))
