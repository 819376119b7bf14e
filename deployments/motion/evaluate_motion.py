"""Measure the shipped motion on talking clips: python -m deployments.motion.evaluate_motion --clips DIR.

Per clip, the clip's own sound animates its own mouth. The delay of the sound comes from the first 60 % of the clip.
    aperture, pc2   correlation of what the shared head hears with the tracked mouth: nothing of the clip was learned
    adapted         the same with the template's own correction, as it is made for every template: each fifth of the clip
                    is predicted by a correction that learned from the others
    last, adapted_last   the two on the last 40 % of the clip, with the correction from the first 60 %
    motion, adapted_motion   correlation of the finished motion's aperture (closures, pauses, limits), without and with
                    the correction, which again learned from the other fifths
    lmd, still      mean distance of the 40 lip points (x, y) in % of the eye distance, at the regression's own
                    amplitude; the same for a mouth that stays at its mean
    closed          share of p, b, m at which the made (true: tracked) mouth is within 80 ms in the lowest quarter of
                    the tracked mouth's aperture
    swapped         aperture correlation of motion made from the next clip's sound
    lag             delay that is left between motion and mouth, after the offset was taken out
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import LIP_COEFFICIENTS, Speech
from deployments.motion.animate import BILABIAL, make_motion
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip
from deployments.motion.head import APERTURE, Prediction, predict
from deployments.motion.lip_space import LIP_JAW, LIP_POINTS, LipSpace, aperture_of
from deployments.motion.offset import AvOffset, correlation, estimate_offset
from deployments.motion.residual import OFFSET_WEIGHTS, cross_fitted, fit_residual, folds, frame_seconds
from deployments.motion.template import TemplateMouth, measure_template, standardised

Floats = NDArray[np.float32]
Row = dict[str, float]

CLOSED_SHARE = 25
CLOSED_WITHIN = 0.08


def evaluate_clip(clip: SpokenClip, other_sound: Floats) -> Row:
    """Figures of one clip (see the module's text); `other_sound` [N] 16 kHz is somebody else's speech."""
    space = LipSpace.load()
    points = clip.canonical_points()[clip.usable]
    times, coefficients, aperture = clip.times[clip.usable], space.encode(points), aperture_of(points)
    measured = standardised(coefficients, aperture)
    prediction = predict(clip.sound)
    offset = _offset(prediction, times, measured, slice(0, len(times) * 6 // 10))
    heard = times - offset.seconds
    outputs = prediction.outputs_at(heard)
    adapted = cross_fitted(prediction, measured, heard)
    template = measure_template(coefficients, np.ones(len(times), bool), times, clip.sound)
    speech = Speech(clip.sound, 16000)
    motion = make_motion(speech, heard, replace(template, residual=None))
    made = space.aperture(motion.coefficients)
    swapped = predict(other_sound).outputs_at(np.mod(heard, max(len(other_sound) / 16000, 1.0)))
    lmd, still = _distances(points, coefficients, outputs, template.mean, template.std)
    true_closed, made_closed, count = closures(prediction, heard, space.aperture(coefficients), made)
    lag = estimate_offset(heard, measured, heard, motion_columns(motion.coefficients, made), (0,) * 8 + (1.0,))
    return {
        "aperture": correlation(outputs[:, APERTURE], measured[:, APERTURE]),
        "adapted": correlation(adapted[:, APERTURE], measured[:, APERTURE]),
        **_last_part(prediction, measured, heard),
        "motion": correlation(made, aperture),
        "adapted_motion": correlation(_adapted_motion(clip, prediction, measured, heard, template), aperture),
        "pc2": correlation(outputs[:, 1], measured[:, 1]),
        "adapted_pc2": correlation(adapted[:, 1], measured[:, 1]),
        "lmd": lmd,
        "still": still,
        "closed": made_closed,
        "true_closed": true_closed,
        "closures": count,
        "swapped": correlation(swapped[:, APERTURE], measured[:, APERTURE]),
        "lag_ms": -1000 * lag.seconds,
        "offset_ms": 1000 * offset.seconds,
        "residual": float(template.residual is not None),
    }


def _last_part(prediction: Prediction, measured: Floats, heard: NDArray[np.float64]) -> Row:
    """Aperture correlations on the last 40 %, without and with a correction that learned from the first 60 %."""
    first = len(heard) * 6 // 10
    residual = fit_residual(prediction, measured[:first], heard[:first])
    corrected = prediction
    if residual is not None:
        corrected = replace(prediction, outputs=prediction.outputs + residual.apply(prediction.features))
    truth = measured[first:, APERTURE]
    values = (correlation(p.outputs_at(heard[first:])[:, APERTURE], truth) for p in (prediction, corrected))
    return dict(zip(("last", "adapted_last"), values, strict=True))


def _adapted_motion(
    clip: SpokenClip, prediction: Prediction, measured: Floats, heard: NDArray[np.float64], template: TemplateMouth
) -> Floats:
    """Aperture [T] of motion made with corrections that did not see the fifth that they move."""
    made = np.zeros(len(heard), np.float32)
    for learned, part in folds(len(heard), 5, frame_seconds(heard)):
        adapted = replace(template, residual=fit_residual(prediction, measured[learned], heard[learned]))
        motion = make_motion(Speech(clip.sound, 16000), heard[part], adapted)
        made[part] = LipSpace.load().aperture(motion.coefficients)
    return made


def motion_columns(coefficients: Floats, aperture: Floats) -> Floats:
    """Coefficients and aperture [T, 9] of a motion."""
    return np.concatenate([coefficients, aperture[:, None]], 1)


def _offset(prediction: Prediction, times: NDArray[np.float64], measured: Floats, part: slice) -> AvOffset:
    return estimate_offset(prediction.step_times(), prediction.outputs, times[part], measured[part], OFFSET_WEIGHTS)


def _distances(points: Floats, coefficients: Floats, outputs: Floats, mean: Floats, std: Floats) -> tuple[float, float]:
    """LMD of the prediction at its own amplitude, and of the mean mouth, in % of the eye distance."""
    space = LipSpace.load()
    true = points[:, LIP_JAW[:LIP_POINTS], :2]
    shift = space.decode(outputs[:, :LIP_COEFFICIENTS] * std)[:, :LIP_POINTS, :2]
    centre = true.mean(0)
    distance = [float(np.linalg.norm(true - (centre + move), axis=2).mean()) * 100 for move in (shift, 0 * shift)]
    return distance[0], distance[1]


def closures(prediction: Prediction, heard: NDArray[np.float64], true: Floats, made: Floats) -> tuple[float, float, float]:
    """Share of bilabials at which the true and the made mouth are in their lowest quarter, and how many there were."""
    mask = np.concatenate([[False], prediction.bilabial > BILABIAL, [False]]).astype(int)
    starts, stops = np.flatnonzero(np.diff(mask) == 1), np.flatnonzero(np.diff(mask) == -1)
    # Both against the tracked mouth's own quarter: the made one rests closed in pauses, which would move its quarter.
    limit = np.percentile(true, CLOSED_SHARE)
    hits = []
    for middle in (starts + stops) * 0.01:
        near = np.abs(heard - middle) <= CLOSED_WITHIN
        if near.any():
            hits.append([series[near].min() <= limit for series in (true, made)])
    if not hits:
        return float("nan"), float("nan"), 0.0
    shares = np.mean(hits, 0)
    return float(shares[0]), float(shares[1]), float(len(hits))


def evaluate(clips: Sequence[SpokenClip]) -> dict[str, Row]:
    """Rows by clip name; each clip's swapped sound is the next clip's."""
    return {clip.name: evaluate_clip(clip, clips[(k + 1) % len(clips)].sound) for k, clip in enumerate(clips)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = evaluate([load_clip(path, speaker, args.cache) for path, speaker in list_clips(args.clips)])
    for name, row in rows.items():
        print(name.ljust(26), "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    for key in next(iter(rows.values())):
        values = [row[key] for row in rows.values()]
        print(f"{key}: mean {np.nanmean(values):.3f} median {np.nanmedian(values):.3f}")


if __name__ == "__main__":
    main()
