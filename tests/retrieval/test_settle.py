"""What was filmed around a new mouth goes with it, and stays untouched where nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.contracts import Patch
from deployments.retrieval.settle import follow, settle
from deployments.retrieval.warp import Place
from kernels.mesh_warp import rasterize

HEIGHT, WIDTH = 33, 47
PLAIN = np.full((HEIGHT, WIDTH, 3), 90.0, np.float32)


def place_of(alpha: np.ndarray, way: np.ndarray, skin: np.ndarray | None = None) -> Place:
    corners = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT]], np.float32)
    raster = rasterize(np.array([[0, 1, 2]], np.int32), corners, HEIGHT, WIDTH)
    return Place(6, 4, raster, alpha.astype(np.float32), way.astype(np.float32), skin, unit=20.0)


def on(frame: np.ndarray, patch: Patch) -> np.ndarray:
    return frame + patch.alpha[..., None] * (patch.rgb - frame)


def test_where_nothing_moves_the_patch_is_the_new_picture_in_its_mask() -> None:
    alpha = np.zeros((HEIGHT, WIDTH))
    alpha[10:20, 10:30] = 0.5
    frame = np.random.default_rng(0).uniform(0, 255, PLAIN.shape).astype(np.float32)
    patch = settle(place_of(alpha, np.zeros((HEIGHT, WIDTH, 2))), frame, frame, PLAIN - 90)
    assert np.array_equal(patch.alpha, alpha.astype(np.float32))
    assert np.abs(on(frame, patch) - frame).max() <= 0.5, "the same picture on itself"


def test_the_filmed_line_moves_by_what_the_mesh_says_and_the_mask_covers_it() -> None:
    frame = PLAIN.copy()
    frame[12] = 200.0  # a jaw line
    way = np.zeros((HEIGHT, WIDTH, 2))
    way[..., 1] = -5.0 * np.clip(np.minimum(np.arange(HEIGHT), np.arange(HEIGHT)[::-1]) / 8, 0, 1)[:, None]
    here = place_of(np.zeros((HEIGHT, WIDTH)), way)
    seen = on(frame, settle(here, frame, PLAIN))
    assert seen[17].min() > 190, "the line is five pixels lower"
    assert np.abs(seen[12] - 90).max() < 2, "and no longer where it was: no second outline"
    assert np.array_equal(seen[0], frame[0]) and np.array_equal(seen[-1], frame[-1])
    assert np.allclose(follow(here, frame)[17], 200)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_one_layer_is_what_the_new_picture_on_the_moved_one_is(share: float) -> None:
    rng = np.random.default_rng(1)
    frame = rng.uniform(100, 140, PLAIN.shape).astype(np.float32)
    here = place_of(np.full((HEIGHT, WIDTH), share), np.full((HEIGHT, WIDTH, 2), 3.0))
    patch = settle(here, frame, PLAIN)
    assert np.allclose(patch.alpha, 1)
    moved = follow(here, frame)
    if share in (0.0, 1.0):  # no rim: the colours stay
        assert np.abs(patch.rgb - (moved if share == 0 else PLAIN).clip(0, 255)).max() <= 0.5
    else:
        assert np.abs(patch.rgb.mean((0, 1)) - moved.mean((0, 1))).max() < 1, "the rim's colour is the moved frame's"


def test_a_remembered_collar_does_not_cover_the_skin_that_is_filmed_there() -> None:
    alpha = np.ones((HEIGHT, WIDTH))
    lips = np.ones((HEIGHT, WIDTH), np.float32)
    lips[:, :16] = 0  # teeth may be as far from the filmed picture as they like
    mouth = PLAIN + 12  # remembered in another light
    mouth[:, :8] = 240  # teeth
    mouth[:, 36:] = 240  # a collar
    rgb = settle(place_of(alpha, np.zeros((HEIGHT, WIDTH, 2)), lips), PLAIN, mouth)
    seen = on(PLAIN, rgb)
    assert np.abs(seen[:, :7] - 240).max() <= 1, "the mouth is shown whatever was filmed"
    assert np.abs(seen[:, 18:27] - 102).max() <= 1, "another light is no other thing"
    assert np.abs(seen[:, 39:] - 90).max() <= 1, "the collar stays away"


def test_a_collar_of_few_among_the_mixed_pictures_stays_away_below_the_lips_and_a_smile_stays() -> None:
    alpha = np.ones((HEIGHT, WIDTH))
    lips = np.ones((HEIGHT, WIDTH), np.float32)
    lips[2:10, 10:30] = 0
    mouth = PLAIN.copy()
    mouth[20:, 30:] += 36  # one picture of four has a collar there
    mouth[20:, 8:10] += 36  # a wrinkle of the chin
    mouth[:8, 36:] += 36  # a cheek that smiles
    seen = on(PLAIN, settle(place_of(alpha, np.zeros((HEIGHT, WIDTH, 2)), lips), PLAIN, mouth)) - 90
    assert np.abs(seen[23:, 34:]).max() < 6, "the filmed neck shows"
    assert seen[22:, 8:10].min() > 30 and seen[:6, 40:].min() > 30, "and what the new face does stays"


def test_the_light_is_measured_where_both_pictures_show_the_same() -> None:
    alpha = np.tile(np.clip(np.minimum(np.arange(WIDTH), np.arange(WIDTH)[::-1]) / 16, 0, 1), (HEIGHT, 1))
    lips = np.ones((HEIGHT, WIDTH), np.float32)
    lips[2:10, 18:30] = 0
    plain = PLAIN + 8  # the same face in another light
    collar = plain.copy()
    collar[16:, :14] += 60
    here = place_of(alpha, np.zeros((HEIGHT, WIDTH, 2)), lips)
    one, other = (on(PLAIN, settle(here, PLAIN, mouth)) for mouth in (plain, collar))
    assert np.abs(one - 90).max() <= 1 and np.abs(other[:, 24:36] - 90).max() <= 2, "a collar does not colour the mouth"
