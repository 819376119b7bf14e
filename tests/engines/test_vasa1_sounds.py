"""Sounds that are no clean English speech: the portrait lives on, its mouth stays a mouth, and rests where nobody speaks."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Speech
from deployments.engines.vasa1.latents import LIPS
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.errors import SpeechError
from deployments.motion.lip_space import LipSpace
from deployments.portrait.move import HIGHEST, LOWEST, generic_mouth

RATE = 16000


@cache
def voice() -> NDArray[np.float32]:
    return speech_at_16k(synthesize("Five fresh loaves of bread, before the show begins."))


def music() -> NDArray[np.float32]:
    """Chords of three decaying tones with overtones, a new one every half second."""
    t, out = np.arange(RATE // 2) / RATE, []
    for root in (220.0, 174.6, 196.0, 261.6, 220.0):
        tones = sum(np.sin(2 * np.pi * root * ratio * k * t) / k for ratio in (1, 1.26, 1.5) for k in (1, 2, 3))
        out.append(0.1 * tones * np.exp(-3 * t))
    return np.concatenate(out).astype(np.float32)


def noise(size: int) -> NDArray[np.float32]:
    return 0.01 * np.random.default_rng(0).standard_normal(size).astype(np.float32)


def tone() -> NDArray[np.float32]:
    return (0.1 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)


def sounds() -> dict[str, Speech]:
    other = np.roll(voice()[::-1], RATE // 3)
    telephone = resample_poly(voice(), 1, 2).astype(np.float32)
    return {
        "silence": Speech(np.zeros(2 * RATE, np.float32), RATE),
        "noise": Speech(noise(2 * RATE), RATE),
        "music": Speech(music(), RATE),
        "tone": Speech(tone(), RATE),
        "under noise": Speech(voice() + noise(len(voice())) * float(voice().std() / 0.01), RATE),
        "telephone": Speech(telephone, RATE // 2),
        "short": Speech(voice()[RATE // 2 : RATE // 2 + RATE // 5], RATE),
        "clipped": Speech(np.clip(20 * voice(), -1, 1), RATE),
        "two speakers": Speech(voice() + other, RATE),
        "no known language": Speech(np.ascontiguousarray(voice()[::-1]), RATE),
    }


def opening(speech: Speech) -> NDArray[np.float64]:
    """The lips' opening beyond rest, per frame."""
    motion, latents = face_motion(speech, PortraitOptions())
    assert len(motion.coefficients) == len(latents) == -(-len(speech.samples) * 25 // speech.rate)
    assert np.isfinite(latents).all() and np.abs(latents[:, LIPS.stop :]).max() < 6
    room = 1e-3 + 0.1 * (np.array(HIGHEST) - LOWEST)
    assert (motion.coefficients > LOWEST - room).all() and (motion.coefficients < HIGHEST + room).all()
    space = LipSpace.load()
    return np.asarray(space.aperture(motion.coefficients) - space.aperture(generic_mouth().rest[None]), np.float64)


@pytest.mark.parametrize("name", sounds())
def test_any_sound_moves_a_mouth_within_its_range(name: str) -> None:
    opened = opening(sounds()[name])
    if name in ("silence", "noise", "music"):
        assert np.abs(opened).max() < 0.005
    if name == "tone":
        assert (np.abs(opened) < 0.005).mean() > 0.8, "where it begins and ends it may be a word"
    if name in ("telephone", "clipped", "two speakers", "no known language", "under noise"):
        assert opened.std() > 0.01 and (opened > 0.02).mean() > 0.3


def test_speech_between_noise_opens_the_mouth_and_the_noise_does_not() -> None:
    opened = opening(Speech(np.concatenate([noise(3 * RATE), voice(), noise(3 * RATE)]), RATE))
    said = slice(75, 75 + 25 * len(voice()) // RATE)
    assert (opened[said] > 0.02).mean() > 0.3
    assert np.abs(opened[:25]).max() < 0.005 and np.abs(opened[-25:]).max() < 0.005


@pytest.mark.parametrize("name", ["telephone", "clipped"])
def test_damaged_speech_moves_the_lips_as_the_clean_one_does(name: str) -> None:
    clean, damaged = opening(Speech(voice(), RATE)), opening(sounds()[name])
    size = min(len(clean), len(damaged))
    assert np.corrcoef(clean[:size], damaged[:size])[0, 1] > 0.6


def test_no_sound_at_all_is_refused() -> None:
    with pytest.raises(SpeechError):
        face_motion(Speech(np.zeros(0, np.float32), RATE), PortraitOptions())
