"""An emotion that lives: it swells with the voice and rests in pauses, in a whole speech as in one that is still coming."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Motion, Speech
from deployments.engines.vasa1.face import poses_of
from deployments.engines.vasa1.latents import measure
from deployments.engines.vasa1.mood import FRAME, REST, Mood, amplitudes
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion, render_portrait
from deployments.engines.vasa1.stream import PoseStream
from deployments.face.track import track_image
from deployments.portrait.controls import Controls
from deployments.portrait.draw import PortraitRenderer, Pose, render_frames
from deployments.portrait.film import fit_picture
from deployments.portrait.model import PortraitModel

Floats = NDArray[np.float32]


@cache
def model() -> PortraitModel:
    return fit_picture(np.ascontiguousarray(data.astronaut()[20:276, 100:356]), "largest")


@cache
def sound() -> Floats:
    """A sentence, and nothing for as long."""
    words = speech_at_16k(synthesize("The ships came home."))
    return np.concatenate([words, np.zeros_like(words)])


@cache
def motion() -> tuple[Motion, Floats]:
    return face_motion(Speech(sound(), 16000), PortraitOptions())


def frames() -> int:
    return len(motion()[1])


def poses(emotion: str) -> list[Pose]:
    """Offline, with the same lips and latents for every emotion."""
    return poses_of(model(), *motion(), Controls(emotion), worn=Mood().wear(amplitudes(sound(), frames())))


def test_it_swells_with_the_voice_and_rests_in_pauses_however_loud_the_recording() -> None:
    level = amplitudes(sound(), frames())
    worn = Mood().wear(level)
    middle = frames() // 2
    assert worn.face[12 : middle - 2].min() > 0.85 and worn.face[-1] < REST + 0.08
    assert REST <= worn.face.min() and worn.face.max() <= 1
    assert np.corrcoef(worn.face[:-3], np.convolve(level, np.ones(12) / 12)[: frames() - 3])[0, 1] > 0.5
    np.testing.assert_allclose(Mood().wear(3 * level).face[12:], worn.face[12:], atol=0.02)
    assert (worn.brows >= worn.face).all() and (worn.brows - worn.face).max() > 0.2, "brows mark what is stressed"
    np.testing.assert_allclose(Mood().wear(np.full(50, 0.0002)).face, REST, atol=1e-9)


def test_a_stream_wears_the_same_emotion_as_the_whole_speech() -> None:
    stream = PoseStream(model(), PortraitOptions(controls=Controls("happy")))
    live = [pose for k in range(0, len(sound()), 900) for pose in stream.push(sound()[k : k + 900])] + list(stream.finish())
    corners = [[pose.expression.corners for pose in made] for made in (poses("happy"), live)]
    assert len(corners[0]) == len(corners[1]) and np.ptp(corners[0]) > 0.01
    np.testing.assert_allclose(corners[0], corners[1], atol=1e-9)


def test_heads_move_less_in_sorrow_and_more_in_anger() -> None:
    turns = {name: np.std([p.rotation for p in poses(name)], axis=0).max() for name in ("sad", "neutral", "happy", "angry")}
    assert list(turns.values()) == sorted(turns.values()) and turns["sad"] < 0.75 * turns["neutral"], turns
    neutral, half = (np.array([p.rotation for p in poses(name)]) for name in ("neutral", "sad:0"))
    assert np.array_equal(neutral, half), "an emotion of no strength changes nothing"


@pytest.mark.parametrize(("emotion", "axis", "way"), [("happy", 1, 1), ("sad", 0, -1), ("surprised", 1, 1), ("angry", 0, -1)])
def test_the_drawn_face_shows_more_of_it_while_it_speaks(emotion: str, axis: int, way: int) -> None:
    worn = Mood().wear(amplitudes(sound(), frames()))
    shown = [int(np.argmax(worn.face)), frames() - 1]
    mood = {
        name: [
            measure(track_image(frame).landmarks).mood[0, axis]
            for frame in render_frames(PortraitRenderer(model()), (poses(name)[t] for t in shown), model().photo)
        ]
        for name in (emotion, "neutral")
    }
    loud, quiet = (way * (a - b) for a, b in zip(mood[emotion], mood["neutral"], strict=True))
    assert loud > 1.1 * quiet > 0, (loud, quiet)


def test_a_film_wears_it_too() -> None:
    speech = Speech(sound()[: 12 * FRAME], 16000)
    photo = np.ascontiguousarray(data.astronaut()[20:276, 100:356])
    plain, happy = (
        list(render_portrait(photo, speech, PortraitOptions(controls=Controls(emotion)))[1]) for emotion in ("neutral", "happy")
    )
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(plain, happy, strict=True)]
    assert apart[-1] > 1.1 * apart[0] > 0
