"""Of remembered mouths of one shape, the one that sounded alike is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deployments.audio.tts import synthesize
from deployments.engines.emo.config import EmoConfig
from deployments.errors import WeightsError
from deployments.retrieval.bank import load_bank
from deployments.retrieval.config import RetrievalConfig
from deployments.retrieval.select import select, select_without_self
from deployments.retrieval.sounds import FILE, Sounds, load_sounds, new_sounds, save_sounds, sounds_at

HEARING = RetrievalConfig(sound_weight=0.02)
RATE = 16000


def test_of_mouths_of_one_shape_the_one_that_sounded_alike_is_taken(talking) -> None:
    bank = load_bank(talking.avatar.path)
    count = len(bank.frames)
    same = replace(
        bank,
        coefficients=np.tile(bank.coefficients[:1], (count, 1)),
        angles=np.tile(bank.angles[:1], (count, 1)),
        code=np.zeros_like(bank.code),
    )
    order = np.random.default_rng(0).permutation(count)
    each = np.eye(count, dtype=np.float32)
    rows = select(same, same.coefficients, same.angles, HEARING, sounds=Sounds(each[order], each)).rows
    np.testing.assert_array_equal(rows[:, 0], order)


def test_a_mouth_of_another_shape_is_not_taken_for_its_sound(talking) -> None:
    bank = load_bank(talking.avatar.path)
    count = len(bank.frames)
    far = replace(bank, coefficients=bank.coefficients + 10 * (np.arange(count) % 2)[:, None].astype(np.float32))
    swapped = np.eye(count, dtype=np.float32)
    rows = select(far, far.coefficients, far.angles, HEARING, sounds=Sounds(swapped[::-1].copy(), swapped)).rows
    np.testing.assert_array_equal(rows[:, 0] % 2, np.arange(count) % 2)


def test_without_a_weight_or_without_sounds_the_choice_is_as_it_was_to_the_bit(talking) -> None:
    bank = load_bank(talking.avatar.path)
    heard = np.eye(len(bank.frames), dtype=np.float32)
    sounds, hidden = Sounds(heard[::-1].copy(), heard), np.zeros(len(heard), bool)
    for config, told in ((RetrievalConfig(), sounds), (HEARING, None)):
        for one, other in (
            (
                select(bank, bank.coefficients, bank.angles, config, sounds=told),
                select(bank, bank.coefficients, bank.angles, RetrievalConfig()),
            ),
            (
                select_without_self(bank, 2, hidden, config, told),
                select_without_self(bank, 2, hidden, RetrievalConfig()),
            ),
        ):
            np.testing.assert_array_equal(one.rows, other.rows)
            np.testing.assert_array_equal(one.weights, other.weights)


def test_the_same_words_sound_the_same_wherever_they_are_said() -> None:
    words, times = synthesize("The five thick lions left."), np.arange(30) / 25
    samples = np.interp(np.arange(0, words.seconds, 1 / RATE), np.arange(len(words.samples)) / words.rate, words.samples)
    early = sounds_at(samples.astype(np.float32), times)
    late = sounds_at(np.pad(samples, (RATE // 5, 0)).astype(np.float32), times + 0.2)
    np.testing.assert_allclose((early**2).sum(1), 1, atol=1e-3)
    same = Sounds(late, early).distances(slice(0, 30))
    assert same.max() <= np.sqrt(2) + 1e-3
    inside = slice(5, 25)
    assert np.diag(same)[inside].mean() < 0.3 * same[inside].mean(), "said 0.2 s later, heard 0.2 s later"
    told = new_sounds(words, times)["sounds"]
    assert np.abs(told - early).mean() < 0.05, "whatever the rate"


def test_remembered_sounds_come_back_and_damaged_ones_are_refused(tmp_path) -> None:
    assert load_sounds(tmp_path, 4) is None, "nothing was heard"
    sounds = np.random.default_rng(0).random((4, 75), np.float32)
    save_sounds(sounds, tmp_path)
    np.testing.assert_array_equal(load_sounds(tmp_path, 4), sounds)
    with pytest.raises(WeightsError, match="expected 5 x 75"):
        load_sounds(tmp_path, 5)
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_sounds(tmp_path, 4)


def test_the_engine_listens() -> None:
    assert EmoConfig().sound_weight > 0 == RetrievalConfig().sound_weight
