"""What a talking portrait must show: the right length, a still closed mouth in silence, lips that follow, a still background."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.contracts import Motion, Speech
from deployments.engines.portrait.config import PortraitOptions, options_from
from deployments.engines.portrait.engine import pose_sequence, render_portrait
from deployments.errors import MediaError, NoFaceError, OptionError, SpeechError
from deployments.face.landmarks import LEFT_EYE_OUTER, LOWER_INNER_LIP, RIGHT_EYE_OUTER, UPPER_INNER_LIP
from deployments.face.track import track_image
from deployments.motion.lip_space import LIP_JAW
from deployments.portrait.controls import Controls
from deployments.portrait.draw import PortraitRenderer, render_frames
from deployments.portrait.model import PortraitModel, check_picture, fit_portrait
from deployments.portrait.move import REST, displacements, frame_count

RATE = 16000


@cache
def photo() -> NDArray[np.uint8]:
    """The public-domain portrait that scikit-image ships."""
    from skimage.data import astronaut

    return np.asarray(astronaut())


@cache
def model() -> PortraitModel:
    """That portrait, fitted."""
    return fit_portrait(photo(), track_image(photo()), LIP_JAW)


def opening_motion(opening: NDArray[np.float64]) -> Motion:
    """Motion whose first coefficient goes `opening` [T] above rest."""
    coefficients = np.tile(np.array(REST, np.float32), (len(opening), 1))
    coefficients[:, 0] += opening
    return Motion(coefficients, np.ones(len(opening), np.float32))


def frames_of(opening: NDArray[np.float64], options: PortraitOptions) -> list[NDArray[np.uint8]]:
    """Frames for an opening curve [T]."""
    poses = pose_sequence(displacements(opening_motion(opening)), np.zeros(len(opening)), options)
    return list(render_frames(PortraitRenderer(model()), iter(poses), photo()))


def aperture(frame: NDArray[np.uint8]) -> float:
    """Inner-lip gap in eye distances, by tracking the frame again."""
    points = track_image(frame).landmarks[0, :, :2]
    eyes = np.linalg.norm(points[LEFT_EYE_OUTER] - points[RIGHT_EYE_OUTER])
    return float(np.linalg.norm(points[LOWER_INNER_LIP] - points[UPPER_INNER_LIP]) / eyes)


def spoken(seconds: float) -> Speech:
    """A voice-like buzz with silence around it."""
    t = np.arange(int(seconds * RATE)) / RATE
    buzz = 0.3 * np.sign(np.sin(2 * np.pi * 120 * t)) * (np.sin(2 * np.pi * 2 * t) > 0)
    return Speech(buzz.astype(np.float32), RATE)


def test_retracked_lips_follow_the_commanded_opening() -> None:
    opening = 0.25 * (1 - np.cos(np.arange(16) * 2 * np.pi / 8))
    frames = frames_of(opening, PortraitOptions())
    seen = [aperture(frame) for frame in frames]
    assert np.corrcoef(opening, seen)[0, 1] > 0.8
    assert np.ptp(seen) > 0.06


def test_a_smile_closes_and_stays_closed_in_silence() -> None:
    frames = frames_of(np.zeros(3), PortraitOptions(head_motion=0.0, blink=0.0))
    assert all(np.array_equal(frame, frames[0]) for frame in frames)
    assert aperture(frames[0]) < 0.4 * aperture(photo())


def test_pressing_lips_do_not_cross() -> None:
    closed, pressed = frames_of(np.array([0.0, -0.3]), PortraitOptions(head_motion=0.0, blink=0.0))
    assert aperture(pressed) < aperture(closed) + 0.02


def test_background_is_the_photo_to_the_bit() -> None:
    frames = frames_of(np.full(60, 0.4), PortraitOptions(head_motion=1.5))
    changed = np.any([np.any(frame != photo(), axis=2) for frame in frames], axis=0)
    assert changed[60:200, 170:280].mean() > 0.5
    assert not changed[330:].any()
    assert not changed[:, :60].any() and not changed[:, 400:].any()


def test_head_and_lids_rest_at_both_ends_and_move_between() -> None:
    poses = pose_sequence(np.zeros((250, 57, 3)), np.zeros(250), PortraitOptions())
    for end in (poses[0], poses[-1]):
        assert np.allclose(end.rotation, np.eye(3)) and end.lids == 0.0 and np.allclose(end.shift, 0)
    turns = [np.degrees(np.arccos(np.clip((np.trace(p.rotation) - 1) / 2, -1, 1))) for p in poses]
    assert 0.5 < max(turns) < 6
    assert max(p.lids for p in poses) == 1.0


def test_blinks_shut_both_eyes() -> None:
    renderer = PortraitRenderer(model())
    pose = pose_sequence(np.zeros((1, 57, 3)), np.zeros(1), PortraitOptions(head_motion=0.0, blink=0.0))[0]
    shut = type(pose)(pose.displacement, 1.0, pose.rotation, pose.shift)
    before, after = (next(render_frames(renderer, iter([p]), photo())) for p in (pose, shut))
    for eye in (468, 473):
        x, y = np.round(model().landmarks[eye, :2]).astype(int)
        assert after[y, x].mean() > before[y, x].mean() + 40


def test_same_seed_same_frames_and_another_seed_moves_otherwise() -> None:
    opening = np.full(40, 0.2)
    once, again = frames_of(opening, PortraitOptions(seed=3)), frames_of(opening, PortraitOptions(seed=3))
    other = frames_of(opening, PortraitOptions(seed=4))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize(("samples", "rate", "frames"), [(16000, 16000, 25), (16001, 16000, 26), (1, 48000, 1)])
def test_frames_cover_the_speech(samples: int, rate: int, frames: int) -> None:
    assert frame_count(Speech(np.zeros(samples, np.float32), rate)) == frames


def test_render_portrait_gives_a_frame_for_every_40_ms_of_an_odd_picture() -> None:
    told: list[tuple[str, int, int]] = []
    fps, frames = render_portrait(photo()[:511, :509], spoken(1.5), PortraitOptions(), lambda *step: told.append(step))
    shapes = [frame.shape for frame in frames]
    assert fps == 25 and shapes == [(510, 508, 3)] * 38
    assert told[-1] == ("render", 38, 38)


def test_what_cannot_be_a_portrait_is_refused() -> None:
    with pytest.raises(NoFaceError):
        render_portrait(np.full((256, 256, 3), 128, np.uint8), spoken(0.2))
    with pytest.raises(MediaError, match="resize"):
        render_portrait(np.zeros((8, 8, 3), np.uint8), spoken(0.2))
    with pytest.raises(MediaError, match="uint8 RGB"):
        check_picture(np.zeros((100, 100, 4), np.uint8))
    with pytest.raises(SpeechError):
        render_portrait(photo(), Speech(np.zeros(0, np.float32), RATE))
    with pytest.raises(SpeechError):
        render_portrait(photo(), Speech(np.full(100, np.nan, np.float32), RATE))


def test_options_teach() -> None:
    assert options_from({"seed": "7", "blink": 0}) == PortraitOptions(seed=7, blink=0.0)
    with pytest.raises(OptionError, match="options are"):
        options_from({"smile": 1})
    with pytest.raises(OptionError, match=r"0\.\.2"):
        options_from({"head_motion": 5})


def test_the_rules_engine_is_told_gaze_emotion_and_distance_too() -> None:
    asked = Controls("surprised", (0.2, 0.0), 1.2)
    options = PortraitOptions(head_motion=0.0, blink=0.0)
    plain = frames_of(np.zeros(1), options)[0]
    told = frames_of(np.zeros(1), replace(options, controls=asked))[0]
    before, after = (track_image(frame).landmarks[0, :, :2] for frame in (plain, told))
    eyes = [float(np.linalg.norm(p[LEFT_EYE_OUTER] - p[RIGHT_EYE_OUTER])) for p in (before, after)]
    assert eyes[1] == pytest.approx(eyes[0] / 1.2, rel=0.04)
    iris = [np.mean([(p[k] - (p[a] + p[b]) / 2)[0] for k, a, b in ((468, 33, 133), (473, 263, 362))]) for p in (before, after)]
    assert iris[1] / eyes[1] > iris[0] / eyes[0] + 0.02
    brows = [np.mean([(p[a] + p[b])[1] / 2 - p[k][1] for k, a, b in ((105, 33, 133), (334, 263, 362))]) for p in (before, after)]
    assert brows[1] / eyes[1] > brows[0] / eyes[0] + 0.01
