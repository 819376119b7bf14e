"""Do lips and sound belong together, and by how much are they apart?

Canonical correlation analysis (Hotelling 1936; for talking faces Slaney and Covell, FaceSync, 2000): the linear
combinations of mouth distances and of log-mel bands that correlate best, fitted once on clean clips by
`python -m deployments.quality.train_sync`. A clip's score at a lag is the weighted mean of the correlations of the pairs
after shifting the sound; the best lag is its audio-visual offset. A score means little by itself (it depends on the
speaker, the microphone and the mesh): read it beside the source clip's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import FRAME_RATE, mel_power, normalise
from deployments.quality.metrics import correlation
from deployments.quality.mouth import MEASURES
from deployments.weights import load_tensors

WEIGHTS = Path(__file__).parent / "data" / "sync_cca.safetensors"

LAG_STEP = 0.02
MAX_LAG = 0.5
LAGS = np.arange(-round(MAX_LAG / LAG_STEP), round(MAX_LAG / LAG_STEP) + 1) * LAG_STEP
"""Seconds. Positive: the sound comes later than the picture."""

MIN_FRAMES = 25
STILL = 1e-6
SILENT = 1e-12
"""Mel power that no recording stays under: digital silence."""
SOUND_BANDS = 20
SOUND_OFFSETS = np.arange(-3, 4) * 0.04
"""Seconds: the sound is seen through seven windows of 50 ms around a frame."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class SyncModel:
    """Canonical pairs: mouth features [T, 12] @ mouth [12, K] against sound features [T, 140] @ sound [140, K]."""

    mouth: Matrix
    sound: Matrix
    weight: Matrix  # [K], sums to one

    @staticmethod
    def load(path: Path = WEIGHTS) -> SyncModel:
        """The shipped model, or another safetensors file. Raises WeightsError."""
        tensors = load_tensors(path)
        return SyncModel(*(tensors[name].astype(np.float64) for name in ("mouth", "sound", "weight")))

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Write float32 safetensors."""
        from safetensors.numpy import save_file

        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in ("mouth", "sound", "weight")}
        save_file(tensors, path, metadata=metadata)


@dataclass(frozen=True)
class SyncScore:
    """Score of one clip. `lag_ms` > 0: the sound comes later than the picture."""

    lag_ms: float
    correlation: float  # at the best lag
    correlation_at_zero: float
    confidence: float  # best minus median over all lags
    curve: Matrix  # [L] correlation over LAGS


def mouth_features(measures: Matrix, times: Matrix) -> Matrix:
    """Mouth distances [T, 6] (NaN rows: no face) at `times` [T] s -> [T, 12]: z-scored distances and velocities.

    Mean and deviation are the clip's own, so neither face shape nor speaking style counts, only movement.
    """
    if measures.ndim != 2 or measures.shape[1] != len(MEASURES) or len(measures) != len(times):
        raise ValueError(f"expected measures [T, {len(MEASURES)}] and times [T], got {measures.shape} and {times.shape}")
    velocity = np.gradient(measures, times, axis=0) if len(times) > 1 else np.full_like(measures, np.nan)
    features = np.concatenate([measures, velocity], axis=1)
    known = np.isfinite(features).all(1)
    features[~known] = np.nan
    if known.any():
        deviation = features[known].std(0)
        # a mouth that does not move must not be blown up to rounding noise
        scale = np.where(deviation > STILL, 1 / np.maximum(deviation, STILL), 0.0)
        features = (features - features[known].mean(0)) * scale
    return np.clip(features, -4, 4)


def sound_bands(samples: NDArray[np.float32]) -> Matrix:
    """Log-mel of 16 kHz samples [N] in 20 bands [F, 20] at 100 Hz, smoothed over 50 ms; zeros for digital silence."""
    power = mel_power(samples)
    if len(power) == 0 or power.max() < SILENT:
        return np.zeros((len(power), SOUND_BANDS))
    mel = normalise(power).astype(np.float64)
    bands = mel.reshape(len(mel), SOUND_BANDS, -1).mean(2)
    total = np.cumsum(np.concatenate([np.zeros((1, SOUND_BANDS)), bands]), axis=0)
    left = np.clip(np.arange(len(bands)) - 2, 0, None)
    right = np.clip(np.arange(len(bands)) + 3, None, len(bands))
    return (total[right] - total[left]) / (right - left)[:, None]


def sound_features(bands: Matrix, times: Matrix) -> Matrix:
    """Bands [F, 20] at 100 Hz seen from `times` [T] s -> [T, 140]; NaN where the window leaves the sound."""
    at = (times[:, None] + SOUND_OFFSETS) * FRAME_RATE - 0.5
    low = np.floor(at).astype(int)
    inside = ((low >= 0) & (low + 1 < len(bands))).all(1)
    low = np.clip(low, 0, max(0, len(bands) - 2))
    share = (at - low)[..., None]
    values = bands[low] * (1 - share) + bands[np.minimum(low + 1, len(bands) - 1)] * share
    values = values.reshape(len(times), -1)
    values[~inside] = np.nan
    return values


def fit_cca(mouth: Matrix, sound: Matrix, row_weight: Matrix, pairs: int = 3, ridge: float = 0.1) -> SyncModel:
    """Regularised canonical correlation of mouth [T, 12] and sound [T, 140] features.

    Singular vectors of (Cmm + r I)^-1/2 Cms (Css + r I)^-1/2, with covariances weighted by `row_weight` [T] and r =
    `ridge` times the mean variance. Pair weights: the squared singular values, normalised. Rows with NaN are left out.
    """
    known = np.isfinite(mouth).all(1) & np.isfinite(sound).all(1)
    x, y, w = mouth[known], sound[known], row_weight[known] / row_weight[known].sum()
    x, y = x - w @ x, y - w @ y
    white_x, white_y = _inverse_root((x * w[:, None]).T @ x, ridge), _inverse_root((y * w[:, None]).T @ y, ridge)
    u, s, vt = np.linalg.svd(white_x @ ((x * w[:, None]).T @ y) @ white_y, full_matrices=False)
    power = s[:pairs] ** 2
    return SyncModel(white_x @ u[:, :pairs], white_y @ vt[:pairs].T, power / power.sum())


def score(model: SyncModel, measures: Matrix, times: Matrix, bands: Matrix) -> SyncScore | None:
    """Score a clip: mouth distances [T, 6] at `times` [T] (s, 0 = first sample of the sound), bands [F, 20].

    None where there is too little to measure: fewer than 25 frames with face and sound at most lags.
    """
    lips = mouth_features(measures, times) @ model.mouth
    curve = np.array([_correlation_at(model, lips, bands, times + lag) for lag in LAGS])
    if np.isfinite(curve).mean() < 0.8:
        return None
    best = int(np.nanargmax(curve))
    return SyncScore(
        lag_ms=1000 * _peak(curve, best),
        correlation=float(curve[best]),
        correlation_at_zero=float(curve[len(LAGS) // 2]),
        confidence=float(curve[best] - np.nanmedian(curve)),
        curve=curve,
    )


def _correlation_at(model: SyncModel, lips: Matrix, bands: Matrix, times: Matrix) -> float:
    heard = sound_features(bands, times) @ model.sound
    known = np.isfinite(lips).all(1) & np.isfinite(heard).all(1)
    if known.sum() < MIN_FRAMES:
        return float("nan")
    pairs = [correlation(lips[known, k], heard[known, k]) for k in range(len(model.weight))]
    return float(np.nansum(model.weight * pairs)) if np.isfinite(pairs).any() else float("nan")


def _peak(curve: Matrix, best: int) -> float:
    """Lag in seconds of the parabola through the best value and its neighbours."""
    if not 0 < best < len(curve) - 1:
        return float(LAGS[best])
    before, here, after = curve[best - 1 : best + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if np.isfinite(bend) and bend < 0 else 0.0
    return float(LAGS[best] + np.clip(shift, -0.5, 0.5) * LAG_STEP)


def _inverse_root(covariance: Matrix, ridge: float) -> Matrix:
    values, vectors = np.linalg.eigh(covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)
