"""Speech to the lips of this avatar's person: the shared regression, adapted to the template."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Motion, Speech, Track
from deployments.errors import SpeechError
from deployments.face.pose import CanonicalFaces, canonical, parts_of
from deployments.media.sound import read_sound
from deployments.motion.lip_space import LipSpace

RATE = 16000


def track_coefficients(track: Track, stable: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lip coefficients [T, K] of a tracked clip; zero where the face is not usable."""
    out = np.zeros((len(track.usable), LipSpace.load().size), np.float32)
    if track.usable.any():
        out[track.usable] = lip_coefficients(canonical(track.landmarks, stable, np.flatnonzero(track.usable)))
    return out


def lip_coefficients(faces: CanonicalFaces) -> NDArray[np.float32]:
    """Lip coefficients [T, K] of faces, a block at a time: all points of a long clip are 110 MB."""
    space = LipSpace.load()
    return np.concatenate([space.encode(faces.points_of(part)) for part in parts_of(len(faces.rows))])


def template_sound(clip: Clip) -> NDArray[np.float32] | None:
    """The template's own speech, mono 16 kHz [N], sample 0 at the first frame; None without a sound track."""
    if not clip.audio:
        return None
    try:
        return read_sound(clip.path, RATE, origin=clip.pts[0] * clip.time_base)
    except SpeechError:
        return None


def speech_motion(speech: Speech, clip: Clip, track: Track, stable: NDArray[np.float32], options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip."""
    # these bring torch, which takes seconds to load; workers that only render never come here
    from deployments.motion.animate import MotionOptions, make_motion
    from deployments.motion.template import measure_template

    coefficients = track_coefficients(track, stable)
    template = measure_template(coefficients, track.usable, clip.times(), template_sound(clip))
    return make_motion(speech, clip.times(), template, MotionOptions(expression=float(options.get("expression", 1.0))))
