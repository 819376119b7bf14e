"""The template's own correction learns what is this person's way, and only where there is something to learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from deployments.motion.head import APERTURE, Prediction, load_head
from deployments.motion.offset import correlation
from deployments.motion.residual import cross_fitted, fit_residual, smoothed

Floats = NDArray[np.float32]
SECONDS = 12


def _prediction(seed: int) -> Prediction:
    """Wandering features, of which the shared head hears the first four; the next thirty wander together."""
    rng = np.random.default_rng(seed)
    steps = SECONDS * 50
    noise = rng.normal(0, 4, (steps, 212))
    noise[:, 4:34] = noise[:, 4:5] + 0.3 * noise[:, 4:34]
    features = gaussian_filter1d(noise, 4, axis=0) * load_head().feature_std.numpy()
    scaled = smoothed(features.astype(np.float32)) / load_head().feature_std.numpy()
    outputs = np.repeat(scaled[:, :4].mean(1, keepdims=True), 9, 1)
    quiet = np.zeros(steps, np.float32)
    return Prediction(outputs.astype(np.float32), quiet, quiet, features.astype(np.float32), quiet + 1)


def _mouth(prediction: Prediction, heard: NDArray[np.float64], own: slice) -> Floats:
    """A mouth that follows the shared head and some features of its own."""
    scaled = smoothed(prediction.features) / load_head().feature_std.numpy()
    follows = scaled[:, :4].mean(1) + scaled[:, own].mean(1)
    one = np.interp(heard, prediction.step_times(), follows)
    return np.repeat(((one - one.mean()) / one.std())[:, None], 9, 1).astype(np.float32)


@pytest.fixture(scope="module")
def heard() -> NDArray[np.float64]:
    return np.arange(0.2, SECONDS - 0.2, 0.04)


def test_a_persons_own_way_is_learned_for_speech_that_was_not_seen(heard: NDArray[np.float64]) -> None:
    prediction, later = _prediction(0), _prediction(1)
    residual = fit_residual(prediction, _mouth(prediction, heard, slice(4, 10)), heard)
    assert residual is not None
    wanted = _mouth(later, heard, slice(4, 10))[:, APERTURE]
    times = later.step_times()
    shared = np.interp(heard, times, later.outputs[:, APERTURE])
    corrected = np.interp(heard, times, (later.outputs + residual.apply(later.features))[:, APERTURE])
    assert correlation(corrected, wanted) > correlation(shared, wanted) + 0.05


def test_unseen_parts_are_predicted_by_the_others_alone(heard: NDArray[np.float64]) -> None:
    """Moving the truth of the first fifth must not move what is predicted there."""
    prediction = _prediction(2)
    measured = _mouth(prediction, heard, slice(4, 10))
    first = len(heard) // 5
    changed = measured.copy()
    changed[:first] = -changed[:first]
    before, after = cross_fitted(prediction, measured, heard), cross_fitted(prediction, changed, heard)
    assert np.array_equal(before[:first], after[:first])
    assert np.abs(before[first:] - after[first:]).max() > 0.01
    assert correlation(before[:, APERTURE], measured[:, APERTURE]) > correlation(
        prediction.outputs_at(heard)[:, APERTURE], measured[:, APERTURE]
    )


def test_short_and_foreign_mouths_are_left_alone(heard: NDArray[np.float64]) -> None:
    prediction = _prediction(3)
    measured = _mouth(prediction, heard, slice(4, 10))
    assert fit_residual(prediction, measured[:90], heard[:90]) is None
    somebody_else = _mouth(_prediction(4), heard, slice(4, 10))
    assert fit_residual(prediction, somebody_else, heard) is None


def test_a_steady_sound_of_another_colour_does_not_open_the_mouth(heard: NDArray[np.float64]) -> None:
    """The correction has no constant of its own: the mean of what it learned from stays the mean."""
    prediction = _prediction(5)
    residual = fit_residual(prediction, _mouth(prediction, heard, slice(4, 10)), heard)
    assert residual is not None
    steady = np.repeat(residual.mean[None], 50, 0)
    assert np.abs(residual.apply(steady)).max() < 1e-4


def test_a_clip_whose_sound_ends_early_is_no_error(heard: NDArray[np.float64]) -> None:
    """Behind its end every frame hears the same: three quarters of the clip teach nothing, and one quarter is a guess."""
    prediction, long = _prediction(5), np.arange(0.2, 6 * SECONDS, 0.04)
    measured = np.random.default_rng(6).normal(0, 1, (len(long), 9)).astype(np.float32)
    measured[: len(heard)] = _mouth(prediction, heard, slice(4, 10))
    residual = fit_residual(prediction, measured, long)
    assert residual is None or np.isfinite(residual.weight).all()
