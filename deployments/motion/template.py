"""What a template clip tells of its own mouth: place, spread, limits, rest, and the delay of its sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.motion.head import OUTPUTS, Prediction, predict
from deployments.motion.lip_space import LipSpace
from deployments.motion.offset import AvOffset, estimate_offset

Floats = NDArray[np.float32]

# Which outputs tell the offset: opening, width, and the aperture itself.
OFFSET_WEIGHTS = (0.5, 0.25, 0, 0, 0, 0, 0, 0, 1.0)
NO_OFFSET = AvOffset(0.0, 0.0)
SILENT = 0.7
MIN_SILENT_FRAMES = 10
REST_SHARE = 25
REST_LIMIT = 15
CLOSED_SHARE = 8
CLOSED_PERCENTILE = 5
SMALLEST_STD = 1e-3
RESIDUAL_SECONDS = 20.0
RESIDUAL_RIDGE = 3.0
RESIDUAL_GAIN = 0.95


@dataclass(frozen=True)
class Residual:
    """Linear correction of the shared head for one person: standardised outputs += (features - mean) / std @ weight."""

    mean: Floats  # [212]
    std: Floats  # [212]
    weight: Floats  # [212, 9]

    def apply(self, features: Floats) -> Floats:
        """Correction [S, 9] for features [S, 212]."""
        return ((features - self.mean) / self.std @ self.weight).astype(np.float32)


@dataclass(frozen=True)
class TemplateMouth:
    """One person's mouth in lip coefficients."""

    mean: Floats  # [8]
    std: Floats  # [8]
    p01: Floats  # [8] first percentile
    p99: Floats  # [8]
    rest: Floats  # [8] the mouth in silence
    closed: float  # 5th percentile of the aperture, eye distances
    offset: AvOffset = NO_OFFSET
    residual: Residual | None = None


def measure_template(
    coefficients: Floats, usable: NDArray[np.bool_], times: NDArray[np.float64], sound: Floats | None
) -> TemplateMouth:
    """Measure the mouth of a tracked clip.

    `coefficients` [T, 8], `usable` [T] with at least one True, `times` [T] in seconds from the first frame, `sound`
    [N] mono 16 kHz whose sample 0 is the first frame's time, or None.
    """
    own, when = coefficients[usable].astype(np.float32), np.asarray(times)[usable]
    aperture = LipSpace.load().aperture(own)
    silent = np.zeros(len(own), bool)
    offset, residual = NO_OFFSET, None
    if sound is not None and len(sound) >= 1600 and np.abs(sound).max() > 1e-4:
        prediction = predict(sound)
        measured = standardised(own, aperture)
        offset = estimate_offset(prediction.step_times(), prediction.outputs, when, measured, OFFSET_WEIGHTS)
        heard = when - offset.seconds
        silent = np.interp(heard, prediction.step_times(), prediction.silence) > SILENT
        residual = fit_residual(prediction, measured, heard)
    return TemplateMouth(
        mean=own.mean(0),
        std=np.maximum(own.std(0), SMALLEST_STD),
        p01=np.percentile(own, 1, axis=0).astype(np.float32),
        p99=np.percentile(own, 99, axis=0).astype(np.float32),
        rest=rest_pose(own, aperture, silent),
        closed=float(np.percentile(aperture, CLOSED_PERCENTILE)),
        offset=offset,
        residual=residual,
    )


def standardised(coefficients: Floats, aperture: Floats) -> Floats:
    """Coefficients and aperture [T, 9] in units of their own spread."""
    both = np.concatenate([coefficients, aperture[:, None]], 1)
    return np.asarray((both - both.mean(0)) / np.maximum(both.std(0), SMALLEST_STD), np.float32)


def rest_pose(coefficients: Floats, aperture: Floats, silent: NDArray[np.bool_]) -> Floats:
    """Mean [8] of the least open quarter of the silent frames; of the least open frames of all where silence is rare or
    the mouth stands open in it (breathing, smiling): a mouth that rests must look closed.
    """
    closed = aperture <= np.percentile(aperture, CLOSED_SHARE)
    if silent.sum() >= MIN_SILENT_FRAMES:
        least = silent & (aperture <= np.percentile(aperture[silent], REST_SHARE))
        if aperture[least].mean() <= np.percentile(aperture, REST_LIMIT):
            closed = least
    return np.asarray(coefficients[closed].mean(0), np.float32)


def fit_residual(prediction: Prediction, measured: Floats, heard: NDArray[np.float64]) -> Residual | None:
    """A ridge on what the shared head leaves over, kept only if it wins on the last quarter, which it does not see.

    `heard` [T]: times on the sound's clock. None under 20 s of usable frames.
    """
    if len(heard) < 2 or len(heard) * float(np.median(np.diff(heard))) < RESIDUAL_SECONDS:
        return None
    steps = prediction.step_times()
    features = np.stack([np.interp(heard, steps, column) for column in prediction.features.T], 1)
    left = measured - prediction.outputs_at(heard)
    cut = len(heard) * 3 // 4
    trial = _ridge(features[:cut], left[:cut])
    before = float((left[cut:] ** 2).mean())
    after = float(((left[cut:] - trial.apply(features[cut:].astype(np.float32))) ** 2).mean())
    return _ridge(features, left) if after < RESIDUAL_GAIN * before else None


def _ridge(features: NDArray[np.float64], target: Floats) -> Residual:
    mean, std = features.mean(0), features.std(0) + 1e-3
    x = (features - mean) / std
    gram = x.T @ x / len(x) + RESIDUAL_RIDGE * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, x.T @ target.reshape(-1, OUTPUTS) / len(x))
    return Residual(*(a.astype(np.float32) for a in (mean, std, weight)))
