"""How an emotion is worn from frame to frame: it swells with the voice, brows mark what is stressed, and the head moves with it.

The transformer cannot be told this by lessons of our own making: a rule of sound and emotion that is taught to it comes out as
the same rule added to what it makes, and there is no film of emotional speech that may be used. So it is added here, the same
for a whole speech and for one that is still coming: everything looks back only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.latents import RATE
from deployments.portrait.controls import Controls, split_emotion

Doubles = NDArray[np.float64]

FRAME = 640  # samples at 16 kHz
REST = 0.65  # of an expression that is left while nobody speaks
QUIETEST = 0.01  # amplitude: what never gets louder is silence
SPAN = 30.0  # decibels below the loudest that count
FORGET = 10.0  # seconds until the loudest counts half
SLOW, FAST = (0.25, 0.9), (0.06, 0.25)  # seconds in which the two levels rise and fall
FULL = 0.7  # level of plain speech: the expression is as it was asked for
ACCENT = 1.5  # of what the fast level is above the slow one: what the brows add
LIFE = {"neutral": 1.0, "happy": 1.2, "sad": 0.6, "surprised": 1.15, "angry": 1.3}  # of the head's motion


@dataclass(frozen=True)
class Worn:
    """Shares [T] of the expression that was asked for: of all of it, and of its brows."""

    face: Doubles
    brows: Doubles

    def part(self, frames: slice) -> Worn:
        """Some frames of it."""
        return Worn(self.face[frames], self.brows[frames])


def steady(frames: int) -> Worn:
    """The same in every frame: where nobody knows the sound."""
    return Worn(np.ones(frames), np.ones(frames))


class Mood:
    """Frame after frame: keeps what it heard so far."""

    def __init__(self) -> None:
        self._loudest, self._slow, self._fast = QUIETEST, 0.0, 0.0

    def wear(self, amplitudes: Doubles) -> Worn:
        """Of the next frames' mean amplitudes [T]."""
        faces, brows = np.empty(len(amplitudes)), np.empty(len(amplitudes))
        for t, amplitude in enumerate(amplitudes):
            self._loudest = max(QUIETEST, float(amplitude), self._loudest * 0.5 ** (1 / (FORGET * RATE)))
            level = max(0.0, 1 + 20 * np.log10(max(float(amplitude), 1e-6) / self._loudest) / SPAN)
            self._slow, self._fast = followed(self._slow, level, SLOW), followed(self._fast, level, FAST)
            faces[t] = REST + (1 - REST) * min(1.0, self._slow / FULL)
            brows[t] = faces[t] + ACCENT * max(0.0, self._fast - self._slow)
        return Worn(faces, brows)


def followed(value: float, target: float, seconds: tuple[float, float]) -> float:
    """One frame of a level that rises and falls in its own time."""
    return target + (value - target) * float(np.exp(-1 / (RATE * seconds[0 if target > value else 1])))


def amplitudes(sound: NDArray[np.float32], frames: int) -> Doubles:
    """Mean amplitude of each frame's sound at 16 kHz; 0 beyond its end."""
    squares = np.zeros(frames * FRAME)
    known = sound[: frames * FRAME].astype(np.float64)
    squares[: len(known)] = known**2
    return np.asarray(np.sqrt(squares.reshape(frames, FRAME).mean(1)))


def head_life(controls: Controls) -> float:
    """How much more, or less, the head moves than by itself."""
    name, strength = split_emotion(controls.emotion)
    return 1 + (LIFE[name] - 1) * strength
