"""Speech to the lips of this avatar's person, and to what the denoiser hears of it: the sound itself conditions the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deployments.contracts import Avatar, Clip, Motion, Speech, Track
from deployments.engines.emo.config import FlowConfig
from deployments.engines.emo.hearing import hear, load_ear
from deployments.errors import OptionError
from deployments.motion.dubbing import speech_motion
from deployments.retrieval.bank import load_bank

HEARD, WISHES = "heard", "wishes"
MOST_STEPS = 8


@dataclass(frozen=True)
class Wishes:
    """How a caller wants a clip to be generated."""

    steps: int
    guidance: float
    seed: int

    def array(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """As it travels with a motion; the seed in two halves that float32 holds exactly."""
        return np.array([self.steps, self.guidance, self.seed >> 20, self.seed & 0xFFFFF], np.float32)


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip. Raises OptionError, SpeechError."""
    wishes = wishes_of(options)
    motion = speech_motion(speech, clip, track, load_bank(avatar.path).stable, options)
    extra = {WISHES: wishes.array()}
    ear = load_ear(avatar.path)
    if ear is not None:
        extra[HEARD] = hear(speech, clip.times(), ear)
    return replace(motion, extra=extra)


def wishes_of(options: dict[str, Any]) -> Wishes:
    """A caller's options. Raises OptionError for a value out of range."""
    flow = FlowConfig()
    steps, seed = int(options.get("steps", flow.steps)), int(options.get("seed", 0))
    guidance = float(options.get("guidance", flow.guidance))
    if not 1 <= steps <= MOST_STEPS:
        raise OptionError(f"expected steps of 1 to {MOST_STEPS}, got {steps}; leave it out for {flow.steps}")
    if not 0 <= guidance <= 3:
        raise OptionError(f"expected guidance of 0 to 3, got {guidance}; leave it out for {flow.guidance}")
    if not 0 <= seed < 1 << 40:
        raise OptionError(f"expected a seed of 0 to 2^40 - 1, got {seed}; leave it out for 0")
    return Wishes(steps, guidance, seed)


def told_wishes(motion: Motion) -> Wishes:
    """The wishes that a motion carries, or the engine's own."""
    if WISHES not in motion.extra:
        return wishes_of({})
    steps, guidance, high, low = motion.extra[WISHES].tolist()
    return Wishes(int(steps), guidance, (int(high) << 20) | int(low))
