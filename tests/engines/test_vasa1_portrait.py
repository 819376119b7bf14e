"""A portrait moved by the transformer: every control acts on the rendered face, measured by tracking the frames again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.audio.tts import synthesize
from deployments.contracts import Motion, Speech
from deployments.engines.vasa1.config import FaceConfig
from deployments.engines.vasa1.face import lids_of, poses_of
from deployments.engines.vasa1.latents import DISTANCE, EYES, GAZE, LATENT, Face, measure
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion, render_portrait
from deployments.errors import OptionError
from deployments.face.pose import canonical, stable_mean
from deployments.face.track import track_image
from deployments.portrait.controls import Controls
from deployments.portrait.draw import STILL, PortraitRenderer, Pose, render_frames
from deployments.portrait.film import fit_picture
from deployments.portrait.model import PortraitModel
from deployments.portrait.move import generic_mouth

Floats = NDArray[np.float32]
SHOWN = slice(22, 44, 7)


@cache
def model() -> PortraitModel:
    return fit_picture(data.astronaut(), "largest")


@cache
def speech() -> Speech:
    return synthesize("We walked along the river.")


@cache
def motion(controls: Controls) -> tuple[Motion, Floats]:
    return face_motion(speech(), PortraitOptions(controls=controls))


@cache
def seen(controls: Controls) -> Face:
    """Latents of four rendered frames, tracked one by one, averaged."""
    poses = poses_of(model(), *motion(controls), controls)[SHOWN]
    faces = [
        measure(track_image(frame).landmarks) for frame in render_frames(PortraitRenderer(model()), iter(poses), model().photo)
    ]
    return Face(np.mean([f.latents[0] for f in faces], axis=0), np.mean([f.mood[0] for f in faces], axis=0))


def still(pose: Pose) -> NDArray[np.uint8]:
    """One frame."""
    return next(render_frames(PortraitRenderer(model()), iter([pose]), model().photo))


def darkened_below(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> list[float]:
    """For both eyes: how far what became darker lies below what became brighter, in eye widths."""
    points, found = track_image(before).landmarks[0, :, :2], []
    darker = before.mean(2) - after.mean(2)
    for outer, inner, *_ in EYES:
        middle, width = (points[outer] + points[inner]) / 2, float(np.linalg.norm(points[outer] - points[inner]))
        reach = np.array([0.5, 0.35]) * width
        (x0, y0), (x1, y1) = np.rint(middle - reach).astype(int), np.rint(middle + reach).astype(int)
        rows, change = np.arange(y0, y1), darker[y0:y1, x0:x1]
        dark, bright = np.clip(change, 0, None).sum(1), np.clip(-change, 0, None).sum(1)
        found.append(float((dark @ rows / dark.sum() - bright @ rows / bright.sum()) / width))
    return found


def test_eyes_look_aside_as_far_as_they_are_told() -> None:
    looks = [seen(Controls(gaze=(g, 0.0))).latents[GAZE] for g in (-0.2, 0.0, 0.2)]
    across = np.diff([look[0] for look in looks])
    assert (across > 0.01).all()
    assert looks[-1][0] - looks[0][0] > 0.5 * 0.4
    assert np.ptp([look[1] for look in looks]) < 0.2 * (looks[-1][0] - looks[0][0])


def test_eyes_look_up_and_down() -> None:
    rest = Pose(np.zeros((57, 3)), 0.0, STILL, np.zeros(3))
    up, ahead, down = (still(replace(rest, gaze=np.array([0.0, y]))) for y in (-0.15, 0.0, 0.15))
    assert max(darkened_below(ahead, up)) < -0.05
    assert min(darkened_below(ahead, down)) > 0.1
    tracked = [measure(track_image(frame).landmarks).latents[0, GAZE][1] for frame in (up, ahead, down)]
    assert tracked[0] < tracked[1] - 0.01 and tracked[1] < tracked[2]


def test_a_look_close_to_the_photos_own_keeps_its_eyes() -> None:
    rest = Pose(np.zeros((57, 3)), 0.0, STILL, np.zeros(3))
    ahead, nearly = (still(replace(rest, gaze=np.array([x, 0.0]))).astype(int) for x in (0.0, 0.001))
    assert np.abs(nearly - ahead).max() < 12


def test_a_head_farther_away_is_smaller_by_as_much() -> None:
    distances = np.array([0.85, 1.0, 1.15])
    sizes = [float(np.exp(seen(Controls(distance=d)).latents[DISTANCE])) for d in distances]
    np.testing.assert_allclose(np.array(sizes) * distances, sizes[1], rtol=0.03)


@pytest.mark.parametrize(
    ("emotion", "corners", "brows"), [("happy", 1, 1), ("sad", -1, 0), ("surprised", 0, 1), ("angry", -1, -1)]
)
def test_an_emotion_moves_mouth_corners_and_brows_the_more_the_stronger(emotion: str, corners: int, brows: int) -> None:
    moods = [seen(Controls(emotion)).mood for emotion in ("neutral", f"{emotion}:0.7", f"{emotion}:1.4")]
    for axis, way in enumerate((corners, brows)):
        if way:
            assert (np.diff([way * mood[axis] for mood in moods]) > 0.002).all(), (axis, moods)


def test_the_transformer_turns_the_head_with_the_gaze() -> None:
    yaw = [motion(Controls(gaze=(g, 0.0)))[1][:, 8].mean() for g in (-0.1, 0.0, 0.1)]
    assert yaw[0] < yaw[1] - 0.2 and yaw[1] < yaw[2] - 0.2


def test_the_photo_is_where_a_video_begins_and_its_face_lives_afterwards() -> None:
    poses = poses_of(model(), *motion(Controls()), Controls())
    np.testing.assert_allclose(poses[0].rotation, np.eye(3), atol=1e-9)
    assert poses[0].size == 1.0 and not poses[0].shift.any() and not poses[0].gaze.any()
    for name in ("rotation", "shift", "gaze", "lids"):
        assert np.std([getattr(pose, name) for pose in poses[10:]], axis=0).max() > 1e-4, name
    turns = np.array([pose.rotation for pose in poses])
    assert np.abs(np.diff(turns, axis=0)).max() < 0.02


@pytest.mark.parametrize("latent", [8, 9, 10])
def test_the_head_turns_as_the_transformer_says(latent: int) -> None:
    seen_angles = []
    for amount in (-2.0, 2.0):
        latents = np.zeros((30, LATENT), np.float32)
        latents[:, latent] = amount
        resting = Motion(np.repeat(generic_mouth().rest[None], 30, 0), np.ones(30, np.float32))
        frame = still(poses_of(model(), resting, latents, Controls())[-1])
        seen_angles.append(canonical(track_image(frame).landmarks, stable_mean(track_image(model().photo).landmarks)).angles()[0])
    turned = seen_angles[1] - seen_angles[0]
    assert turned[latent - 8] > 0.03
    assert np.abs(turned).argmax() == latent - 8


def test_lids_that_fall_low_blink_and_rest_before_the_next() -> None:
    raw = np.zeros(100)
    raw[[10, 12, 60]] = -2.0
    lids, last = lids_of(raw, np.zeros(100), FaceConfig())
    assert last == 60
    assert lids.max() == 1.0
    assert np.flatnonzero(np.diff((lids > 0.9).astype(int)) == 1).tolist() == [11, 61]


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ({"emotion": "bored"}, "neutral, happy"),
        ({"emotion": "happy:x"}, "strength"),
        ({"gaze": (0.5, 0.0)}, "0.3"),
        ({"gaze": (0.0, float("nan"))}, "0.3"),
        ({"distance": 0.0}, "0.8 to 1.25"),
        ({"distance": float("nan")}, "0.8 to 1.25"),
    ],
)
def test_controls_that_cannot_be_are_refused(controls: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        Controls(**controls)


def test_a_picture_becomes_frames_of_its_own_size() -> None:
    fps, frames = render_portrait(data.astronaut(), Speech(np.zeros(3200, np.float32), 16000))
    shapes = [frame.shape for frame in frames]
    assert fps == 25 and shapes == [(512, 512, 3)] * 5
