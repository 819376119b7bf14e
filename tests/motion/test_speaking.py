"""Speech is told from what is none by the phoneme net's own posteriors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.motion.head import predict
from deployments.motion.phonemes import CLASSES, SILENCE
from deployments.motion.speaking import information, speaking

RATE = 16000


def melody(seconds: int = 4) -> NDArray[np.float32]:
    """Notes with eight overtones and a vibrato, three a second."""
    rng, t = np.random.default_rng(0), np.arange(RATE // 3) / RATE
    notes = []
    for _ in range(3 * seconds):
        phase = 2 * np.pi * rng.choice([262, 294, 330, 392, 524]) * t + 0.3 * np.sin(10 * np.pi * t)
        notes.append(sum(np.sin(k * phase) / k for k in range(1, 9)) * np.minimum(1, t / 0.02) * np.exp(-2 * t))
    return (0.1 * np.concatenate(notes)).astype(np.float32)


def test_information_is_that_of_a_known_channel() -> None:
    """Four classes in turn, each sure, carry log 4; the same classes unsure all the time carry nothing."""
    turn = np.full((400, len(CLASSES)), 1e-9, np.float32)
    turn[np.arange(400), 1 + np.arange(400) % 4] = 1
    unsure = np.full((400, len(CLASSES)), 1e-9, np.float32)
    unsure[:, 1:5] = 0.25
    assert information(turn)[100:300] == pytest.approx(np.log(4), abs=0.01)
    assert np.abs(information(unsure)).max() < 1e-6


def test_silence_is_no_voice_and_little_voice_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    posteriors, bands = (
        np.full((300, len(CLASSES)), 1 / len(CLASSES), np.float32),
        rng.standard_normal((300, 20)).astype(np.float32),
    )
    assert speaking(bands, posteriors).max() < 0.01, "unsure for six seconds"
    short = posteriors.copy()
    short[30:] = np.eye(len(CLASSES))[SILENCE]
    assert speaking(bands, short).min() == 1
    assert len(speaking(bands[:0], posteriors[:0])) == 0


@pytest.mark.parametrize("sound", ["white", "swelling", "melody"])
def test_noise_and_music_are_no_speech(sound: str) -> None:
    t = np.arange(4 * RATE) / RATE
    white = np.random.default_rng(0).standard_normal(len(t)).astype(np.float32)
    samples = {"white": 0.05 * white, "swelling": 0.05 * white * (1 + np.sin(8 * np.pi * t)) / 2, "melody": melody()}[sound]
    assert predict(samples.astype(np.float32)).speaking.max() < 0.1


def test_real_speech_is_never_taken_for_anything_else(clips_dir: Path) -> None:
    from deployments.media.sound import read_sound

    for path in sorted((clips_dir / "evaluation_only").glob("closeup_*.mp4")):
        heard = predict(read_sound(path, 16000))
        assert heard.speaking[heard.silence < 0.5].min() == 1, path.name
