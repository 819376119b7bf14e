"""Words are found in speech whose times are known, and only there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from deployments.audio import tts
from deployments.audio.features import RATE
from deployments.errors import SpeechError
from deployments.motion.alignment import Word, align, states_of, viterbi

TEXT = "Nobody should give away that strange machine when it rained."

Sound = NDArray[np.float32]


def spoken(text: str) -> tuple[Sound, list[Word], list[tuple[float, float]]]:
    """Speech at 16 kHz, its words, and when the voice said them."""
    samples, phonemes = tts.speak(text)
    groups = " ".join(tts.sounds_of(text)).split()
    words = [Word(word, sounds) for word, sounds in zip(text.split(), groups, strict=True)]
    timed, times, place = [p for p in phonemes if p[0] != "_"], [], 0
    for word in words:
        count = sum((sign.isalpha() or sign == "ᵊ") and sign not in tts.STRESS for sign in word.sounds)
        times.append((timed[place][1], timed[place + count - 1][2]))
        place += count
    return soxr.resample(samples, tts.RATE, RATE).astype(np.float32), words, times


def test_words_are_found_where_the_voice_said_them() -> None:
    samples, words, times = spoken(TEXT)
    found = align(samples, words).words
    errors = [abs(one.start - a) for one, (a, _) in zip(found, times, strict=True)]
    errors += [abs(one.end - b) for one, (_, b) in list(zip(found, times, strict=True))[:-1]]  # the last one fades away
    assert np.median(errors) < 0.02 and max(errors) < 0.08
    assert all(one.end <= two.start for one, two in pairwise(found))


def test_a_pause_moves_the_words_behind_it_and_no_others() -> None:
    samples, words, times = spoken(TEXT)
    cut = round((times[3][1] + times[4][0]) / 2 * RATE)
    pause = 1e-4 * np.random.default_rng(0).standard_normal(RATE)
    found = align(np.concatenate([samples[:cut], pause, samples[cut:]]).astype(np.float32), words).words
    assert abs(found[0].start - times[0][0]) < 0.08
    assert abs(found[-1].start - times[-1][0] - 1.0) < 0.08


def test_words_that_nobody_told_are_what_lies_between_the_others() -> None:
    samples, words, times = spoken(TEXT)
    words[5] = Word("anything")
    found = align(samples, words).words
    assert abs(found[5].start - times[5][0]) < 0.08 and abs(found[5].end - times[5][1]) < 0.08


def test_other_words_fit_worse_than_the_right_ones() -> None:
    samples, words, _ = spoken(TEXT)
    other = [Word(word.text, word.sounds) for word in spoken("My brother painted five fresh loaves of bread by the river.")[1]]
    right, wrong = (np.mean([one.score for one in align(samples, told).words]) for told in (words, other))
    assert right < 0.5
    assert wrong > 1.5


def test_a_sentence_that_was_not_told_is_noticed() -> None:
    samples, words, times = spoken(f"{TEXT} My brother painted five fresh loaves. The whole village may keep these zebras.")
    assert align(samples, words).strange == ()
    ((start, end),) = align(samples, [*words[:10], *words[16:]]).strange
    assert times[9][1] - 0.2 < (start + end) / 2 < times[16][0] + 0.2, "between the others"


def test_more_words_than_the_sound_can_hold_are_refused() -> None:
    samples, words, _ = spoken(TEXT)
    with pytest.raises(SpeechError, match="more than is said"):
        align(samples[: RATE // 4], words)
    with pytest.raises(SpeechError, match="some minutes"):
        align(np.zeros(1200 * RATE, np.float32), words * 60)


def test_the_path_is_the_best_of_all_paths() -> None:
    states = states_of([Word("a", "pi")])
    emission = np.random.default_rng(4).standard_normal((7, len(states.classes))).astype(np.float32)
    path = viterbi(emission, np.arange(len(states.classes)), states.optional)

    def total(states_visited: list[int]) -> float:
        return float(sum(emission[k, s] for k, s in enumerate(states_visited)))

    def all_paths(sofar: list[int]) -> list[list[int]]:
        if len(sofar) == len(emission):
            return [sofar] if sofar[-1] >= len(states.classes) - 2 else []
        last = sofar[-1]
        onward = [last, last + 1, *([last + 2] if last + 2 < len(states.classes) and states.optional[last + 1] else [])]
        return [full for state in onward if state < len(states.classes) for full in all_paths([*sofar, state])]

    best = max((p for first in (0, 1) for p in all_paths([first])), key=total)
    assert path.tolist() == best
