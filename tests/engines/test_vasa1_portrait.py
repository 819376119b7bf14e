"""A portrait moved by the transformer: every control acts on the rendered face, measured by tracking the frames again."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.audio.tts import synthesize
from deployments.contracts import Motion, Speech
from deployments.engines.vasa1.face import poses_of
from deployments.engines.vasa1.latents import GAZE, Face, measure
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.face.track import track_image
from deployments.portrait.controls import Controls
from deployments.portrait.draw import PortraitRenderer, render_frames
from deployments.portrait.film import fit_picture
from deployments.portrait.model import PortraitModel

Floats = NDArray[np.float32]
SHOWN = slice(20, 44, 6)


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


@pytest.mark.parametrize("axis", [0])
def test_eyes_look_where_they_are_told(axis: int) -> None:
    asked = (-0.2, 0.0, 0.2) if axis == 0 else (-0.1, 0.0, 0.15)
    looks = [seen(Controls(gaze=(g, 0.0) if axis == 0 else (0.0, g))).latents[GAZE] for g in asked]
    along, across = [look[axis] for look in looks], [look[1 - axis] for look in looks]
    assert along[0] < along[1] < along[2]
    assert along[2] - along[0] > 0.2 * (asked[2] - asked[0])
    assert np.ptp(across) < 0.5 * (along[2] - along[0])
