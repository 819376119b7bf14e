"""Drawn and filmed pictures mix as their definition says, and nothing outside a mouth's mask knows of the mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kernels.checks import DtypeError, ShapeError
from kernels.gaussian_mix import Mouth, add_fine, draw_over, mix_face, mix_mouth
from kernels.gaussian_mix.reference import face_reference, over_reference, plane_reference

RNG = np.random.default_rng(5)
SIZE = (37, 51)


def noise(*shape: int, top: float = 255.0) -> np.ndarray:
    return (RNG.random(shape) * top).astype(np.float32)


def blurred(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.2), picture.dtype)


def test_thin_colours_let_what_was_filmed_through() -> None:
    alpha, under = noise(48, 64, top=1), noise(*SIZE, 3)
    alpha[3, 4], alpha[5, 6] = 0, 1
    colours = noise(48, 64, 3, top=1) * alpha[..., None]
    found = draw_over(colours, alpha, under, 0.5)
    np.testing.assert_allclose(found, over_reference(colours, alpha, under, 0.5), atol=1e-3)
    np.testing.assert_array_equal(found[3, 4], under[3, 4])
    np.testing.assert_allclose(found[5, 6], colours[5, 6] * 255, atol=1e-3)


def test_a_mouth_is_coarse_of_both_and_fine_of_the_nearest() -> None:
    drawn, nearest, others = (noise(*SIZE, 3) for _ in range(3))
    base, apart = mix_mouth(drawn, nearest, others * 0.4, 0.6, 0.3)
    wanted = 0.7 * drawn + 0.3 * (0.6 * nearest + 0.4 * others)
    np.testing.assert_allclose(base, wanted, atol=1e-3)
    found = add_fine(base, apart, blurred(apart), 0.8, np.ones(SIZE, np.float32))
    bands = wanted + 0.8 * (blurred(wanted - nearest) - (wanted - nearest))
    np.testing.assert_allclose(found, bands, atol=2e-3)


@pytest.mark.parametrize("at", [(0, 0), (9, 14)])
def test_a_face_with_a_mouth_on_it_matches_the_reference(at: tuple[int, int]) -> None:
    (y, x), (high, wide) = at, (21, 30)
    drawn, filmed, trust = noise(*SIZE, 3), noise(*SIZE, 3), noise(*SIZE, top=1)
    shift, own = (RNG.normal(0, 9, (3, 3)).astype(np.float32) for _ in range(2))
    mask = noise(high, wide, top=1)
    mask[:4] = 0
    nearest, others = noise(high, wide, 3), 0.3 * noise(high, wide, 3)
    mouth = Mouth(x, y, mask, nearest, others, 0.7, own)
    before = trust.copy()
    base, apart, trusted = mix_face(drawn, shift, filmed, 0.4, trust, mouth)
    found = add_fine(base, apart, blurred(apart), 0.9, trusted)
    whole, mean, near = np.zeros(SIZE), np.zeros((*SIZE, 3)), np.zeros((*SIZE, 3))
    part = np.s_[y : y + high, x : x + wide]
    whole[part], near[part], mean[part] = mask, nearest, 0.7 * nearest + others
    plane = plane_reference(own, SIZE)
    wanted = face_reference(drawn, shift, filmed, 0.4, trust, whole, mean + plane, near + plane, 0.9, blurred)
    np.testing.assert_allclose(found, wanted, atol=3e-3)
    np.testing.assert_array_equal(trust, before)


def test_the_doors_teach() -> None:
    small, large = noise(4, 5, 3), noise(6, 7, 3)
    with pytest.raises(ShapeError, match=r"nearest: expected shape \[4, 5, 3\]"):
        mix_mouth(small, large, small, 0.5, 0.5)
    with pytest.raises(DtypeError, match="drawn: expected float32, got float64"):
        mix_mouth(small.astype(float), small, small, 0.5, 0.5)
    with pytest.raises(ShapeError, match="colours: expected at least"):
        draw_over(small, noise(4, 5, top=1), large, 0.5)
    mouth = Mouth(2, 0, noise(4, 5, top=1), small, small, 0.5, np.zeros((3, 3), np.float32))
    with pytest.raises(ShapeError, match=r"mouth: expected a part of \[4, 5\]"):
        mix_face(small, mouth.shift, small, 0.4, noise(4, 5, top=1), mouth)
