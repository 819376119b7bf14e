"""Whether somebody speaks: what the phoneme net's own answers tell of it, without another network.

Whoever speaks says one thing after another, clearly: the class of a moment is sure, and the classes of a second are many.
Noise is unsure of every moment; a tone or a chord stays with a few classes. Both at once is the information that time
carries about the class, in nats:

    I(t) = H(mean of p around t) - mean of H(p) around t        p: posteriors without silence, weighted by what is voiced

Melodies come near to that, but their spectrum stands still between two notes, as a mouth's never does: its change from
step to step is the second measure. What counts is the best window within a second. On 21 recordings (four languages,
studio to telephone and public address) I is 0.85 or more and the change 0.27 or more wherever there is voice; with white
noise as loud as a voice 0.99 and 0.46, with a melody as loud 1.3 and 0.25. Noise, tones, chords, drums and applause have
an I of 0.77 or less, melodies a change of 0.18 or less. Drums under a melody, at 0.77 and 0.28, are half taken for speech,
and fast drums with toms, at 0.87 and 0.35, wholly. A limit on the sum of both cannot tell them: a public address over a
telephone has 1.12, those drums 1.2, and below 1.12 it would take away half of drums under a melody and no whistle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.motion.phonemes import SILENCE

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

STEP = 0.02  # seconds
WINDOW = 1.0  # seconds to both sides in which classes are counted
REACH = 1.0  # seconds to both sides in which the best window counts: a word is speech if its neighbour is
INFORMATION = (0.68, 0.84)  # nats: never speech, always
CHANGE = (0.18, 0.24)  # of the normalised bands per step: likewise
UNKNOWN, KNOWN = 0.8, 1.4  # seconds of voice: what is shorter cannot be judged, and counts as speech


def speaking(bands: Floats, posteriors: Floats) -> Floats:
    """How surely somebody speaks [T], 0..1, from normalised bands [T, B] and class posteriors [T, 25], 50 a second."""
    if not len(posteriors):
        return np.zeros(0, np.float32)
    voiced = 1 - posteriors[:, SILENCE].astype(np.float64)
    heard = _best(_sums(voiced[:, None], np.ones(2 * round(WINDOW / STEP) + 1))[:, 0] * STEP)
    sure = np.minimum(_ramp(_best(information(posteriors)), *INFORMATION), _ramp(_best(change(bands, voiced)), *CHANGE))
    return np.asarray(1 - _ramp(heard, UNKNOWN, KNOWN) * (1 - sure), np.float32)


def information(posteriors: Floats) -> Doubles:
    """I(t) [T] of class posteriors [T, 25], in nats."""
    classes = np.delete(posteriors, SILENCE, axis=1).astype(np.float64)
    classes /= np.maximum(classes.sum(1, keepdims=True), 1e-6)
    means = _means(np.concatenate([classes, _entropy(classes)[:, None]], axis=1), 1 - posteriors[:, SILENCE].astype(np.float64))
    return np.asarray(_entropy(means[:, :-1]) - means[:, -1], np.float64)


def change(bands: Floats, voiced: Doubles) -> Doubles:
    """Mean absolute change per step [T] of bands [T, B], around each moment, where it is voiced [T]."""
    steps = np.abs(np.diff(bands.astype(np.float64), axis=0, prepend=bands[:1])).mean(1)
    return _means(steps[:, None], voiced)[:, 0]


def _means(rows: Doubles, weights: Doubles) -> Doubles:
    """Rows [T, K] averaged around each of them; 0 where hardly anything has weight."""
    window = np.hanning(2 * round(WINDOW / STEP) + 3)[1:-1]
    sums = _sums(np.concatenate([rows, np.ones((len(rows), 1))], axis=1) * weights[:, None], window)
    return np.asarray(sums[:, :-1] / np.maximum(sums[:, -1:], 1.0), np.float64)


def _best(values: Doubles) -> Doubles:
    """The largest value [T] within reach."""
    from scipy.ndimage import maximum_filter1d

    return np.asarray(maximum_filter1d(values, 2 * round(REACH / STEP) + 1), np.float64)


def _sums(rows: Doubles, window: Doubles) -> Doubles:
    """Rows [T, K] summed under a window around each of them."""
    from scipy.signal import oaconvolve

    half = len(window) // 2
    return np.asarray(oaconvolve(rows, window[:, None], axes=0)[half : half + len(rows)], np.float64)


def _entropy(shares: Doubles) -> Doubles:
    return np.asarray(-(shares * np.log(np.maximum(shares, 1e-9))).sum(-1), np.float64)


def _ramp(values: Doubles, low: float, high: float) -> Doubles:
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float64)
