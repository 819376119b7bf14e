"""One layer does what two would, and the fast one equals its definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.lay_over import lay_over
from kernels.lay_over.reference import lay_over_reference

Arrays = tuple[np.ndarray, ...]


def case(height: int, width: int) -> Arrays:
    rng = np.random.default_rng(height * 100 + width)
    moved, picture = rng.uniform(-9, 270, (2, height, width, 3)).astype(np.float32)
    alpha, share = rng.choice([0.0, 0.2, 0.7, 1.0], (2, height, width)).astype(np.float32)
    return moved, picture, alpha, share, rng.normal(0, 8, (3, 3)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (64, 3)])
def test_matches_the_reference(height: int, width: int) -> None:
    given = case(height, width)
    rgb, total = lay_over(*given)
    wanted, whole = lay_over_reference(*given)
    np.testing.assert_allclose(total, whole, atol=1e-6)
    seen = total > 0
    assert np.abs(rgb[seen].astype(int) - wanted[seen]).max(initial=0) <= 1, "a half may round either way"
    assert (rgb[seen] != wanted[seen]).mean() < 0.01 or not seen.any()


def test_one_layer_is_two() -> None:
    moved, picture, alpha, share, _ = case(15, 21)
    moved, picture = moved.clip(0, 255), picture.clip(0, 255)
    frame = np.full_like(moved, 77.0)
    rgb, total = lay_over(moved, picture, alpha, share, np.zeros((3, 3), np.float32))
    under = frame + share[..., None] * (moved - frame)
    two = under + alpha[..., None] * (picture - under)
    assert np.abs(frame + total[..., None] * (rgb - frame) - two).max() <= 0.51


def test_the_shift_is_a_plane_over_the_window() -> None:
    _, picture, _, share, _ = case(11, 8)
    plain, one = np.full_like(picture, 100.0), np.ones_like(share)
    shift = np.array([[5, 0, 0], [0, 16, 0], [0, 0, 22]], np.float32)
    rgb, _ = lay_over(plain, plain, one, share, shift)
    assert (rgb[..., 0] == 105).all()
    np.testing.assert_array_equal(rgb[0, :, 1], 92 + 2 * np.arange(8))
    np.testing.assert_array_equal(rgb[:, 0, 2], 89 + 2 * np.arange(11))


def test_the_door_refuses_wrong_shapes_and_types() -> None:
    moved, picture, alpha, share, shift = case(4, 5)
    with pytest.raises(ValueError, match="picture: expected float32"):
        lay_over(moved, picture.astype(np.float64), alpha, share, shift)
    with pytest.raises(ValueError, match="share: expected float32"):
        lay_over(moved, picture, alpha, share[:, :-1], shift)
