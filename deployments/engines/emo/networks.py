"""An avatar's networks in memory, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from deployments.engines.emo.autoencoder import FACTOR, Autoencoder
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.network import Denoiser
from deployments.errors import WeightsError

CODE, DENOISER = "autoencoder", "denoiser"
LISTED = 8  # keys named in a message


@dataclass(frozen=True)
class Networks:
    """Both networks, ready to work."""

    code: Autoencoder
    denoiser: Denoiser
    device: torch.device


def device() -> torch.device:
    """Where networks work."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=2)
def load_networks(folder: Path, config: EmoConfig, size: tuple[int, int]) -> Networks:
    """The networks of an avatar whose window is `size` (height, width). Raises WeightsError."""
    torch.set_num_threads(1)  # chunks are the parallelism, and sums must not depend on the number of threads
    with torch.device("meta"):  # numbers of a fit need no random ones first
        code = Autoencoder(config.latent)
        denoiser = Denoiser(config.latent, config.denoiser, (size[0] // FACTOR, size[1] // FACTOR))
    for network, name in ((code, CODE), (denoiser, DENOISER)):
        network.to_empty(device="cpu")
        fill(network, folder / f"{name}.safetensors")
        # as the pictures lie: oneDNN reorders weights in every call, and such ones faster
        network.eval().to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own lack it
    return Networks(code, denoiser, device())


def fill(network: nn.Module, path: Path) -> None:
    """Weights from a safetensors file with exactly the network's keys and shapes. Raises WeightsError that lists the others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a safetensors file at {path}, got: {error}; fit the avatar again") from error
    told = other_keys({name: t.shape for name, t in network.state_dict().items()}, {name: t.shape for name, t in found.items()})
    if told:
        raise WeightsError(f"expected the weights of {type(network).__name__} in {path}, got {told}; fit the avatar again")
    network.load_state_dict({name: tensor.float() for name, tensor in found.items()})


def other_keys(wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    """What is missing, unknown or of another shape, with the keys; empty where two lists of shapes agree."""
    faults = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(k for k in wanted.keys() & found.keys() if list(wanted[k]) != list(found[k])),
    }
    return "; ".join(f"{len(keys)} {what}: {listed(keys)}" for what, keys in faults.items() if keys)


def listed(keys: Sequence[str]) -> str:
    """The first keys of a list."""
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
