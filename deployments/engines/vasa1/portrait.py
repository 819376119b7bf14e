"""A still picture talks: head, lids, brows and gaze of the transformer, with emotion, gaze and distance as controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion, Progress, Speech, no_progress
from deployments.engines.vasa1.config import FaceConfig, MotionConfig, portrait_profile
from deployments.engines.vasa1.face import asked_latents, poses_of
from deployments.engines.vasa1.latents import LIPS
from deployments.engines.vasa1.manner import Manner
from deployments.engines.vasa1.mood import Mood, amplitudes
from deployments.engines.vasa1.motion import Told, load_transformer, mixed_lips, placed_lips, smooth_interpolation
from deployments.errors import OptionError
from deployments.portrait.controls import Controls

if TYPE_CHECKING:
    from deployments.engines.vasa1.sampling import Guidance
    from deployments.portrait.draw import Pose
    from deployments.portrait.model import PortraitModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PortraitOptions:
    """Options of `render_portrait`; every strength is a factor on the natural amount. Raises OptionError."""

    seed: int = 0
    head_motion: float = 1.0  # 0 keeps the head still
    mouth: float = 1.0  # mouth opening
    face: str = "largest"
    controls: Controls = field(default_factory=Controls)
    manner: Manner = field(default_factory=Manner)  # whose way of moving the head: see `load_manner`

    def __post_init__(self) -> None:
        for name in ("head_motion", "mouth"):
            value = getattr(self, name)
            if not 0.0 <= value <= 2.0:
                raise OptionError(f"{name} must lie in 0..2, got {value}; 1 is the natural amount")


def render_portrait(
    image_rgb: NDArray[np.uint8], speech: Speech, options: PortraitOptions | None = None, progress: Progress = no_progress
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """Make a picture talk: frames per second (25) and the frames, as many as cover the speech.

    Raises MediaError, NoFaceError or SpeechError, as the engine `portrait` does; the liveportrait profile WeightsError too.
    """
    from deployments.audio.features import speech_at_16k
    from deployments.portrait.film import film
    from deployments.portrait.move import frame_count

    options = options or PortraitOptions()
    if portrait_profile() == "liveportrait":
        from deployments.engines.vasa1.liveportrait import portrait as published

        return published.render_portrait(image_rgb, speech, options, progress)

    def poses(model: PortraitModel) -> list[Pose]:
        motion, latents = face_motion(speech, options)
        worn = Mood().wear(amplitudes(speech_at_16k(speech), len(latents)))
        return poses_of(model, motion, latents, options.controls, options.head_motion, worn=worn)

    return film(image_rgb, options.face, frame_count(speech), poses, progress)


def face_motion(speech: Speech, options: PortraitOptions) -> tuple[Motion, Floats]:
    """Lips of the generic mouth, and latents [T, 18] in the transformer's spreads, for every frame of the speech."""
    from deployments.audio.features import speech_at_16k
    from deployments.engines.vasa1.sampling import sample
    from deployments.engines.vasa1.speech_input import frame_times, hear
    from deployments.motion.head import predict
    from deployments.portrait.move import FPS, frame_count

    times = np.arange(frame_count(speech)) / float(FPS)
    samples = speech_at_16k(speech)
    prediction = predict(samples)
    steps = frame_times(len(samples) / 16000)
    heard = hear(prediction, steps)
    network = load_transformer()
    told = {name: np.repeat(row[None], len(heard), 0) for name, row in asked_latents(options.controls).items()}
    made = sample(options.manner.network(network), heard, told, guidance_of_face(options.seed)) * options.manner.scale
    return lips_of(made, heard, speech, prediction, times, options.mouth), held(made, len(times))


def held(made: Floats, frames: int) -> Floats:
    """Latents of the first frames; the last one is held where a frame begins after the sound ended."""
    return made[np.minimum(np.arange(frames), len(made) - 1)]


def lips_of(made: Floats, heard: Floats, speech: Speech, prediction: Any, times: NDArray[np.float64], mouth: float) -> Motion:
    """The generic mouth's lips: closed at p, b and m, at rest in pauses."""
    from deployments.engines.vasa1.speech_input import frame_times
    from deployments.motion.animate import close_lips, closure_weight, pause_weight
    from deployments.portrait.move import generic_mouth

    seconds = speech.seconds
    template = generic_mouth()
    lips = mixed_lips(made[:, LIPS] * load_transformer().lip_gain.numpy(), Told.by(heard, template))
    at_frames = smooth_interpolation(times, frame_times(seconds)[: len(lips)], placed_lips(lips, template, 1.0))
    quiet = pause_weight(prediction, times, seconds)
    coefficients = at_frames + quiet[:, None] * (template.rest - at_frames)
    coefficients = close_lips(coefficients, closure_weight(prediction, speech, times), template)
    scaled = template.rest + mouth * (coefficients - template.rest)
    return Motion(scaled.astype(np.float32), np.ones(len(times), np.float32), {"source": "diffusion transformer"})


def guidance_of_face(seed: int, steps: int = MotionConfig().steps) -> Guidance:
    """Sampling settings of a portrait."""
    from deployments.engines.vasa1.sampling import Guidance

    lips, face = MotionConfig(), FaceConfig()
    return Guidance(lips.guidance, face.guidance, steps, lips.temperature, seed, face=face.temperature, lids=face.lid_temperature)
