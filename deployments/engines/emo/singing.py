"""Held notes: a voice that stays on one pitch and one vowel for longer than speech ever does. The mouth is held open for it.

The shared motion is made for speech. In a long note it hears closures that nobody sings (p, b, m are quiet and low, and so is a
high note to a net that never heard one), and it may take a note without words around it for music.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import LIP_COEFFICIENTS, Motion
from deployments.motion.lip_space import LipSpace

if TYPE_CHECKING:
    from deployments.motion.template import TemplateMouth

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

RATE, HOP = 16000, 160
SLOW = 4000  # Hz: pitch is found in the sound's low part
WINDOW = 160  # samples of it: three periods of a low voice
BLOCK = 4096  # steps at once: an hour of speech stays small
LOWEST, HIGHEST = 70, 800  # Hz
PERIODIC = 0.7  # correlation of a sound with itself a period later: below it is no voice on one note
OCTAVE = 0.85  # a shorter period that correlates nearly as well is the true one
SLIP = 11  # steps over which the middle pitch is taken: a wrong octave is shorter
GLIDE = 0.06  # change of pitch in 10 ms at most: a semitone; vibrato is a third of that
LOUD = 0.03  # of the loudest power: 15 dB below
BANDS = 20
STEADY = 4.0  # dB, root mean square over the bands: change of the spectrum in 100 ms; speech changes by more
APART = 20  # steps over which the spectrum is averaged, and between which it is compared: one vibrato
FLOOR = 1e-2  # of the mean power: bands below it are noise
SHORTEST = 0.65  # seconds: spoken vowels are shorter
EDGE = 0.1  # seconds at both ends in which a note is not yet steady
EASE = 0.08  # seconds in which lips open for a note and close after it
OPENS = 0.02  # eye distances: a motion that opens the mouth by this took the note for a voice


@dataclass(frozen=True)
class Note:
    """A held note."""

    start: float  # seconds
    stop: float
    pitch: float  # Hz


def held_notes(samples: Floats) -> list[Note]:
    """Notes of mono sound [N] at 16 kHz, in order."""
    from deployments.audio.features import mel_power

    power = mel_power(samples)
    pitch, strength = pitches(samples, len(power))
    loud = power.sum(1) > LOUD * np.percentile(power.sum(1), 99)
    voiced = (strength > PERIODIC) & loud
    follows = np.abs(np.diff(np.log(pitch), prepend=np.log(pitch[:1]))) < GLIDE
    steady = voiced & follows & (change(power) < STEADY)
    notes = []
    for start, stop in runs(steady):
        if (stop - start) * HOP < SHORTEST * RATE:
            continue
        tone = float(np.median(pitch[start:stop]))
        first, last = stretch(voiced & (np.abs(np.log(pitch / tone)) < GLIDE), start, stop)
        notes.append(Note(first * HOP / RATE, last * HOP / RATE, tone))
    return notes


def pitches(samples: Floats, steps: int) -> tuple[Doubles, Doubles]:
    """Pitch [T] in Hz and how periodic the sound is [T], 0..1, every 10 ms. Only what is below 2 kHz is listened to."""
    from scipy.ndimage import median_filter
    from scipy.signal import resample_poly

    hop, low, high = HOP * SLOW // RATE, SLOW // HIGHEST, SLOW // LOWEST
    slow = resample_poly(samples.astype(np.float64), SLOW, RATE)
    padded = np.pad(slow, (WINDOW // 2, WINDOW + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[hop // 2 :: hop][:steps]
    parts = [best_lags(likeness(frames[k : k + BLOCK], high), low) for k in range(0, steps, BLOCK)]
    pitch, strength = (np.concatenate(part) for part in zip(*parts, strict=True))
    return median_filter(pitch, SLIP), strength


def likeness(frames: Doubles, most: int) -> Doubles:
    """Correlation [T, most + 1] of frames [T, W] with themselves, shifted by 0 to `most` samples."""
    block = frames - frames.mean(1, keepdims=True)
    product = np.fft.irfft(np.abs(np.fft.rfft(block, 2 * WINDOW, axis=1)) ** 2, axis=1)[:, : most + 1]
    energy = np.cumsum(block**2, axis=1)
    lags = np.arange(most + 1)
    head, tail = energy[:, WINDOW - 1 - lags], energy[:, -1:] - np.concatenate([0 * energy[:, :1], energy[:, :most]], 1)
    return np.asarray(product / np.sqrt(np.maximum(head * tail, 1e-12)), np.float64)


def best_lags(like: Doubles, low: int) -> tuple[Doubles, Doubles]:
    """Pitch and strength [T] of correlations [T, lags]: the first peak that is nearly as high as the highest."""
    inside = like[:, low:-1]
    peak = (inside >= like[:, low - 1 : -2]) & (inside >= like[:, low + 1 :])
    heights = np.where(peak, inside, 0.0)
    strength = heights.max(1)
    lag = low + np.argmax(heights >= OCTAVE * strength[:, None], axis=1)
    rows = np.arange(len(like))
    before, here, after = (like[rows, lag + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2 * here + after, -1e-9)
    return SLOW / (lag + np.clip((before - after) / (2 * bend), -0.5, 0.5)), strength


def change(power: Floats) -> Doubles:
    """How much the spectrum [T] changes in 200 ms, dB, of mel power [T, 80]: in coarse bands, without vibrato and loudness."""
    from scipy.ndimage import uniform_filter1d

    coarse = uniform_filter1d(power.reshape(len(power), BANDS, -1).mean(2).astype(np.float64), APART, axis=0, mode="nearest")
    level = 10 * np.log10(coarse + FLOOR * coarse.mean(1, keepdims=True) + 1e-10)
    level -= level.mean(1, keepdims=True)
    later = np.minimum(np.arange(len(level)) + APART // 2, len(level) - 1)
    earlier = np.maximum(np.arange(len(level)) - APART // 2, 0)
    return np.asarray(np.sqrt(((level[later] - level[earlier]) ** 2).mean(1)), np.float64)


def stretch(same: NDArray[np.bool_], start: int, stop: int) -> tuple[int, int]:
    """A run of steps made longer at both ends while they are the `same` [T] note, by the edges of a note at most."""
    most = round(EDGE * RATE / HOP)
    first, last = start, stop
    while first > max(0, start - most) and same[first - 1]:
        first -= 1
    while last < min(len(same), stop + most) and same[last]:
        last += 1
    return first, last


def sung(motion: Motion, samples: Floats, times: Doubles, template: TemplateMouth, expression: float, all_sung: bool) -> Motion:
    """The motion of mono speech or song [N] at 16 kHz with the mouth held open through its notes.

    How far, the net's own answers say, on average over a note, without closures and pauses. Without `all_sung` only notes
    for which the motion opens the mouth anyhow: what has no word near it may be an instrument.
    """
    notes = held_notes(samples)
    if not notes:
        return motion
    space = LipSpace.load()
    moved = answers(samples, times, template, expression)
    coefficients = motion.coefficients.astype(np.float64)
    opening = space.aperture(motion.coefficients) - template.closed
    for note in notes:
        inside = (times >= note.start) & (times < note.stop)
        if not inside.any() or not (all_sung or opening[inside].max() > OPENS):
            continue
        away = np.maximum(note.start - times, times - note.stop)
        weight = np.clip(0.5 - away / EASE, 0, 1)[:, None]
        coefficients += weight * weight * (3 - 2 * weight) * (moved[inside].mean(0) - coefficients)
    return replace(motion, coefficients=coefficients.astype(np.float32))


def answers(samples: Floats, times: Doubles, template: TemplateMouth, expression: float) -> Floats:
    """What the net says of the lips [T, 8] at frame times, in the template's place and spread, without closures and pauses."""
    from deployments.motion.animate import SMALLEST_SPREAD, MotionOptions
    from deployments.motion.head import load_head, predict

    prediction = predict(samples)
    outputs = prediction.outputs
    if template.residual is not None:
        outputs = outputs + template.residual.apply(prediction.features)
    spread = np.maximum(load_head().spread.numpy(), SMALLEST_SPREAD)
    size = MotionOptions().amplitude * expression
    moved = template.mean + (outputs / spread)[:, :LIP_COEFFICIENTS] * template.std * size
    room = max(0.0, expression - 1) * template.std
    limited = np.clip(moved, template.p01 - room, template.p99 + room)
    steps = prediction.step_times()
    return np.stack([np.interp(times, steps, column) for column in limited.T], 1).astype(np.float32)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
