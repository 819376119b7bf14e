"""The profile's door: a photo and speech to frames, with the weights of the operator's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Progress, Speech, no_progress
from deployments.engines.vasa1.liveportrait.config import SamplingConfig
from deployments.errors import OptionError, WeightsError
from deployments.settings import liveportrait_folder

if TYPE_CHECKING:
    from deployments.engines.vasa1.liveportrait.keypoints import Face
    from deployments.engines.vasa1.liveportrait.load import PortraitNets, Template
    from deployments.engines.vasa1.liveportrait.transformer import MotionNet
    from deployments.engines.vasa1.portrait import PortraitOptions
    from deployments.portrait.controls import Controls


def weights_folder() -> Path:
    """The folder that the operator named. Raises WeightsError if there is none, or if a file is not in it."""
    from deployments.engines.vasa1.liveportrait.load import check_files

    folder = liveportrait_folder()
    if folder is None or not folder.is_dir():
        raise WeightsError(
            f"expected LIPSYNC_LIVEPORTRAIT to name a folder of converted weights, got {folder}; "
            "see deployments/engines/vasa1/liveportrait/README.md, or unset it for the compact profile"
        )
    check_files(folder)
    return folder


def render_portrait(
    image_rgb: NDArray[np.uint8], speech: Speech, options: PortraitOptions, progress: Progress = no_progress
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """Make a picture talk: frames per second (25) and the frames, as many as cover the speech.

    Raises MediaError, NoFaceError or SpeechError as the compact profile does, OptionError for controls that these
    networks do not know, WeightsError for a folder that does not hold the published weights.
    """
    from deployments.engines.vasa1.liveportrait.load import load_motion_net, load_portrait_nets, load_template

    check_controls(options.controls)
    folder = weights_folder()
    speaker = Speaker(load_motion_net(folder), load_template(folder))
    return film(image_rgb, speech, options, load_portrait_nets(folder), speaker, progress)


@dataclass(frozen=True)
class Speaker:
    """What turns speech into motion."""

    net: MotionNet
    template: Template
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def motion(self, speech: Speech, frames: int, seed: int) -> Face:
        """Motion of so many frames of a speech. Raises SpeechError."""
        from deployments.audio.features import speech_at_16k
        from deployments.engines.vasa1.liveportrait.motion import motion_of

        return motion_of(self.net, self.template, speech_at_16k(speech), frames, self.sampling, seed)


def film(
    image_rgb: NDArray[np.uint8],
    speech: Speech,
    options: PortraitOptions,
    nets: PortraitNets,
    speaker: Speaker,
    progress: Progress = no_progress,
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """`render_portrait` with networks that are already here."""
    from deployments.engines.vasa1.liveportrait.render import Portrait
    from deployments.face.track import track_image
    from deployments.portrait.film import reported
    from deployments.portrait.model import check_picture
    from deployments.portrait.move import FPS, frame_count

    total, photo = frame_count(speech), check_picture(image_rgb)
    portrait = Portrait(nets, photo, track_image(photo, options.face).landmarks[0])
    progress("fit", 1, 1)
    motion = speaker.motion(speech, total, options.seed)
    frames = portrait.frames(motion, options.head_motion, options.mouth, 1 / options.controls.distance)
    return FPS, reported(frames, total, progress)


def check_controls(controls: Controls) -> None:
    """Raises OptionError for what the published networks cannot be told."""
    if controls.emotion.partition(":")[0] != "neutral" or tuple(controls.gaze) != (0.0, 0.0):
        raise OptionError(
            f"expected no emotion and no gaze with vasa1's liveportrait profile, got {controls.emotion!r} and {controls.gaze}: "
            "its networks were not trained on them; leave them out, or unset LIPSYNC_LIVEPORTRAIT for the compact profile"
        )
