"""Noise over the steps: linear betas without any signal at the last one, velocity predicted, DDIM (Song et al. 2021).

    x_t = sqrt(a) clean + sqrt(1 - a) noise          v = sqrt(a) noise - sqrt(1 - a) clean

Zero signal at the last step and steps counted from the end ("trailing") after Lin et al. 2024, as the checkpoint was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

TRAINED = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


@dataclass(frozen=True)
class Step:
    """From the share of signal `now` (a) at time `time` to that of the next step."""

    time: int
    now: float
    after: float

    def next(self, x: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """x of the next step, in float32."""
        signal, noise = self.now**0.5, (1 - self.now) ** 0.5
        clean, told = signal * x - noise * velocity.float(), signal * velocity.float() + noise * x
        return self.after**0.5 * clean + (1 - self.after) ** 0.5 * told


def signal_shares() -> NDArray[np.float64]:
    """Share a [1000] of signal at every trained time; 0 at the last."""
    betas = np.linspace(FIRST_BETA, LAST_BETA, TRAINED)
    root = np.sqrt(np.cumprod(1 - betas))
    return np.asarray(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2, np.float64)


def steps_of(count: int) -> list[Step]:
    """`count` steps from pure noise to the clean latent."""
    shares = signal_shares()
    times = [round(TRAINED - k * TRAINED / count) - 1 for k in range(count)]
    after = [*(float(shares[time]) for time in times[1:]), 1.0]
    return [Step(time, float(shares[time]), later) for time, later in zip(times, after, strict=True)]
