"""The fast mesh map equals its definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.mesh_warp import backward_map, rasterize
from kernels.mesh_warp.reference import backward_map_reference

RNG = np.random.default_rng(7)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (40, 23)])
def test_matches_the_reference(height: int, width: int) -> None:
    grid = np.stack(np.meshgrid([-2.0, width / 2, width + 3.0], [-1.5, height / 3, height + 2.0]), -1).reshape(-1, 2)
    triangles = np.array([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4], [3, 4, 7], [3, 7, 6], [4, 5, 8], [4, 8, 7]], np.int32)
    source = grid + RNG.normal(0, 2, grid.shape)
    fast = backward_map(triangles, grid.astype(np.float32), source.astype(np.float32), height, width)
    slow = backward_map_reference(triangles, grid, source, height, width)
    np.testing.assert_array_equal(np.isnan(fast), np.isnan(slow))
    np.testing.assert_allclose(fast, slow, atol=2e-3)


def test_same_corners_give_the_identity_and_outside_is_nan() -> None:
    corners = np.array([[3, 2], [12, 4], [5, 11]], np.float32)
    out = backward_map(np.array([[0, 1, 2]], np.int32), corners, corners, 14, 16)
    inside = ~np.isnan(out[..., 0])
    y, x = np.nonzero(inside)
    np.testing.assert_allclose(out[inside], np.stack([x, y], 1), atol=1e-3)
    assert inside.sum() > 20 and not inside[0, 0]


def test_degenerate_triangles_draw_nothing() -> None:
    corners = np.array([[1, 1], [5, 5], [9, 9]], np.float32)
    assert (rasterize(np.array([[0, 1, 2]], np.int32), corners, 10, 10).index == -1).all()


def test_window_is_a_cut_of_the_whole() -> None:
    corners = np.array([[0, 0], [20, 1], [3, 18]], np.float32)
    raster = rasterize(np.array([[0, 1, 2]], np.int32), corners, 20, 20)
    whole = raster.values(corners, fill=0.0)
    np.testing.assert_array_equal(raster.window(slice(2, 9), slice(4, 15)).values(corners, fill=0.0), whole[2:9, 4:15])


def test_the_door_refuses_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="triangles"):
        rasterize(np.zeros((3,), np.int32), np.zeros((3, 2), np.float32), 4, 4)
    with pytest.raises(ValueError, match="finite"):
        rasterize(np.zeros((1, 3), np.int32), np.full((3, 2), np.nan, np.float32), 4, 4)
    raster = rasterize(np.array([[0, 1, 2]], np.int32), np.eye(3, 2, dtype=np.float32), 4, 4)
    with pytest.raises(ValueError, match="corners"):
        raster.values(np.zeros((2, 2), np.float32))
