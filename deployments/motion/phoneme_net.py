"""PhonemeNet: which of 25 articulatory classes is spoken, 50 times a second, and the hidden features the head reads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deployments.audio.features import BANDS, SILENT_POWER, mel_power, normalise
from deployments.errors import WeightsError
from deployments.motion.phonemes import CLASSES, SILENCE

CHANNELS = 192
DILATIONS = (1, 2, 4, 8, 1, 2, 4, 8)
STEP_SECONDS = 0.02
SMALL_BANDS = 20
# Long speech goes through in blocks; the context is longer than the receptive field, so blocks leave no trace.
BLOCK_STEPS = 6000
CONTEXT_STEPS = 64
DATA = Path(__file__).parent / "data"


class ResidualBlock(nn.Module):
    """Dilated convolution over time, with a pointwise one behind it and the input added."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [B, C, T] -> [B, C, T]."""
        return x + self.mix(torch.relu(self.conv(torch.relu(self.norm(x)))))


class PhonemeNet(nn.Module):
    """1.4 M parameters; sees about 0.65 s to both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(BANDS, CHANNELS, 5, padding=2)
        self.halve = nn.Conv1d(CHANNELS, CHANNELS, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(CHANNELS, dilation) for dilation in DILATIONS)
        self.last_norm = nn.BatchNorm1d(CHANNELS)
        self.out = nn.Conv1d(CHANNELS, len(CLASSES), 1)

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised log-mel [B, 80, 2T] at 100 Hz -> hidden [B, 192, T] and logits [B, 25, T] at 50 Hz."""
        x = self.halve(torch.relu(self.stem(mel)))
        for block in self.blocks:
            x = block(x)
        hidden = torch.relu(self.last_norm(x))
        return hidden, self.out(hidden)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights as half-precision safetensors."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from safetensors, in float32; raises WeightsError when the file is missing or does not fit."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"expected the weights {path.name} in {path.parent}, got no such file; reinstall or train them")
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"expected weights for {type(network).__name__} in {path.name}, got others: {error}") from error
    network.eval()


@lru_cache(maxsize=1)
def load_phoneme_net() -> PhonemeNet:
    """The shipped net, in evaluation mode; raises WeightsError."""
    network = PhonemeNet()
    load_weights(network, DATA / "phoneme_net.safetensors")
    return network


def speech_features(
    samples: NDArray[np.float32], network: PhonemeNet | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the head reads, and the class posteriors, of mono speech [N] at 16 kHz.

    Returns features [T, 212] (192 hidden, 20 mel) and posteriors [T, 25] with T = ceil(N / 320); step k is centred on
    (k + 0.5) * 20 ms.
    """
    return features_of_power(mel_power(samples), network)


def features_of_power(
    power: NDArray[np.float32], network: PhonemeNet | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same of mel power [F, 80] at 100 Hz."""
    network = network or load_phoneme_net()
    mel = normalise(power)
    if len(mel) % 2:
        mel = np.concatenate([mel, mel[-1:]])
    steps = len(mel) // 2
    hidden, posteriors = [np.zeros((0, CHANNELS), np.float32)], [np.zeros((0, len(CLASSES)), np.float32)]
    for start in range(0, steps, BLOCK_STEPS):
        stop = min(start + BLOCK_STEPS, steps)
        low, high = max(0, start - CONTEXT_STEPS), min(steps, stop + CONTEXT_STEPS)
        with torch.inference_mode():
            inner, logits = network(torch.from_numpy(np.ascontiguousarray(mel[2 * low : 2 * high].T))[None])
            shares = torch.softmax(logits[0], 0).T.numpy()
        kept = slice(start - low, stop - low)
        hidden.append(inner[0].T.numpy()[kept])
        posteriors.append(shares[kept])
    posterior = np.concatenate(posteriors)
    dead = np.resize(power.sum(1), 2 * steps).reshape(steps, 2).max(1) <= SILENT_POWER
    posterior[dead] = np.eye(len(CLASSES), dtype=np.float32)[SILENCE]
    small = mel.reshape(steps, 2, SMALL_BANDS, BANDS // SMALL_BANDS).mean((1, 3))
    return np.concatenate([np.concatenate(hidden), small], 1), posterior
