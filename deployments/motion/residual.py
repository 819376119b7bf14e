"""What one person's mouth does differently: a linear correction of the shared head, learned from the template's own sound.

Ten seconds of a person tell less than the shared head knows, so that the correction is a ridge regression on what the
head leaves over, held back by a prior that weighs as much as a minute of the template. Every fourth of the template is
predicted from the other three to see whether that helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from deployments.motion.head import FEATURES, LINEAR_TAPS, OUTPUTS, Prediction, load_head
from deployments.motion.offset import correlation

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Which outputs tell the offset, and whether a correction helps: opening, width, and the aperture itself.
OFFSET_WEIGHTS = (0.5, 0.25, 0, 0, 0, 0, 0, 0, 1.0)
SHORTEST_SECONDS = 4.0  # of usable frames: less tells nothing that lasts
PRIOR_SECONDS = 60.0
FOLDS = 4
GUARD_SECONDS = 0.3  # left out on both sides of what is predicted: neighbours are alike
# Correlations of 8 s err by 0.1, so that asking for a gain there drops as much help as harm; a clear loss is no chance.
CLEAR_LOSS = 0.05
# A mouth that agrees with its sound less than this does not speak it (music, a dubbed or a listening person).
LEAST_AGREEMENT = 0.15
LEAST_SPREAD = 1e-6  # of features in units of the corpus: under it they are one and the same


@dataclass(frozen=True)
class Residual:
    """Standardised outputs += (smoothed features - mean) @ weight."""

    mean: Floats  # [212]
    weight: Floats  # [212, 9]

    def apply(self, features: Floats) -> Floats:
        """Correction [S, 9] for features [S, 212]."""
        return ((smoothed(features) - self.mean) @ self.weight).astype(np.float32)


def smoothed(features: Floats) -> Floats:
    """Features [S, 212] as the head's linear map sees them: over 220 ms, and ahead, since lips lead the sound."""
    return np.asarray(correlate1d(features, LINEAR_TAPS, axis=0, mode="nearest"), np.float32)


def fit_residual(prediction: Prediction, measured: Floats, heard: Doubles) -> Residual | None:
    """The correction for a mouth `measured` [T, 9] (standardised) at times `heard` [T] of the sound's clock.

    None under 4 s of usable frames, and where parts of the template that it does not see are clearly worse with it.
    """
    frame = frame_seconds(heard)
    if len(heard) * frame < SHORTEST_SECONDS:
        return None
    features, shared = at_frames(prediction, heard), prediction.outputs_at(heard)
    left = measured - shared
    unseen = shared.copy()
    for learned, part in folds(len(heard), FOLDS, frame):
        trial = _ridge(features[learned], left[learned], frame)
        unseen[part] += (features[part] - trial.mean) @ trial.weight
    if agreement(unseen, measured) < max(agreement(shared, measured) - CLEAR_LOSS, LEAST_AGREEMENT):
        return None
    return _ridge(features, left, frame)


def agreement(outputs: Floats, measured: Floats) -> float:
    """Weighted correlation of outputs [T, 9] with the tracked mouth [T, 9]."""
    parts = [w * correlation(outputs[:, k], measured[:, k]) for k, w in enumerate(OFFSET_WEIGHTS) if w]
    return sum(parts) / sum(OFFSET_WEIGHTS)


def cross_fitted(prediction: Prediction, measured: Floats, heard: Doubles, parts: int = 5) -> Floats:
    """Outputs [T, 9] of the corrected head where every fifth of the template is predicted without having been seen.

    For measuring: what the correction is worth on speech of this person that it did not learn from.
    """
    outputs = prediction.outputs_at(heard)
    features = at_frames(prediction, heard)
    for learned, part in folds(len(heard), parts, frame_seconds(heard)):
        found = fit_residual(prediction, measured[learned], heard[learned])
        if found is not None:
            outputs[part] += (features[part] - found.mean) @ found.weight
    return outputs


def at_frames(prediction: Prediction, heard: Doubles) -> Floats:
    """Smoothed features [T, 212] at times [T] of the sound's clock."""
    steps, features = prediction.step_times(), smoothed(prediction.features)
    return np.stack([np.interp(heard, steps, column) for column in features.T], 1).astype(np.float32)


def frame_seconds(times: Doubles) -> float:
    """Time between frames; 0 for fewer than two."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def folds(frames: int, parts: int, frame: float) -> Iterator[tuple[Mask, slice]]:
    """(frames to learn from, frames to predict) for each of the parts, with a guard between them."""
    guard = round(GUARD_SECONDS / frame)
    edges = np.linspace(0, frames, parts + 1).astype(int)
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        learned = np.ones(frames, bool)
        learned[max(0, start - guard) : stop + guard] = False
        yield learned, slice(start, stop)


def _ridge(features: Floats, left: Floats, frame: float) -> Residual:
    """No constant is learned: place and spread are the template's, and a new voice must not shift the mouth."""
    scale = load_head().feature_std.numpy().astype(np.float64)
    mean = features.mean(0, dtype=np.float64)
    x = (features - mean) / scale
    wanted = left.reshape(-1, OUTPUTS) - left.mean(0)
    spread = float((x * x).mean())
    # Sound that ends early leaves frames that all hear the same nothing, which teaches nothing (and has no inverse).
    prior = PRIOR_SECONDS / (len(x) * frame) * (spread if spread > LEAST_SPREAD else 1.0)
    weight = np.linalg.solve(x.T @ x / len(x) + prior * np.eye(FEATURES), x.T @ wanted / len(x))
    return Residual(mean.astype(np.float32), (weight / scale[:, None]).astype(np.float32))
