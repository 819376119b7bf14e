"""The tile lists: against asking every tile about every splat, and what happens when they do not fit."""

from __future__ import annotations

import itertools

import pytest
import torch

from kernels.checks import CapacityError, ShapeError
from kernels.gaussian_bin import bin_splats
from kernels.gaussian_bin.op import gaussian_bin
from kernels.gaussian_bin.reference import bin_reference
from kernels.gaussian_project import project
from kernels.gaussian_raster import rasterize
from kernels.splats import Splats, Tiles
from tests.kernels.gaussian_kit import make_scene


def splats_of(frames: int, splats: int, height: int, width: int, size: float = 0.3) -> tuple[Splats, torch.Tensor]:
    scene = make_scene(frames, splats, height, width, size=size)
    return project(scene.means, scene.quats, scene.scales, scene.opacities, scene.camera), scene.opacities


def lists_of(tiles: Tiles) -> list[list[int]]:
    starts = tiles.starts.tolist()
    return [tiles.entries[a:b].tolist() for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("tile", [8, 16])
@pytest.mark.parametrize(
    ("frames", "count", "height", "width", "size"),
    [(1, 0, 9, 9, 0.3), (1, 1, 1, 1, 0.3), (2, 60, 17, 33, 0.3), (1, 150, 70, 211, 0.2), (1, 9, 150, 160, 3.0)],
)
def test_matches_the_reference(frames: int, count: int, height: int, width: int, size: float, tile: int) -> None:
    splats, opacities = splats_of(frames, count, height, width, size)
    tiles = bin_splats(splats, opacities, height, width, tile=tile)
    tiles.check()
    wanted = bin_reference(splats.means, splats.conics, splats.depths, splats.extents, opacities, height, width, tile)
    found = lists_of(tiles)
    assert len(found) == len(wanted)
    for have, want in zip(found, wanted, strict=True):
        sure = [n for n, spare in want if spare > 2e-3]
        assert set(sure) <= set(have), "a splat that reaches the tile is missing"
        assert [n for n in have if n in {m for m, _ in want}] == [n for n, _ in want], "not nearest first"
        assert len(have) <= len(want) + (size == 0.2), "the test is not exact"
    if size == 3.0:
        assert max(map(len, found)) >= 5 and len(found) > 64, "splats over more than 64 tiles belong to this test"


def test_equal_depths_keep_their_order() -> None:
    splats, opacities = splats_of(1, 40, 16, 16)
    level = Splats(splats.means, splats.conics, (splats.depths > 0).float(), splats.extents)
    for entries in lists_of(bin_splats(level, opacities, 16, 16)):
        assert entries == sorted(entries) and len(entries) > 5


def test_an_overflow_is_reported_and_shows() -> None:
    splats, opacities = splats_of(2, 60, 40, 40)
    whole = bin_splats(splats, opacities, 40, 40)
    needed = int(whole.needed)
    just = bin_splats(splats, opacities, 40, 40, capacity=needed)
    just.check()
    assert lists_of(just) == lists_of(whole)
    short = bin_splats(splats, opacities, 40, 40, capacity=needed - 1)
    assert short.entries.shape == (needed - 1,) and int(short.starts.max()) == needed - 1
    with pytest.raises(CapacityError, match=f"capacity={needed} or more"):
        short.check()
    colours = torch.rand(1, 60, 3, requires_grad=True)
    picture = rasterize(splats, opacities, colours, short)
    assert picture.colours.isnan().all() and picture.alpha.isnan().all()
    picture.colours.sum().backward()
    assert colours.grad is not None and colours.grad.isnan().all()


def test_a_guess_that_is_too_small_is_made_again() -> None:
    splats, opacities = splats_of(1, 30, 200, 200, size=20.0)  # every splat covers every tile
    tiles = bin_splats(splats, opacities, 200, 200, tile=8)
    tiles.check()
    assert int(tiles.needed) > 30 * 4 + 16 * 625


def test_opcheck_and_compile() -> None:
    splats, opacities = splats_of(2, 10, 20, 30)
    inputs = (splats.means, splats.conics, splats.depths, splats.extents, opacities)
    torch.library.opcheck(gaussian_bin, (*inputs, 20, 30, 16, 100))

    def count(means: torch.Tensor) -> torch.Tensor:
        moved = Splats(means, splats.conics, splats.depths, splats.extents)
        return bin_splats(moved, opacities, 20, 30, capacity=100).needed + 1

    assert int(torch.compile(count, backend="aot_eager", fullgraph=True)(splats.means)) == int(count(splats.means))


def test_the_door_teaches() -> None:
    splats, opacities = splats_of(2, 4, 8, 8)
    with pytest.raises(ShapeError, match="8 or 16 pixels"):
        bin_splats(splats, opacities, 8, 8, tile=12)
    with pytest.raises(ShapeError, match="usual_capacity"):
        bin_splats(splats, opacities, 8, 8, capacity=0)
    with pytest.raises(ShapeError, match=r"opacities: expected shape \[B or 1, N\]"):
        bin_splats(splats, opacities[:, :2], 8, 8)
