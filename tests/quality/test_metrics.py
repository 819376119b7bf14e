"""Known answers for every metric."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from deployments.quality import metrics


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_psnr_of_a_known_error() -> None:
    reference = np.full((20, 30, 3), 100, np.uint8)
    assert metrics.psnr(reference + 5, reference) == pytest.approx(20 * np.log10(255 / 5))


def test_psnr_looks_only_into_the_mask() -> None:
    reference, out = np.full((10, 10), 50, np.uint8), np.full((10, 10), 50, np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    out[5:] = 250
    assert metrics.psnr(out, reference, mask) == metrics.EQUAL_DB
    assert metrics.psnr(out, reference, ~mask) == pytest.approx(20 * np.log10(255 / 200))
    assert np.isnan(metrics.psnr(out, reference, np.zeros((10, 10), bool)))


def test_ssim_equals_the_published_definition(rng: np.random.Generator) -> None:
    a = cv2.GaussianBlur(rng.integers(0, 256, (64, 80)).astype(np.uint8), (0, 0), 2)
    b = np.clip(a + rng.normal(0, 8, a.shape), 0, 255).astype(np.uint8)
    theirs = structural_similarity(a, b, gaussian_weights=True, use_sample_covariance=False, data_range=255, full=True)[1]
    inside = np.zeros(a.shape, bool)
    inside[8:-8, 8:-8] = True
    assert metrics.ssim(a, b, inside) == pytest.approx(float(theirs[inside].mean()), abs=2e-3)
    assert metrics.ssim(a, a) == pytest.approx(1.0)


def test_sharpness_falls_under_a_blur(rng: np.random.Generator) -> None:
    sharp = rng.integers(0, 256, (40, 60)).astype(np.uint8)
    assert metrics.sharpness(cv2.GaussianBlur(sharp, (0, 0), 1.0)) < 0.3 * metrics.sharpness(sharp)


def test_flicker_of_white_noise_and_of_steady_motion(rng: np.random.Generator) -> None:
    noise = rng.normal(128, 4, (3, 200, 200))
    assert metrics.flicker_energy(*noise) == pytest.approx(6 * 16, rel=0.03)
    ramp = np.arange(100.0).reshape(10, 10)
    assert metrics.flicker_energy(ramp, ramp + 3, ramp + 6) == pytest.approx(0)


def test_landmark_distance_in_percent_ignores_the_size_of_the_picture(rng: np.random.Generator) -> None:
    reference, eyes = rng.uniform(0, 100, (5, 40, 2)), np.tile([[10.0, 20.0], [70.0, 20.0]], (5, 1, 1))
    out = reference + (3.0, 4.0)
    percent, pixels = metrics.landmark_distance(out, reference, eyes)
    np.testing.assert_allclose(pixels, 5.0)
    np.testing.assert_allclose(percent, 100 * 5 / 60)
    larger, more = metrics.landmark_distance(3 * out, 3 * reference, 3 * eyes)
    np.testing.assert_allclose(larger, percent)
    np.testing.assert_allclose(more, 15.0)


def smooth_walk(frames: int) -> NDArray[np.float64]:
    t = np.arange(frames)[:, None]
    phase = np.arange(20)[None]
    return np.stack([10 * np.sin(0.3 * t + phase), 8 * np.cos(0.21 * t + phase)], axis=-1)


def test_border_statistic_passes_a_smooth_clip_and_flags_a_planted_jump() -> None:
    borders = [50, 100, 150]
    points = smooth_walk(200)
    assert metrics.border_statistic(metrics.landmark_jerk(points), borders) <= 1.1
    points[100:] += 6.0
    assert metrics.border_statistic(metrics.landmark_jerk(points), borders) > 5


def test_border_statistic_ignores_frames_without_a_face() -> None:
    points = smooth_walk(100)
    points[30:40] = np.nan
    assert np.isfinite(metrics.border_statistic(metrics.landmark_jerk(points), [50]))
    assert np.isnan(metrics.border_statistic(metrics.landmark_jerk(points), [33]))
    assert np.isnan(metrics.border_statistic(metrics.landmark_jerk(points), []))


def test_changed_pixels_count_only_outside_and_above_codec_noise() -> None:
    reference = np.full((20, 20, 3), 100, np.uint8)
    out, outside = reference.copy(), np.ones((20, 20), bool)
    outside[:10] = False
    out[:10] = 255
    out[15] += 3
    out[19, 4, 2] = 200
    assert metrics.changed_pixels(out, reference, outside) == (1, 100)


def test_correlation_of_too_little_or_constant_data_is_not_a_number() -> None:
    assert np.isnan(metrics.correlation(np.ones(10), np.arange(10)))
    assert np.isnan(metrics.correlation(np.array([1.0, np.nan, 2.0]), np.arange(3)))
    assert metrics.correlation(np.array([1.0, 2, 3, np.nan]), np.array([2.0, 4, 6, 0])) == pytest.approx(1)
