"""From lip coefficients to moves of all face points in the head frame."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion, Speech
from deployments.errors import SpeechError
from deployments.portrait.mesh import LOWER_INNER, UPPER_INNER
from deployments.portrait.model import PortraitModel

if TYPE_CHECKING:
    from deployments.motion.template import TemplateMouth

FPS = Fraction(25)
REST = (-0.19, -0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SPREAD = (0.168, 0.065, 0.034, 0.031, 0.026, 0.029, 0.012, 0.016)
LOWEST = (-0.286, -0.170, -0.081, -0.066, -0.047, -0.055, -0.039, -0.026)
HIGHEST = (0.421, 0.108, 0.073, 0.057, 0.049, 0.047, 0.027, 0.029)
JAW_POINTS = (152, 148, 377, 176, 400)


def frame_count(speech: Speech) -> int:
    """Frames at 25 per second that cover the speech. Raises SpeechError for speech that holds no sound samples."""
    if speech.samples.ndim != 1 or len(speech.samples) == 0 or speech.rate <= 0:
        raise SpeechError(f"speech must be mono samples [N] with N > 0, got {speech.samples.shape} at {speech.rate} Hz")
    if not np.isfinite(speech.samples).all():
        raise SpeechError("speech holds NaN or infinite samples; decode it again")
    return -(-len(speech.samples) * int(FPS) // speech.rate)


def generic_mouth() -> TemplateMouth:
    """The mouth of nobody in particular: medians over seven tracked clips around the lip space's mean shape.

    The rest is a little more closed than measured (-0.16): a portrait rests with lips that touch.
    """
    from deployments.motion.lip_space import LipSpace
    from deployments.motion.template import TemplateMouth

    rest = np.array(REST, np.float32)
    return TemplateMouth(
        mean=np.zeros(len(REST), np.float32),
        std=np.array(SPREAD, np.float32),
        p01=np.array(LOWEST, np.float32),
        p99=np.array(HIGHEST, np.float32),
        rest=rest,
        closed=float(LipSpace.load().aperture(rest[None])[0]),
    )


def displacements(motion: Motion) -> NDArray[np.float64]:
    """Moves [T, 57, 3] of the lip and jaw points from the generic mouth at rest, eye distances."""
    from deployments.motion.lip_space import LipSpace

    offset = (motion.coefficients - generic_mouth().rest) * motion.weight[:, None]
    return LipSpace.load().decode(offset.astype(np.float32)).astype(np.float64)


def face_move(model: PortraitModel, displacement: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move [468, 3] of the face points for one frame, and of the jaw's teeth [3].

    The mesh sees a chin move less than it does, so the jaw goes half with the chin and half with the lower lip.
    `displacement` [P, 3] of the moved points is relative to lips at rest, so the photo's own opening is closed first.
    """
    move = model.spread @ displacement
    jaw = (move[list(JAW_POINTS)].mean(0) + move[14]) / 2 * [0.3, 1.0, 1.0]
    jaw[1] = max(jaw[1], -0.01)
    return uncross(model, model.closing + move), jaw


def uncross(model: PortraitModel, move: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same move with lips that press instead of passing through each other."""
    upper, lower = list(UPPER_INNER), list(LOWER_INNER)
    gap = (model.head[lower, 1] + move[lower, 1]) - (model.head[upper, 1] + move[upper, 1])
    excess = np.minimum(gap, 0.0)
    if not excess.any():
        return move
    out = move.copy()
    out[upper, 1] += excess / 2
    out[lower, 1] -= excess / 2
    return out
