"""Where known words are in their sound: the most likely path through the phoneme net's classes (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import HOP
from deployments.errors import SpeechError
from deployments.motion.phoneme_net import PhonemeNet, speech_features
from deployments.motion.phonemes import CLASSES, SILENCE, classes_of

STEP_SECONDS = 0.01  # the net is asked twice, half a step apart
FEWEST_STEPS = 2  # of a sound
FEWEST_STEPS_ANY = 12  # of words that nobody told
FLOOR = 1e-4  # of a posterior: one wrong frame must not decide
ANY_COST = 1.2  # nats a step that unknown words cost more than the best class: known ones keep what is theirs
STRANGE = 90.0  # nats below the best classes that one sound or pause may take: more is something that was not told
MOST_CELLS = 400_000_000  # steps times states, a byte each


@dataclass(frozen=True)
class Word:
    """What is said: sounds in the voice's alphabet. None of them: anything."""

    text: str
    sounds: str = ""


@dataclass(frozen=True)
class Found:
    """When a word is said, in seconds, and how well it fits: mean nats a step below the best class, 0 = nothing fits better."""

    text: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Heard:
    """A transcript laid over its sound."""

    words: tuple[Found, ...]
    strange: tuple[tuple[float, float], ...]  # seconds in which something else is said than was told


@dataclass(frozen=True)
class _States:
    """A row of states, left to right: their classes (-1 = any), their word (-1 = a pause), and which may be skipped."""

    classes: NDArray[np.int64]
    words: NDArray[np.int64]
    optional: NDArray[np.bool_]


def align(samples: NDArray[np.float32], words: Sequence[Word], network: PhonemeNet | None = None) -> Heard:
    """When each word is said in mono speech [N] at 16 kHz. Raises SpeechError where the words cannot all be in it."""
    states, steps = states_of(words), -(-len(samples) // HOP)
    check_size(states, steps)
    likelihood = np.log(np.maximum(fine_posteriors(samples, network), FLOOR))
    best = likelihood.max(1)
    path = viterbi(with_any(likelihood), states.classes, states.optional)
    spoken = states.words[path]
    lost = best - np.where(states.classes[path] < 0, best, likelihood[np.arange(steps), states.classes[path]])
    found = []
    for number, word in enumerate(words):
        at = np.flatnonzero(spoken == number)
        start, end = float(at[0] * STEP_SECONDS), float((at[-1] + 1) * STEP_SECONDS)
        found.append(Found(word.text, start, end, float(lost[at].mean())))
    return Heard(tuple(found), strange_runs(path, lost))


def check_size(states: _States, steps: int) -> None:
    """Raise SpeechError for more words than the sound can hold, and for more of both than the search can."""
    needed = int((~states.optional).sum())
    if steps <= needed:
        raise SpeechError(
            f"expected at least {needed * STEP_SECONDS:.1f} s of sound for these words, got {steps * STEP_SECONDS:.1f} s; "
            "the transcript has more than is said"
        )
    if steps * len(states.classes) > MOST_CELLS:
        raise SpeechError(
            f"expected a clip and a transcript of some minutes, got {steps * STEP_SECONDS:.0f} s; "
            "write start and end of the segments instead"
        )


def strange_runs(path: NDArray[np.int64], lost: NDArray[np.float32]) -> tuple[tuple[float, float], ...]:
    """Times of the states that a sound was stretched over which is not theirs."""
    borders = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    runs = [(int(a), int(b)) for a, b in pairwise(borders) if lost[a:b].sum() > STRANGE]
    return tuple((a * STEP_SECONDS, b * STEP_SECONDS) for a, b in runs)


def fine_posteriors(samples: NDArray[np.float32], network: PhonemeNet | None = None) -> NDArray[np.float32]:
    """Class posteriors [T, 25] of steps of 10 ms; step k is centred on (k + 0.5) * 10 ms."""
    even = speech_features(np.concatenate([np.zeros(HOP // 2, np.float32), samples]), network)[1]
    odd = speech_features(np.concatenate([np.zeros(HOP // 2, np.float32), samples])[HOP:], network)[1]
    count = -(-len(samples) // HOP)
    both = np.zeros((2 * max(len(even), len(odd)), len(CLASSES)), np.float32)
    both[0 : 2 * len(even) : 2], both[1 : 2 * len(odd) : 2] = even, odd
    return both[:count]


def states_of(words: Sequence[Word]) -> _States:
    """States of words one after the other, with a pause that may be left out around each."""
    rows: list[tuple[int, int, bool]] = [(SILENCE, -1, True)]
    for number, word in enumerate(words):
        sounds = [part for sign in word.sounds for part in (classes_of(sign) if sign.strip() else [])]
        kinds = [kind for kind in sounds for _ in range(FEWEST_STEPS)] or [-1] * FEWEST_STEPS_ANY
        rows += [(kind, number, False) for kind in kinds]
        rows.append((SILENCE, -1, True))
    classes, owners, optional = zip(*rows, strict=True)
    return _States(np.array(classes), np.array(owners), np.array(optional))


def with_any(likelihood: NDArray[np.float32]) -> NDArray[np.float32]:
    """[T, 26] likelihoods of the classes, and in the last column of any sound."""
    spoken = np.delete(likelihood, SILENCE, axis=1).max(1) - ANY_COST
    return np.concatenate([likelihood, spoken[:, None]], axis=1)


def viterbi(likelihood: NDArray[np.float32], classes: NDArray[np.int64], optional: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The best path [T] through states [S] left to right: stay, go on, or step over one that is optional.

    `likelihood` [T, C] of the classes that the states `classes` [S] are.
    """
    steps, count = len(likelihood), len(classes)
    back = np.zeros((steps, count), np.uint8)
    score = np.full(count, -np.inf, np.float32)
    score[:2] = likelihood[0, classes[:2]]
    nowhere = np.float32(-np.inf)
    over = np.zeros(count, np.bool_)
    over[2:] = optional[1:-1]
    for step in range(1, steps):
        moves = np.stack([score, np.r_[nowhere, score[:-1]], np.where(over, np.r_[nowhere, nowhere, score[:-2]], nowhere)])
        back[step] = moves.argmax(0)
        score = moves.max(0) + likelihood[step, classes]
    state = count - 1 if score[-1] >= score[-2] else count - 2
    path = np.zeros(steps, np.int64)
    for step in range(steps - 1, -1, -1):
        path[step] = state
        state -= int(back[step, state])
    return path
