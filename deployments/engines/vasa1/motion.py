"""Speech to the lips of this avatar's person, by the diffusion transformer.

Only what speech moves is taken from it where the template is a video: head, gaze, lids and brows stay as they were filmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import LIP_COEFFICIENTS, Avatar, Clip, Motion, Speech, Track
from deployments.engines.vasa1.config import MotionConfig
from deployments.errors import OptionError
from deployments.motion.dubbing import template_sound, track_coefficients
from deployments.retrieval.bank import load_bank

Floats = NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "data" / "motion.safetensors"
AMPLITUDE = 0.9  # of the template's own movement, as everywhere


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip. Raises OptionError, SpeechError."""
    # these bring torch, which takes seconds to load; workers that only render never come here
    from deployments.motion.template import measure_template

    coefficients = track_coefficients(track, load_bank(avatar.path).stable)
    template = measure_template(coefficients, track.usable, clip.times(), template_sound(clip))
    return generate(speech, clip.times(), template, guidance_of(options), float(options.get("expression", 1.0)))


def generate(speech: Speech, times: NDArray[np.float64], template: Any, guidance: Any, expression: float) -> Motion:
    """Lips of a template's person at frame times [T] in seconds, speech starting at 0; resting before, after, in pauses."""
    from deployments.audio.features import speech_at_16k
    from deployments.engines.vasa1.speech_input import frame_times, hear
    from deployments.motion.animate import MotionOptions, close_lips, closure_weight, pause_weight
    from deployments.motion.head import predict

    options = MotionOptions(expression=expression)
    samples = speech_at_16k(speech)
    prediction = predict(samples)
    steps = frame_times(len(samples) / 16000)
    heard = hear(prediction, steps, template.residual)
    lips = mixed_lips(sample_lips(heard, guidance), Told.by(heard, template))
    times = np.asarray(times, np.float64)
    at_frames = smooth_interpolation(times, steps, placed_lips(lips, template, options.expression))
    quiet = pause_weight(prediction, times, len(samples) / 16000)
    coefficients = at_frames + quiet[:, None] * (template.rest - at_frames)
    if options.expression > 0:
        coefficients = close_lips(coefficients, closure_weight(prediction, speech, times), template)
    info = {
        "source": "diffusion transformer over face motion, opened by the shared regression"
        + (" with the template's own correction" if template.residual else ""),
        "template_offset_ms": round(template.offset.seconds * 1000),
        "template_correlation": template.offset.correlation,
        "expression": options.expression,
    }
    return Motion(coefficients.astype(np.float32), np.ones(len(times), np.float32), info)


@dataclass(frozen=True)
class Told:
    """What the shared regression says of the lips, in a person's own spread."""

    lips: Floats  # [T, 8]
    opening: Floats  # [T] along `way`
    way: Floats  # [8] how the opening of this person's mouth changes with each of the eight

    @staticmethod
    def by(heard: Floats, template: Any) -> Told:
        """Of features [T, 442]: the opening is the mean of two answers that err differently, smoothed."""
        from scipy.ndimage import gaussian_filter1d

        from deployments.motion.animate import aperture_slope
        from deployments.motion.lip_space import LipSpace

        config, answers = MotionConfig(), regression_answers(heard)
        lips = answers[:, :LIP_COEFFICIENTS]
        way = aperture_slope(LipSpace.load(), template.mean[None].astype(np.float64))[0] * template.std
        both = config.opening_share * answers[:, LIP_COEFFICIENTS] * np.linalg.norm(way) + (1 - config.opening_share) * lips @ way
        opening = gaussian_filter1d(both, config.opening_smooth, mode="nearest")
        return Told(lips, opening.astype(np.float32), way.astype(np.float32))

    def part(self, rows: slice) -> Told:
        """Some frames of it."""
        return Told(self.lips[rows], self.opening[rows], self.way)


def mixed_lips(made: Floats, told: Told) -> Floats:
    """Lips [T, 8] in a person's own spread: opened as the regression says, shaped by both."""
    share = MotionConfig().regression_share
    shaped = (1 - share) * made + share * told.lips
    missing = (told.opening - shaped @ told.way) / max(float(told.way @ told.way), 1e-12)
    return np.asarray(shaped + missing[:, None] * told.way, np.float32)


def placed_lips(lips: Floats, template: Any, expression: float) -> Floats:
    """Lips [T, 8] put into the template's mean, spread and range."""
    room = max(0.0, expression - 1) * template.std
    moved = template.mean + lips * template.std * AMPLITUDE * expression
    return np.asarray(np.clip(moved, template.p01 - room, template.p99 + room), np.float32)


def sample_lips(heard: Floats, guidance: Any) -> Floats:
    """Lips [T, 8] in a person's own spread."""
    from deployments.engines.vasa1.sampling import sample

    network = load_transformer()
    made = sample(network, heard, {}, guidance)[:, :LIP_COEFFICIENTS]
    return np.asarray(made * network.lip_gain.numpy(), np.float32)


def regression_answers(heard: Floats) -> Floats:
    """The shared regression's lips and opening [T, 9] in a person's own spread, as it says them to the transformer."""
    from deployments.motion.animate import SMALLEST_SPREAD
    from deployments.motion.head import FEATURES, OUTPUTS, load_head

    steps = heard.reshape(len(heard), 2, FEATURES + OUTPUTS)[..., FEATURES:].mean(1)
    spread = np.maximum(load_head().spread.numpy(), SMALLEST_SPREAD)
    return np.asarray(steps / spread, np.float32)


def guidance_of(options: dict[str, Any]) -> Any:
    """Sampling settings from a caller's options. Raises OptionError for a value out of range."""
    from deployments.engines.vasa1.sampling import Guidance

    config = MotionConfig()
    audio = float(options.get("guidance", config.guidance))
    if not 0 <= audio <= 3:
        raise OptionError(f"expected guidance of 0 to 3, got {audio}; leave it out for {config.guidance}")
    return Guidance(audio=audio, steps=config.steps, temperature=config.temperature, seed=int(options.get("seed", 0)))


def smooth_interpolation(times: NDArray[np.float64], steps: NDArray[np.float64], values: Floats) -> NDArray[np.float64]:
    """Values [S, K] at `steps`, at times [T]: a cubic through them, held beyond the ends."""
    from scipy.interpolate import CubicSpline

    if len(steps) < 2:
        return np.repeat(values[:1], len(times), axis=0).astype(np.float64)
    return np.asarray(CubicSpline(steps, values)(np.clip(times, steps[0], steps[-1])), np.float64)


@lru_cache(maxsize=1)
def load_transformer(path: Path = WEIGHTS) -> Any:
    """The shipped transformer; raises WeightsError."""
    from deployments.engines.vasa1.transformer import MotionTransformer
    from deployments.motion.phoneme_net import load_weights

    network = MotionTransformer(MotionConfig())
    load_weights(network, path)
    return network
