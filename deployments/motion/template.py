"""What a template clip tells of its own mouth: place, spread, limits, rest, and the delay of its sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.motion.head import predict
from deployments.motion.lip_space import LipSpace
from deployments.motion.offset import AvOffset, estimate_offset
from deployments.motion.residual import OFFSET_WEIGHTS, Residual, fit_residual

Floats = NDArray[np.float32]

__all__ = ["OFFSET_WEIGHTS", "Residual", "TemplateMouth", "fit_residual", "measure_template", "rest_pose", "standardised"]

NO_OFFSET = AvOffset(0.0, 0.0)
SILENT = 0.7
MIN_SILENT_FRAMES = 10
REST_SHARE = 25
REST_LIMIT = 15
CLOSED_SHARE = 8
CLOSED_PERCENTILE = 5
SMALLEST_STD = 1e-3


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
