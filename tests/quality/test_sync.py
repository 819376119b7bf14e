"""The audio-visual measure finds lags that were planted, and does not find what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.quality.sync import LAGS, SyncModel, fit_cca, mouth_features, score, sound_bands, sound_features
from deployments.quality.train_sync import Sample, fit

RATE = 16000


def speech_like(seed: int, seconds: float = 8.0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Noise whose loudness and colour follow two slow random curves; returns samples and the curves at 100 Hz."""
    rng = np.random.default_rng(seed)
    frames = int(seconds * 100)
    kernel = np.hanning(17) / np.hanning(17).sum()
    curves = np.stack([np.convolve(rng.normal(size=frames + 16), kernel, "valid") for _ in range(2)], axis=1)
    curves = curves / curves.std(0)
    t = np.arange(int(seconds * RATE)) / RATE
    loud, bright = (np.interp(t, (np.arange(frames) + 0.5) / 100, c) for c in curves.T)
    low = np.sin(2 * np.pi * 300 * t) * np.exp(0.8 * loud)
    high = rng.normal(size=len(t)) * np.exp(0.8 * bright)
    return (0.05 * (low + 0.3 * high)).astype(np.float32), curves


def planted(seed: int, lag: float, name: str = "clip") -> Sample:
    """A mouth whose opening and width follow the sound's curves; its sound comes `lag` seconds later."""
    samples, curves = speech_like(seed)
    times = np.arange(200) / 25.0
    at = np.clip(np.round((times + lag) * 100 - 0.5).astype(int), 0, len(curves) - 1)
    drive = curves[at]
    rng = np.random.default_rng(seed + 1000)
    mix = np.array([[1.0, 0], [1, 0.2], [0.1, 1], [0, 1], [0.5, -0.5], [0.8, 0]])
    measures = 0.1 + 0.02 * drive @ mix.T + 0.004 * rng.normal(size=(200, 6))
    return Sample(name, name, measures, times, sound_bands(samples))


@pytest.fixture(scope="module")
def model() -> SyncModel:
    return fit([planted(k, 0.0, f"clip{k}") for k in range(6)], rounds=1)[0]


@pytest.mark.parametrize("lag", [-0.2, 0.0, 0.12])
def test_a_planted_lag_is_found(model: SyncModel, lag: float) -> None:
    clip = planted(50, lag)
    found = score(model, clip.measures, clip.times, clip.bands)
    assert found is not None
    assert found.lag_ms == pytest.approx(1000 * lag, abs=20)
    assert found.correlation > 0.6
    assert found.confidence > 0.4


def test_somebody_elses_sound_scores_low(model: SyncModel) -> None:
    own, other = planted(60, 0.0), planted(61, 0.0)
    right = score(model, own.measures, own.times, own.bands)
    wrong = score(model, own.measures, own.times, other.bands)
    assert right is not None and wrong is not None
    assert wrong.correlation < 0.5 * right.correlation
    assert abs(wrong.correlation_at_zero) < 0.3


def test_training_removes_the_offsets_of_its_clips() -> None:
    lags = [0.0, 0.08, -0.08, 0.04, 0.0, 0.12]
    clips = [planted(k, lag, f"clip{k}") for k, lag in enumerate(lags)]
    _, found = fit(clips, anchors=["clip0", "clip4"])
    np.testing.assert_allclose([found[c.name] for c in clips], 1000 * np.array(lags), atol=25)


def test_frames_without_a_face_are_left_out(model: SyncModel) -> None:
    clip = planted(70, 0.0)
    measures = clip.measures.copy()
    measures[40:90] = np.nan
    found = score(model, measures, clip.times, clip.bands)
    assert found is not None and abs(found.lag_ms) <= 20
    measures[10:] = np.nan
    assert score(model, measures, clip.times, clip.bands) is None


def test_a_still_mouth_or_silence_has_no_score(model: SyncModel) -> None:
    clip = planted(80, 0.0)
    still = np.full_like(clip.measures, 0.1)
    silence = sound_bands(np.zeros(8 * RATE, np.float32))
    assert score(model, still, clip.times, clip.bands) is None
    assert score(model, clip.measures, clip.times, silence) is None


def test_features_leave_the_sound_as_nan_not_as_silence() -> None:
    bands = sound_bands(speech_like(1, 2.0)[0])
    features = sound_features(bands, np.array([-1.0, 1.0, 3.0]))
    assert np.isnan(features[[0, 2]]).all() and np.isfinite(features[1]).all()


def test_shape_errors_name_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"\[T, 6\]"):
        mouth_features(np.zeros((5, 3)), np.arange(5.0))


def test_canonical_pairs_are_uncorrelated_and_ordered() -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(4000, 2))
    mouth = hidden @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(4000, 5))
    sound = hidden @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(4000, 8))
    fitted = fit_cca(mouth, sound, np.ones(4000), pairs=2, ridge=1e-6)
    between = np.corrcoef((mouth @ fitted.mouth).T, (sound @ fitted.sound).T)[:2, 2:]
    assert np.abs(between - np.diag(np.diag(between))).max() < 0.05
    assert between[0, 0] > between[1, 1] > 0.7


def test_the_shipped_model_loads_and_models_survive_a_file(model: SyncModel, tmp_path: Path) -> None:
    shipped = SyncModel.load()
    assert shipped.mouth.shape[0] == 12 and shipped.sound.shape[0] == 140
    assert shipped.weight.sum() == pytest.approx(1, abs=1e-5)
    model.save(tmp_path / "m.safetensors", {"clips": "6"})
    np.testing.assert_allclose(SyncModel.load(tmp_path / "m.safetensors").sound, model.sound, rtol=1e-5)


def test_lags_reach_half_a_second_both_ways() -> None:
    assert LAGS[0] == pytest.approx(-0.5) and LAGS[-1] == pytest.approx(0.5) and LAGS[len(LAGS) // 2] == 0
