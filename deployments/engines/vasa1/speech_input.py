"""What the motion transformer hears: the hidden layer of the speech net, mel bands, and the shared regression's answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.latents import RATE
from deployments.engines.vasa1.transformer import AUDIO
from deployments.motion.head import Prediction
from deployments.motion.phoneme_net import STEP_SECONDS
from deployments.motion.template import Residual

Floats = NDArray[np.float32]


def frame_times(seconds: float) -> NDArray[np.float64]:
    """Times [T] of the latents that cover `seconds`, 25 per second, the first at 0."""
    return np.asarray(np.arange(int(np.ceil(seconds * RATE)) + 1) / RATE, np.float64)


def hear(prediction: Prediction, times: NDArray[np.float64], residual: Residual | None = None) -> Floats:
    """Features [T, 442] at times [T]: two steps of 20 ms around each. `residual`: the person's own correction."""
    outputs = prediction.outputs if residual is None else prediction.outputs + residual.apply(prediction.features)
    columns = np.concatenate([prediction.features, outputs], axis=1)
    steps = prediction.step_times()
    parts = [
        np.stack([np.interp(times + shift, steps, column) for column in columns.T], axis=1)
        for shift in (-STEP_SECONDS / 2, STEP_SECONDS / 2)
    ]
    heard = np.concatenate(parts, axis=1).astype(np.float32)
    assert heard.shape[1] == AUDIO
    return heard
