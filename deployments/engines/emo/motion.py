"""Speech to the lips of this avatar's person, and to what the denoiser hears of it: the sound itself conditions the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, Motion, Speech, Track
from deployments.engines.emo.brows import lift_of, liveliness_of
from deployments.engines.emo.config import FlowConfig
from deployments.engines.emo.emotion import emotion_of, worn
from deployments.engines.emo.hearing import hear, load_ear
from deployments.errors import OptionError
from deployments.motion.dubbing import template_sound, track_coefficients
from deployments.retrieval.bank import load_bank
from deployments.retrieval.sounds import new_sounds

Floats = NDArray[np.float32]

HEARD, WISHES = "heard", "wishes"
MOST_STEPS = 8


@dataclass(frozen=True)
class Wishes:
    """How a caller wants a clip to be generated."""

    steps: int
    guidance: float  # how much more the sound says than once; -1: nothing
    seed: int

    def array(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """As it travels with a motion; the seed in two halves that float32 holds exactly."""
        return np.array([self.steps, self.guidance, self.seed >> 20, self.seed & 0xFFFFF], np.float32)


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip. Raises OptionError, SpeechError."""
    wishes, expression, all_sung = wishes_of(options), float(options.get("expression", 1.0)), singing_of(options)
    stable, alive, emotion = load_bank(avatar.path).stable, liveliness_of(options), emotion_of(options)
    motion = mouth_motion(speech, clip, track, stable, expression, all_sung)
    extra = {WISHES: wishes.array(), **new_sounds(speech, clip.times())}
    extra |= lift_of(speech, clip.times(), track, stable, alive * expression)
    extra |= worn(emotion, motion, track)
    ear = load_ear(avatar.path)
    if ear is not None:
        extra[HEARD] = hear(speech, clip.times(), ear)
    return replace(motion, extra=extra)


def mouth_motion(speech: Speech, clip: Clip, track: Track, stable: Floats, expression: float, all_sung: bool) -> Motion:
    """The shared motion of this person's mouth, held open through held notes."""
    from deployments.audio.features import speech_at_16k
    from deployments.engines.emo.singing import sung
    from deployments.motion.animate import MotionOptions, make_motion
    from deployments.motion.template import measure_template

    own, times = track_coefficients(track, stable), clip.times()
    template = measure_template(own, track.usable, times, template_sound(clip))
    motion = make_motion(speech, times, template, MotionOptions(expression=expression))
    return sung(motion, speech_at_16k(speech), times, template, expression, all_sung)


def singing_of(options: dict[str, Any]) -> bool:
    """Whether all held notes are sung. Raises OptionError."""
    asked = float(options.get("singing", 0))
    if asked not in (0, 1):
        raise OptionError(f"expected singing of 0 or 1, got {asked:g}; 1 takes every held note for a voice")
    return asked == 1


def wishes_of(options: dict[str, Any]) -> Wishes:
    """A caller's options. Raises OptionError for a value out of range.

    Who asks for no guidance gets it by `expression`: at 0 the picture is generated as without sound, at 2 the sound says twice
    as much in it, as the lips do.
    """
    flow = FlowConfig()
    steps, seed = int(options.get("steps", flow.steps)), int(options.get("seed", 0))
    guidance = float(options.get("guidance", flow.guidance))
    by_expression = float(options.get("expression", 1.0)) - 1 if "guidance" not in options else 0.0
    if not 1 <= steps <= MOST_STEPS:
        raise OptionError(f"expected steps of 1 to {MOST_STEPS}, got {steps}; leave it out for {flow.steps}")
    if not 0 <= guidance <= 3:
        raise OptionError(f"expected guidance of 0 to 3, got {guidance}; leave it out for {flow.guidance}")
    if not 0 <= seed < 1 << 40:
        raise OptionError(f"expected a seed of 0 to 2^40 - 1, got {seed}; leave it out for 0")
    return Wishes(steps, guidance + by_expression, seed)


def told_wishes(motion: Motion) -> Wishes:
    """The wishes that a motion carries, or the engine's own."""
    if WISHES not in motion.extra:
        return wishes_of({})
    steps, guidance, high, low = motion.extra[WISHES].tolist()
    return Wishes(int(steps), guidance, (int(high) << 20) | int(low))
