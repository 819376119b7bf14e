"""The head: hidden speech features to lip coefficients, in units of a speaker's own spread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deployments.contracts import LIP_COEFFICIENTS
from deployments.motion.phoneme_net import CHANNELS, DATA, SMALL_BANDS, STEP_SECONDS, load_weights, speech_features
from deployments.motion.phonemes import BILABIAL, SILENCE
from deployments.motion.speaking import speaking

FEATURES = CHANNELS + SMALL_BANDS
OUTPUTS = LIP_COEFFICIENTS + 1
APERTURE = LIP_COEFFICIENTS
WIDTH = 96
# The linear map sees features smoothed over 11 steps, 60 ms ahead: lips lead the sound.
LINEAR_TAPS = np.concatenate([np.zeros(6), np.hanning(11) / np.hanning(11).sum()])
HEAD_FILE = DATA / "head.safetensors"

Floats = NDArray[np.float32]


class Head(nn.Module):
    """Three convolutions over time (0.15 M parameters), seeing 140 ms to both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Dropout(0.3),
            nn.Conv1d(FEATURES, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv1d(WIDTH, WIDTH, 5, padding=2),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv1d(WIDTH, WIDTH, 5, padding=4, dilation=2),
            nn.ReLU(),
            nn.Conv1d(WIDTH, OUTPUTS, 1),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, 212, T] -> standardised coefficients and aperture [B, 9, T]."""
        return torch.as_tensor(self.net(features))


class HeadEnsemble(nn.Module):
    """Heads of several seeds, averaged, and a linear map averaged with them; features standardised as in training.

    The linear map (ridge regression, closed form) knows less and overfits less than the heads; the two err differently.

    `spread` [9] is the standard deviation of the average on unseen clips: a regression's output is smaller than what it
    predicts, and dividing by it restores the range.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor
    spread: torch.Tensor

    def __init__(self, seeds: int = 3) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head() for _ in range(seeds))
        self.linear = nn.Conv1d(FEATURES, OUTPUTS, len(LINEAR_TAPS), padding=len(LINEAR_TAPS) // 2)
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_std", torch.ones(FEATURES))
        self.register_buffer("spread", torch.ones(OUTPUTS))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, 212, T] -> [B, 9, T]."""
        x = (features - self.feature_mean[:, None]) / self.feature_std[:, None]
        return (torch.stack([head(x) for head in self.heads]).mean(0) + self.linear(x)) / 2


def step_times(steps: int) -> NDArray[np.float64]:
    """Centres [S] of the steps in seconds."""
    return np.asarray((np.arange(steps) + 0.5) * STEP_SECONDS, np.float64)


@dataclass(frozen=True)
class Prediction:
    """What speech tells of the mouth, step k centred on (k + 0.5) * 20 ms."""

    outputs: Floats  # [S, 9] standardised coefficients and aperture
    silence: Floats  # [S] posterior
    bilabial: Floats  # [S] posterior of p, b, m
    features: Floats  # [S, 212]
    speaking: Floats  # [S] how surely somebody speaks, 0..1

    def step_times(self) -> NDArray[np.float64]:
        """Centres [S] of the steps in seconds."""
        return step_times(len(self.outputs))

    def outputs_at(self, times: NDArray[np.float64]) -> Floats:
        """Outputs [T, 9] at times [T] in seconds, linear between steps, held beyond the ends."""
        steps = self.step_times()
        return np.stack([np.interp(times, steps, column) for column in self.outputs.T], 1).astype(np.float32)


@lru_cache(maxsize=1)
def load_head(path: Path = HEAD_FILE) -> HeadEnsemble:
    """The shipped heads, in evaluation mode; raises WeightsError."""
    head = HeadEnsemble()
    load_weights(head, path)
    return head


def predict(samples: Floats, head: HeadEnsemble | None = None) -> Prediction:
    """Mouth prediction of mono speech [N] at 16 kHz, N >= 1."""
    features, posteriors = speech_features(samples)
    return Prediction(
        outputs=run_head(features, head or load_head()),
        silence=posteriors[:, SILENCE],
        bilabial=posteriors[:, BILABIAL],
        features=features,
        speaking=speaking(features[:, CHANNELS:], posteriors),
    )


def run_head(features: Floats, head: HeadEnsemble) -> Floats:
    """Outputs [S, 9] of features [S, 212]."""
    with torch.inference_mode():
        return head(torch.from_numpy(np.ascontiguousarray(features.T))[None])[0].T.numpy()
