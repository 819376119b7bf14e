"""A portrait while its speech is still coming: the same frames however the sound is cut, soon, and close to the offline ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Speech
from deployments.engines.vasa1.config import StreamConfig
from deployments.engines.vasa1.face import poses_of
from deployments.engines.vasa1.mood import FRAME
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.engines.vasa1.stream import PortraitStream, PoseStream
from deployments.errors import SpeechError
from deployments.motion.lip_space import LIP_JAW
from deployments.portrait.controls import Controls
from deployments.portrait.draw import Pose
from deployments.portrait.film import fit_picture
from deployments.portrait.model import PortraitModel

UPPER, LOWER = LIP_JAW.tolist().index(13), LIP_JAW.tolist().index(14)


@cache
def model() -> PortraitModel:
    return fit_picture(np.ascontiguousarray(data.astronaut()[20:276, 100:356]), "largest")


@cache
def sound() -> NDArray[np.float32]:
    return speech_at_16k(synthesize("Five fresh loaves of bread, before the show begins."))


def streamed(samples: NDArray[np.float32], piece: int) -> list[NDArray[np.uint8]]:
    stream = PortraitStream(model())
    frames = [f for k in range(0, len(samples), piece) for f in stream.push(samples[k : k + piece])]
    return frames + list(stream.finish())


def poses(samples: NDArray[np.float32], controls: Controls) -> list[Pose]:
    stream = PoseStream(model(), PortraitOptions(controls=controls))
    return [*stream.push(samples), *stream.finish()]


def test_frames_do_not_depend_on_how_the_sound_is_cut() -> None:
    samples = sound()[: 30 * FRAME]
    small, whole = streamed(samples, FRAME), streamed(samples, len(samples))
    assert len(small) == len(whole) == 30
    assert all(np.array_equal(a, b) for a, b in zip(small, whole, strict=True))


def test_a_frame_leaves_when_its_look_ahead_has_come() -> None:
    config, stream, samples = StreamConfig(), PoseStream(model()), sound()
    for piece in range(1, 25):
        made = sum(1 for _ in stream.push(samples[(piece - 1) * FRAME : piece * FRAME]))
        assert (made > 0) == (piece in (config.first + config.ahead, config.first + config.hop + config.ahead))
        assert piece - stream.frames <= config.ahead + config.hop


def test_lips_of_a_stream_follow_the_offline_ones() -> None:
    speech = Speech(sound(), 16000)
    motion, latents = face_motion(speech, PortraitOptions())
    offline, live = poses_of(model(), motion, latents, Controls()), poses(sound(), Controls())
    assert len(offline) == len(live)
    gaps = [[p.displacement[LOWER, 1] - p.displacement[UPPER, 1] for p in way] for way in (offline, live)]
    assert np.corrcoef(gaps)[0, 1] > 0.8
    assert 0.7 < np.std(gaps[1]) / np.std(gaps[0]) < 1.4


def test_a_stream_is_told_where_to_look() -> None:
    across = [np.mean([p.gaze[0] for p in poses(sound(), Controls(gaze=(g, 0.0)))][20:]) for g in (-0.2, 0.0, 0.2)]
    assert across[0] < across[1] - 0.1 and across[1] < across[2] - 0.1


def test_noise_keeps_the_mouth_of_a_stream_shut_once_it_is_known_for_noise() -> None:
    noise = 0.03 * np.random.default_rng(0).standard_normal(3 * 16000).astype(np.float32)
    made = poses(np.concatenate([noise, sound()]), Controls())
    gap = np.array([p.displacement[LOWER, 1] - p.displacement[UPPER, 1] for p in made])
    assert np.ptp(gap[50:70]) < 0.005 and np.ptp(gap[90:]) > 0.03


def test_a_long_stream_keeps_a_bounded_memory_of_its_sound() -> None:
    stream = PoseStream(model())
    made = [len(list(stream.push(np.zeros(16000, np.float32)))) for _ in range(14)]
    assert stream.kept_seconds < 10 and sum(made) == stream.frames > 13 * 25


def test_what_is_no_sound_is_refused_and_none_gives_no_frame() -> None:
    stream = PortraitStream(model())
    with pytest.raises(SpeechError, match="finite"):
        list(stream.push(np.full(10, np.nan, np.float32)))
    assert not list(stream.finish())
