"""What the denoiser hears: the hidden layer of the speech net, as its principal parts in the template's own sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Speech

Floats = NDArray[np.float32]

EAR = "ear.safetensors"
STEP = 0.01  # seconds before and after a frame's time at which the net is read: its steps are 20 ms
EVEN = 0.05  # share of the loudest part that steadies the faint ones
LIMIT = 4.0  # spreads: a sound unlike the template's stays a sound


@dataclass(frozen=True)
class Ear:
    """A linear map of 424 numbers a frame to a few of about unit spread."""

    mean: Floats  # [424]
    basis: Floats  # [424, D]

    def told(self, features: Floats) -> Floats:
        """What the denoiser is told [T, D] of raw features [T, 424]."""
        return np.asarray(np.clip((features - self.mean) @ self.basis, -LIMIT, LIMIT), np.float32)


@dataclass(frozen=True)
class Heard:
    """What F remembered frames say."""

    told: Floats  # [F, D] to the denoiser
    sounds: Floats  # [F, S] to the search for alike mouths


def raw_features(samples: Floats, times: NDArray[np.float64]) -> Floats:
    """Hidden features and mel bands [T, 424] around times [T]."""
    from deployments.motion.head import step_times
    from deployments.motion.phoneme_net import speech_features

    features, _ = speech_features(samples)
    steps = step_times(len(features))
    parts = [np.stack([np.interp(times + shift, steps, c) for c in features.T], 1) for shift in (-STEP, STEP)]
    return np.concatenate(parts, 1).astype(np.float32)


def fit_ear(features: Floats, size: int) -> Ear:
    """Principal parts of features [F, 424]."""
    mean = features.mean(0)
    _, values, vectors = np.linalg.svd(features - mean, full_matrices=False)
    values, vectors = values[:size] ** 2 / len(features), vectors[:size]
    basis = np.zeros((features.shape[1], size), np.float32)
    basis[:, : len(vectors)] = (vectors / np.sqrt(values + EVEN * values[0] + 1e-9)[:, None]).T
    return Ear(mean.astype(np.float32), basis)


def hear(speech: Speech, times: NDArray[np.float64], ear: Ear) -> Floats:
    """Features [T, D] of new speech at frame times [T]. Raises SpeechError."""
    from deployments.audio.features import speech_at_16k

    return ear.told(raw_features(speech_at_16k(speech), np.asarray(times, np.float64)))


def save_ear(ear: Ear, folder: Path) -> None:
    """Write the map."""
    from safetensors.numpy import save

    from deployments.records import write_atomic

    write_atomic(folder / EAR, save({"mean": ear.mean, "basis": np.ascontiguousarray(ear.basis)}))


def load_ear(folder: Path) -> Ear | None:
    """The map of an avatar; None for a template without sound. Raises WeightsError."""
    from deployments.weights import load_tensors

    if not (folder / EAR).is_file():
        return None
    tensors = load_tensors(folder / EAR, "mean", "basis")
    return Ear(tensors["mean"].astype(np.float32), tensors["basis"].astype(np.float32))
