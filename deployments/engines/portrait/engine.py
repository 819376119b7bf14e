"""The portrait engine: one call for a picture, and the four verbs for a clip of a still."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.portrait.blink import blink_curve, eyes_open
from deployments.engines.portrait.config import FPS, PortraitOptions
from deployments.engines.portrait.fit import PortraitModel, check_picture, fit_portrait
from deployments.engines.portrait.head_motion import head_moves
from deployments.engines.portrait.motion import displacements, frame_count, loudness, portrait_motion
from deployments.engines.portrait.render import PortraitRenderer, Pose, render_frames
from deployments.errors import NoFaceError

STILL = np.eye(3)


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
    from deployments.face.track import track_image
    from deployments.motion.lip_space import LIP_JAW

    options = options or PortraitOptions()
    photo = check_picture(image_rgb)
    frames = frame_count(speech)
    model = fit_portrait(photo, track_image(photo, options.face), LIP_JAW)
    progress("fit", 1, 1)
    if not eyes_open(model.head):
        options = replace(options, blink=0.0)
    poses = pose_sequence(displacements(portrait_motion(speech)), loudness(speech, frames), options)
    return FPS, reported(render_frames(PortraitRenderer(model), iter(poses), photo), frames, progress)


def pose_sequence(moves: NDArray[np.float64], level: NDArray[np.float64], options: PortraitOptions) -> list[Pose]:
    """Controls of all frames, from lip moves [T, 57, 3] and loudness [T]."""
    frames, fps = len(moves), float(FPS)
    rotations, shifts = head_moves(frames, fps, options.seed, options.head_motion, level)
    lids = blink_curve(frames, fps, options.seed, options.blink)
    return [Pose(options.mouth * moves[t], float(lids[t]), rotations[t], shifts[t]) for t in range(frames)]


def reported(frames: Iterator[NDArray[np.uint8]], total: int, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """The same frames, with progress told after each."""
    for done, frame in enumerate(frames, start=1):
        yield frame
        progress("render", done, total)


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
        from safetensors.numpy import save_file

        from deployments.media.decode import decode

        usable = np.flatnonzero(track.usable)
        if len(usable) == 0:
            raise NoFaceError(f"{clip.path.name}: a portrait needs one frame with a face, got none; use another picture")
        frame = int(usable[0])
        picture = next(iter(decode(clip, Span(frame, frame + 1))))
        tensors = {"photo": np.ascontiguousarray(picture.rgb()), "landmarks": np.ascontiguousarray(track.landmarks[frame])}
        out.mkdir(parents=True, exist_ok=True)
        save_file(tensors, out / "portrait.safetensors")
        progress("fit", 1, 1)
        digest = hashlib.sha256(tensors["photo"].tobytes() + tensors["landmarks"].tobytes()).hexdigest()
        return Avatar(self.name, out, digest)

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Mouth motion at the clip's own times; silence follows where the clip is longer than the speech."""
        from deployments.engines.portrait.config import options_from
        from deployments.engines.portrait.motion import generic_mouth
        from deployments.motion.animate import MotionOptions, make_motion

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
        renderer = PortraitRenderer(load_model(avatar))
        window = renderer.window
        alpha = np.ones((window.height, window.width), np.float32)
        moves = displacements(motion)
        for t, _ in zip(range(span.start, span.stop), pictures, strict=True):
            if motion.weight[t] <= 0:
                yield None
                continue
            rgb = renderer.frame(Pose(moves[t], 0.0, STILL, np.zeros(3)))
            yield Patch(window.x, window.y, rgb, alpha)


def load_model(avatar: Avatar) -> PortraitModel:
    """The model of a fitted avatar; computed again, which is faster than reading it."""
    from deployments.motion.lip_space import LIP_JAW
    from deployments.weights import load_tensors

    tensors = load_tensors(avatar.path / "portrait.safetensors")
    landmarks = tensors["landmarks"][None].astype(np.float32)
    track = Track(landmarks, np.ones(1, np.float32), np.ones(1, bool), np.zeros(1, np.int32))
    return fit_portrait(tensors["photo"].astype(np.uint8), track, LIP_JAW)
