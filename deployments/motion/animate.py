"""New speech to mouth motion, once per job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import speech_at_16k
from deployments.contracts import LIP_COEFFICIENTS, Motion, Speech
from deployments.errors import OptionError
from deployments.motion.head import Prediction, load_head, predict
from deployments.motion.lip_space import LipSpace
from deployments.motion.phonemes import BILABIAL as BILABIAL_CLASS
from deployments.motion.phonemes import classes_of
from deployments.motion.template import TemplateMouth

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SMALLEST_SPREAD = 0.5
PAUSE_SECONDS = 0.16
EASE_SECONDS = 0.1
SILENT = 0.5
BILABIAL = 0.3
CLOSE_EASE = 0.07
# Lips meet before the sound of p, b and m: closures at the sound's time came 50 ms after the tracked ones.
CLOSE_LEAD = 0.05


@dataclass(frozen=True)
class MotionOptions:
    """`expression` 0 (still) .. 2 (twice the template's own movement); `amplitude` is what 1 means.

    `closures`: make p, b and m really close. Raises OptionError for values out of range.
    """

    expression: float = 1.0
    amplitude: float = 0.9
    closures: bool = True

    def __post_init__(self) -> None:
        for name, value in (("expression", self.expression), ("amplitude", self.amplitude)):
            if not 0 <= value <= 2:
                raise OptionError(f"expected {name} of 0 to 2, got {value}; leave it out for natural movement")


def make_motion(
    speech: Speech, times: NDArray[np.float64], template: TemplateMouth, options: MotionOptions | None = None
) -> Motion:
    """Motion of the template's mouth for the speech, at frame times [T] in seconds (speech starts at 0).

    Before, after and in pauses of the speech the mouth rests. The same input gives the same output. Raises
    SpeechError for empty or non-finite speech.
    """
    options = options or MotionOptions()
    samples = speech_at_16k(speech)
    prediction = predict(samples)
    times = np.asarray(times, np.float64)
    moved = _scaled(prediction, template, options)
    quiet = pause_weight(prediction, times, len(samples) / 16000)
    steps = prediction.step_times()
    at_frames = np.stack([np.interp(times, steps, column) for column in moved.T], 1)
    coefficients = at_frames + quiet[:, None] * (template.rest - at_frames)
    if options.closures and options.expression > 0:
        coefficients = close_lips(coefficients, closure_weight(prediction, speech, times), template)
    info = {
        "source": "phoneme net and shared head" + (" with the template's own correction" if template.residual else ""),
        "template_offset_ms": round(template.offset.seconds * 1000),
        "template_correlation": template.offset.correlation,
        "expression": options.expression,
    }
    return Motion(coefficients.astype(np.float32), np.ones(len(times), np.float32), info)


def _scaled(prediction: Prediction, template: TemplateMouth, options: MotionOptions) -> Floats:
    """Coefficients [S, 8] in the template's place and spread, inside its range."""
    outputs = prediction.outputs
    if template.residual is not None:
        outputs = outputs + template.residual.apply(prediction.features)
    # What speech hardly tells (asymmetry, jaw shifts) is predicted with a tiny spread; blowing it up would be noise.
    spread = np.maximum(load_head().spread.numpy(), SMALLEST_SPREAD)
    size = options.amplitude * options.expression
    moved = template.mean + (outputs / spread)[:, :LIP_COEFFICIENTS] * template.std * size
    room = max(0.0, options.expression - 1) * template.std
    return np.clip(moved, template.p01 - room, template.p99 + room)


def pause_weight(prediction: Prediction, times: Doubles, seconds: float) -> Doubles:
    """How much the mouth rests [T], 0..1: 1 inside pauses of 160 ms or more and outside the speech, eased over 100 ms.

    The easing lies inside the pause, so that speech keeps its full movement. Where what is heard is no speech, it rests too.
    """
    depth = np.maximum(-times, times - seconds)
    for start, stop in _runs(prediction.silence > SILENT):
        low, high = start * 0.02, stop * 0.02
        # A pause at either end of the speech goes on beyond it.
        low = -np.inf if start == 0 else low
        high = np.inf if stop == len(prediction.silence) else high
        if high - low >= PAUSE_SECONDS:
            depth = np.maximum(depth, np.minimum(times - low, high - times))
    ramp = np.clip(depth / EASE_SECONDS, 0, 1)
    return np.maximum(ramp * ramp * (3 - 2 * ramp), 1 - np.interp(times, prediction.step_times(), prediction.speaking))


def closure_weight(prediction: Prediction, speech: Speech, times: Doubles) -> Doubles:
    """How much lips must be closed [T], 0..1: 1 shortly before p, b and m sound, for at least one frame, eased over 70 ms.

    Heard by the net, and told by the voice where the speech carries its phonemes.
    """
    heard = [(start * 0.02, stop * 0.02) for start, stop in _runs(prediction.bilabial > BILABIAL)]
    told = [(start, end) for symbol, start, end in speech.phonemes if BILABIAL_CLASS in classes_of(symbol)]
    weight = np.zeros(len(times))
    frame = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    for start, stop in heard + told:
        middle, half = (start + stop) / 2 - CLOSE_LEAD, max((stop - start) / 2 - 0.01, frame / 2)
        beyond = np.abs(times - middle) - half
        weight = np.maximum(weight, np.clip(1 - beyond / CLOSE_EASE, 0, 1))
    return weight * weight * (3 - 2 * weight)


def close_lips(coefficients: Doubles, weight: Doubles, template: TemplateMouth) -> Doubles:
    """Coefficients [T, 8] with the aperture pulled to the template's closed one by `weight` [T].

    The pull goes where the template's own mouth moves most, so that a closed mouth looks like this person's.
    """
    space = LipSpace.load()
    start = space.aperture(coefficients.astype(np.float32)).astype(np.float64)
    target = start - np.maximum(start - template.closed, 0) * weight
    for _ in range(3):
        aperture = space.aperture(coefficients.astype(np.float32)).astype(np.float64)
        slope = aperture_slope(space, coefficients)
        way = slope * template.std.astype(np.float64) ** 2
        along = np.maximum((slope * way).sum(1), 1e-12)
        excess = np.maximum(aperture - target, 0)
        coefficients = coefficients - (excess / along)[:, None] * way
    return coefficients


def aperture_slope(space: LipSpace, coefficients: Doubles) -> Doubles:
    """Change of the aperture with each coefficient [T, 8], by central differences."""
    step = 1e-2
    columns = []
    for k in range(LIP_COEFFICIENTS):
        shift = np.zeros(LIP_COEFFICIENTS)
        shift[k] = step
        up, down = (space.aperture((coefficients + s * shift).astype(np.float32)) for s in (1, -1))
        columns.append((up.astype(np.float64) - down) / (2 * step))
    return np.stack(columns, 1)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
