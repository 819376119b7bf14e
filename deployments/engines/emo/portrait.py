"""A still picture talks, generated whole by the hallo2 profile: for operators who bring its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Progress, Speech, no_progress
from deployments.engines.emo.hallo2.config import ProfileConfig, SampleConfig
from deployments.portrait.controls import Controls

if TYPE_CHECKING:
    import torch

    from deployments.engines.emo.hallo2.face import Square

Picture = NDArray[np.uint8]
FOLDER = "hallo2"  # in the folder of the weights
RIM = 0.06  # of the square's side: over it the generated part fades to the photo


@dataclass(frozen=True)
class PortraitOptions:
    """Options of `render_portrait`. Emotion, gaze and distance are drawn into the photo, which the networks then read."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    face: str = "largest"
    controls: Controls = field(default_factory=Controls)


def render_portrait(
    image_rgb: Picture,
    speech: Speech,
    options: PortraitOptions | None = None,
    progress: Progress = no_progress,
    folder: Path | None = None,
    profile: ProfileConfig | None = None,
) -> tuple[Fraction, Iterator[Picture]]:
    """Make a picture talk: frames per second (25) and the frames, as many as cover the speech.

    `folder` holds the profile's files; None: `hallo2` in the folder of the weights. Raises WeightsError where they are
    not there, and MediaError, NoFaceError or SpeechError.
    """
    from deployments.audio.features import speech_at_16k
    from deployments.engines.emo.hallo2.face import sit, square_of
    from deployments.engines.emo.hallo2.pipeline import Performer
    from deployments.engines.emo.hallo2.speech import FPS, hear
    from deployments.engines.emo.hallo2.weights import check_files, load_parts
    from deployments.face.track import track_image
    from deployments.portrait.move import frame_count
    from deployments.weights.fetch import weights_folder

    options, profile = options or PortraitOptions(), profile or ProfileConfig()
    frame_count(speech)
    folder = folder or weights_folder() / FOLDER
    check_files(folder)
    photo = posed(image_rgb, options)
    points = track_image(photo, options.face).landmarks[0]
    square = square_of(points, photo.shape[:2])
    nobody = np.zeros(profile.net.face, np.float32)  # as the public pipeline where its detector finds no face
    sitter = sit(photo, points, square, options.sample.side, nobody)
    parts = load_parts(folder, profile)
    progress("fit", 1, 1)
    heard, wanted = hear(parts.speech, speech_at_16k(speech), options.sample.window)
    made = Performer(parts, sitter, options.sample).frames(heard, wanted, progress)
    return Fraction(FPS), pasted(photo, square, made)


def posed(image_rgb: Picture, options: PortraitOptions) -> Picture:
    """The photo with even sides, and with the emotion, gaze and distance that are asked for."""
    from deployments.portrait.draw import STILL, PortraitRenderer, Pose, render_frames
    from deployments.portrait.film import fit_picture
    from deployments.portrait.model import check_picture

    asked = options.controls
    if asked == Controls():
        return check_picture(image_rgb)
    model = fit_picture(image_rgb, options.face)
    still = np.zeros((len(model.moved), 3))
    pose = Pose(still, 0.0, STILL, np.zeros(3), np.array(asked.gaze), asked.expression, 1 / asked.distance)
    return next(render_frames(PortraitRenderer(model), iter([pose]), model.photo))


def pasted(photo: Picture, square: Square, pictures: Iterator[torch.Tensor]) -> Iterator[Picture]:
    """Whole frames of generated squares [3, S, S], 0..1."""
    x, y, side = square.x, square.y, square.side
    share = rim_share(photo.shape[:2], square)[..., None]
    under = photo[y : y + side, x : x + side].astype(np.float32)
    for picture in pictures:
        generated = picture.permute(1, 2, 0).float().cpu().numpy() * 255
        scaled = cv2.resize(generated, (side, side), interpolation=cv2.INTER_AREA if side < len(generated) else cv2.INTER_CUBIC)
        out = photo.copy()
        out[y : y + side, x : x + side] = np.clip(np.rint(under + share * (scaled - under)), 0, 255)
        yield out


def rim_share(size: tuple[int, ...], square: Square) -> NDArray[np.float32]:
    """Share [S, S] of the generated part: 1 inside, 0 at the square's sides, except where the photo ends there."""
    place = np.arange(square.side) + 0.5
    width = max(1.0, RIM * square.side)
    shares = []
    for first, length in ((square.y, size[0]), (square.x, size[1])):
        before = place if first > 0 else np.full(square.side, width)
        after = place[::-1] if first + square.side < length else np.full(square.side, width)
        shares.append(np.clip(np.minimum(before, after) / width, 0, 1))
    ramp = np.minimum.outer(*shares)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)
