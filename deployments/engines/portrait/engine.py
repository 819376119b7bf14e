"""The portrait engine: one call for a picture, and the four verbs for a clip of a still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.portrait.blink import blink_curve
from deployments.engines.portrait.config import PortraitOptions
from deployments.engines.portrait.fit import keep_picture
from deployments.engines.portrait.head_motion import head_moves
from deployments.engines.portrait.motion import loudness, portrait_motion
from deployments.engines.portrait.render import render_patches
from deployments.portrait.draw import STILL, Pose
from deployments.portrait.eyes import eyes_open
from deployments.portrait.film import film
from deployments.portrait.model import PortraitModel
from deployments.portrait.move import FPS, displacements, frame_count


def render_portrait(
    image_rgb: NDArray[np.uint8], speech: Speech, options: PortraitOptions | None = None, progress: Progress = no_progress
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """Make a picture talk.

    Parameters
    ----------
    image_rgb : uint8 [H, W, 3]; odd sides lose their last row or column.
    options : what `PortraitOptions` says; None: the natural amounts.

    Returns
    -------
    Frames per second (25) and the frames, uint8 [H, W, 3], as many as cover the speech.

    Raises
    ------
    MediaError : the picture is no RGB picture or has an unworkable size.
    NoFaceError : no usable face in it.
    SpeechError : no samples, or NaN among them.
    """
    options = options or PortraitOptions()
    frames = frame_count(speech)

    def poses_of(model: PortraitModel) -> list[Pose]:
        blink = options.blink if eyes_open(model.head) else 0.0
        moves = displacements(portrait_motion(speech))
        return pose_sequence(moves, loudness(speech, frames), replace(options, blink=blink))

    return film(image_rgb, options.face, frames, poses_of, progress)


def pose_sequence(moves: NDArray[np.float64], level: NDArray[np.float64], options: PortraitOptions) -> list[Pose]:
    """Controls of all frames, from lip moves [T, 57, 3] and loudness [T]."""
    frames, fps, asked = len(moves), float(FPS), options.controls
    rotations, shifts = head_moves(frames, fps, options.seed, options.head_motion, level)
    lids = blink_curve(frames, fps, options.seed, options.blink)
    still = Pose(moves[0], 0.0, STILL, np.zeros(3), np.array(asked.gaze), asked.expression, 1 / asked.distance)
    moved = options.mouth * moves
    return [
        replace(still, displacement=moved[t], lids=float(lids[t]), rotation=rotations[t], shift=shifts[t]) for t in range(frames)
    ]


class Portrait:
    """The four verbs for a clip that shows a still: its first usable frame becomes the portrait.

    The head and the lids stay as they are, because a patch must not depend on where a chunk begins; `render_portrait`
    moves them.
    """

    name = "portrait"

    def limits(self) -> EngineLimits:
        """No context: every frame depends on its own motion only."""
        return EngineLimits(context_frames=0, sequential=False, options=("mouth",))

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Keep the first usable frame and its landmarks in `out`. Raises NoFaceError."""
        digest = keep_picture(clip, track, out)
        progress("fit", 1, 1)
        return Avatar(self.name, out, digest)

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Mouth motion at the clip's own times; silence follows where the clip is longer than the speech."""
        from deployments.engines.portrait.config import options_from
        from deployments.motion.animate import MotionOptions, make_motion
        from deployments.portrait.move import generic_mouth

        strength = options_from(options).mouth
        frame_count(speech)
        mouth = generic_mouth()
        motion = make_motion(speech, clip.times(), mouth, MotionOptions())
        scaled = mouth.rest + strength * (motion.coefficients - mouth.rest)
        return Motion(scaled.astype(np.float32), motion.weight, motion.info)

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """One patch for every picture of the span; None where nothing is to be replaced."""
        return render_patches(avatar, motion, pictures, span)
