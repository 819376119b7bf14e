"""From a picture and the poses of its face to frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Progress
from deployments.portrait.draw import PortraitRenderer, Pose, render_frames
from deployments.portrait.model import PortraitModel, check_picture, fit_portrait
from deployments.portrait.move import FPS


def fit_picture(image_rgb: NDArray[np.uint8], face: str) -> PortraitModel:
    """The model of a picture's face. Raises MediaError, NoFaceError."""
    from deployments.face.track import track_image
    from deployments.motion.lip_space import LIP_JAW

    photo = check_picture(image_rgb)
    return fit_portrait(photo, track_image(photo, face), LIP_JAW)


def film(
    image_rgb: NDArray[np.uint8],
    face: str,
    frames: int,
    poses_of: Callable[[PortraitModel], Iterable[Pose]],
    progress: Progress,
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """Frames per second, and the frames of the poses that `poses_of` gives for the picture's model."""
    model = fit_picture(image_rgb, face)
    progress("fit", 1, 1)
    drawn = render_frames(PortraitRenderer(model), iter(poses_of(model)), model.photo)
    return FPS, reported(drawn, frames, progress)


def reported(frames: Iterator[NDArray[np.uint8]], total: int, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """The same frames, with progress told after each."""
    for done, frame in enumerate(frames, start=1):
        yield frame
        progress("render", done, total)
