"""What is learned from: every frame of the template, shown without itself and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.appearance import CONTEXT, Appearance, Mix, Trust, fit_appearance, folds_of, textures_of
from deployments.engines.vasa1.config import Vasa1Config
from deployments.engines.vasa1.sample import Sample, Sources, Told, make_sample
from deployments.retrieval.bank import Bank
from deployments.retrieval.select import select_without_self
from deployments.retrieval.window import Bytes, Floats, Window, frame_view, scale_of, shrunk, to_window

GUESS_LIMIT = 3.0  # spreads: a wild wish stays a mouth


@dataclass(frozen=True)
class Lesson:
    """One frame to learn."""

    sample: Sample
    truth: Floats  # [3, H, W] 0..1
    condition: Floats  # [K + 11]


class Lessons:
    """Lessons of one bank; `train` and `held_out` are rows of it. `appearance` knows the rows of `train` only."""

    def __init__(self, bank: Bank, small: Bytes, window: Window, config: Vasa1Config) -> None:
        self.sources = Sources(bank, small, window)
        self.trust = Trust(0.0, 1.0)
        self._matrices = [window.matrix(bank.stable, vertices) for vertices in bank.vertices]
        self._targets = np.stack([to_window(m, v) for m, v in zip(self._matrices, bank.vertices, strict=True)])
        count = len(bank.frames)
        last = count - max(1, int(count * config.fit.held_out))
        self.held_out, train = np.arange(last, count), np.arange(last - config.fit.exclude[0])
        self.train = train[np.unique(np.linspace(0, len(train) - 1, min(len(train), config.fit.most)).astype(np.int64))]
        hidden = np.arange(count) >= last
        self._choices = [select_without_self(bank, radius, hidden, config) for radius in config.fit.exclude]
        self._mixes = [Mix(choice.rows, choice.weights) for choice in self._choices]
        self._gaps = [mix.gap(bank, bank.coefficients, bank.angles, config.pose_weight) for mix in self._mixes]
        self._clues = clues_of(bank, bank.coefficients, bank.angles)
        self._motion = motion_of(bank, bank.coefficients, bank.angles)
        self._size = config.decoder.code
        self._textures = textures_of(bank, small, window, self._targets.mean(0).astype(np.float32))
        self.appearance = self._learn(self.train)
        self._of_row = dict.fromkeys(range(count), self.appearance)
        for learned, guessed in folds_of(self.train):
            self._of_row |= dict.fromkeys(guessed.tolist(), self._learn(learned))

    def everything(self) -> Appearance:
        """The appearance learned from all frames: what the avatar keeps."""
        return self._learn(np.arange(len(self._matrices)))

    def gap(self, row: int, variant: int) -> float:
        """How far the looked-up mouths of a lesson lie from its own."""
        return float(self._gaps[variant][row])

    def lesson(self, row: int, variant: int) -> Lesson:
        """The lesson of a bank row with the `variant`-th set of looked-up pictures."""
        choice, appearance = self._choices[variant], self._of_row[row]
        small = self.sources.small
        view = frame_view(small[row], shrunk(self._matrices[row], scale_of(self.sources.bank, small)), self.sources.window)
        mix = Mix(choice.rows[row : row + 1], choice.weights[row : row + 1])
        code = appearance.guess(self._clues[row : row + 1], mix.of(appearance.codes))[0]
        share = float(self.trust.shares(self._gaps[variant][row]))
        told = Told(self._targets[row], choice.rows[row], choice.weights[row], code, share)
        sample = make_sample(self.sources, appearance, told, view)
        truth = (view.transpose(2, 0, 1) / 255).astype(np.float32)
        return Lesson(sample, truth, np.concatenate([padded(code, self._size), self._motion[row]]))

    def _learn(self, rows: NDArray[np.int64]) -> Appearance:
        return fit_appearance(self._textures, rows, [self._clues] * len(self._mixes), self._mixes, self._size)


def clues_of(bank: Bank, wanted: Floats, angles: Floats) -> Floats:
    """Clues [T, 43] to the mouth's look: lip shapes around the frame and the head's turn."""
    around = np.clip(np.arange(len(wanted))[:, None] + np.arange(-CONTEXT, CONTEXT + 1), 0, len(wanted) - 1)
    shapes = standard_shape(bank, wanted)[around].reshape(len(wanted), -1)
    return np.concatenate([shapes, turn(bank, angles)], axis=1).astype(np.float32)


def motion_of(bank: Bank, wanted: Floats, angles: Floats) -> Floats:
    """Shape and head angles [T, 11], standardised: what the decoder is told of the frame itself."""
    return np.concatenate([standard_shape(bank, wanted), turn(bank, angles)], axis=1).astype(np.float32)


def standard_shape(bank: Bank, wanted: Floats) -> Floats:
    """Coefficients [T, 8] in the person's own spread."""
    own = bank.coefficients
    return np.asarray(np.clip((wanted - own.mean(0)) / (own.std(0) + 1e-3), -GUESS_LIMIT, GUESS_LIMIT), np.float32)


def turn(bank: Bank, angles: Floats) -> Floats:
    """Head angles [T, 3] from the template's mean, about -1..1."""
    return np.asarray(np.clip(5 * (angles - bank.angles.mean(0)), -GUESS_LIMIT, GUESS_LIMIT), np.float32)


def padded(code: Floats, size: int) -> Floats:
    """A code that is shorter, because the template is, with zeros."""
    return np.pad(code, (0, size - len(code))).astype(np.float32)
