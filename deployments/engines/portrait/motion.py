"""From speech to lip coefficients, and how loud it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion, Speech
from deployments.portrait.move import FPS, frame_count, generic_mouth


def portrait_motion(speech: Speech) -> Motion:
    """Mouth motion [T, 8] of an unknown person, relative to the generic mouth."""
    from deployments.motion.animate import MotionOptions, make_motion

    times = np.arange(frame_count(speech)) / float(FPS)
    return make_motion(speech, times, generic_mouth(), MotionOptions())


def loudness(speech: Speech, frames: int) -> NDArray[np.float64]:
    """Loudness [T] of the speech per frame, 0..1 of its loud parts."""
    edges = np.minimum(np.arange(frames + 1) * speech.rate // int(FPS), len(speech.samples))
    power = np.concatenate([[0.0], np.cumsum(speech.samples.astype(np.float64) ** 2)])
    level = np.sqrt((power[edges[1:]] - power[edges[:-1]]) / np.maximum(np.diff(edges), 1))
    return np.asarray(np.clip(level / max(float(np.percentile(level, 95)), 1e-3), 0.0, 1.0), np.float64)
