"""Features and voice mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.audio.features import BANDS, mel_filters, mel_power, normalise, speech_at_16k
from deployments.audio.tts import RATE, synthesize
from deployments.contracts import Speech
from deployments.errors import SpeechError


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 16000])
def test_frames_follow_the_length_rule(samples: int) -> None:
    assert mel_power(np.ones(samples, np.float32)).shape == (-(-samples // 160), BANDS)


def test_a_tone_lands_in_its_band_at_its_time() -> None:
    t = np.arange(16000) / 16000
    sound = np.where(t >= 0.5, np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)
    power = mel_power(sound)
    band = int(power[75].argmax())
    assert mel_filters()[band, 32] > 0
    loud = power[:, band] > power[75, band] / 4
    assert abs(int(loud.argmax()) - 50) <= 1


def test_gain_and_equaliser_are_normalised_away() -> None:
    rng = np.random.default_rng(0)
    power = (rng.exponential(1, (300, BANDS)) * np.repeat(rng.uniform(0.01, 1, 30), 10)[:, None]).astype(np.float32)
    tilt = np.geomspace(0.5, 2, BANDS).astype(np.float32)
    assert np.abs(normalise(power) - normalise(power * 100)).max() < 1e-3
    assert np.abs(normalise(power) - normalise(power * tilt)).mean() < 0.1


def test_digital_silence_stays_finite() -> None:
    assert np.isfinite(normalise(mel_power(np.zeros(8000, np.float32)))).all()


def test_unusable_samples_are_refused() -> None:
    for samples in (np.zeros(0, np.float32), np.full(100, np.nan, np.float32), np.zeros((10, 2), np.float32)):
        with pytest.raises(SpeechError):
            speech_at_16k(Speech(samples, 16000))


def test_voice_tells_timings_that_fit_its_sound() -> None:
    speech = synthesize("Bob met Pam. My people may buy a big map, John.")
    assert speech.rate == RATE and speech.samples.dtype == np.float32
    assert speech.phonemes, "the pinned voice tells durations"
    starts = np.array([start for _, start, _ in speech.phonemes])
    ends = np.array([end for _, _, end in speech.phonemes])
    assert (np.diff(starts) >= -1e-6).all() and (ends >= starts).all()
    # The timings are moved 50 ms earlier than the voice's own durations, which fill the sound exactly.
    assert abs(ends[-1] + 0.05 - speech.seconds) < 1e-6
    assert np.array_equal(speech.samples, synthesize(speech.text).samples)


def test_fricatives_hiss_where_the_timings_say() -> None:
    speech = synthesize("She sees six ships. Sue says so.")
    power = mel_power(speech_at_16k(speech))
    hiss = np.log(power[:, 55:].sum(1) + 1e-8) - np.log(power[:, :40].sum(1) + 1e-8)
    centres = (np.arange(len(power)) + 0.5) / 100
    inside = np.zeros(len(power), bool)
    voiced = np.zeros(len(power), bool)
    for symbol, start, end in speech.phonemes:
        part = (centres >= start) & (centres < end)
        inside |= part & (symbol in "sʃ")
        voiced |= part & (symbol in "iɪæʌuAIO")
    assert hiss[inside].mean() > hiss[voiced].mean() + 2


@pytest.mark.parametrize("text", ["", "  \n", "...!?", "你好，世界", "Привет", "a" * 30000])
def test_text_that_cannot_be_spoken_is_refused(text: str) -> None:
    with pytest.raises(SpeechError):
        synthesize(text)


def test_unknown_voice_is_refused() -> None:
    with pytest.raises(SpeechError, match="voice"):
        synthesize("Hello.", voice="nobody")
