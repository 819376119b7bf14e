"""Files that an operator brings, read strictly: safetensors with exactly the keys that are wanted, or nothing.

Networks are built without memory and take their tensors one by one, so that nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from deployments.engines.emo.hallo2.config import ProfileConfig
from deployments.engines.emo.hallo2.net import Hallo2
from deployments.engines.emo.hallo2.speech import SpeechNet, speech_name
from deployments.engines.emo.hallo2.vae import Vae, vae_name
from deployments.engines.emo.networks import other_keys
from deployments.errors import WeightsError
from kernels.latent_decode import accelerate

Network = TypeVar("Network", bound=nn.Module)
NET, VAE, SPEECH = "net.safetensors", "vae.safetensors", "speech.safetensors"
FILES = {
    NET: "Hallo2's net.pth, converted to safetensors where you trust it: it is a pickle, which is never opened here",
    VAE: "diffusion_pytorch_model.safetensors of the auto-encoder sd-vae-ft-mse",
    SPEECH: "model.safetensors of wav2vec2-base-960h",
}


@dataclass(frozen=True)
class Parts:
    """All networks of the profile."""

    net: Hallo2
    vae: Vae
    speech: SpeechNet


def same(name: str) -> str:
    """A key as it is."""
    return name


def check_files(folder: Path) -> None:
    """Raise WeightsError that says which of the profile's files are not in a folder, and what they are."""
    gone = [name for name in FILES if not (folder / name).is_file()]
    if gone:
        told = "; ".join(f"{name} ({FILES[name]})" for name in gone)
        raise WeightsError(f"expected the hallo2 profile's files in {folder}, got no {told}; put them there")


def load_parts(folder: Path, config: ProfileConfig | None = None) -> Parts:
    """The profile's networks from the files in a folder, on the GPU where there is one.

    Raises WeightsError for files that are not there, for a pickle, and with the lists of keys for other networks' files.
    """
    config = config or ProfileConfig()
    check_files(folder)
    kind = torch.bfloat16 if config.half else torch.float32
    vae = load(lambda: Vae(config.vae), folder / VAE, vae_name, kind)
    vae.decoder = accelerate(vae.decoder)
    return Parts(
        load(lambda: Hallo2(config.net), folder / NET, same, kind),
        vae,
        load(lambda: SpeechNet(config.speech), folder / SPEECH, speech_name, kind),
    )


def load(build: Callable[[], Network], path: Path, name_of: Callable[[str], str | None], kind: torch.dtype) -> Network:
    """A network with the weights of a file whose keys `name_of` translates; None leaves a key out. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        network = build()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with safe_open(path, "pt") as file:
            keys = {new: old for old in file.keys() if (new := name_of(old)) is not None}
            wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
            told = other_keys(
                wanted, {new: matched(file.get_slice(old).get_shape(), wanted.get(new)) for new, old in keys.items()}
            )
            if told:
                raise WeightsError(f"expected the weights of {type(network).__name__} in {path}, got {told}; bring its own file")
            tensors = {new: file.get_tensor(old).reshape(wanted[new]).to(device, kind).contiguous() for new, old in keys.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"expected a safetensors file at {path}, got: {error}; convert what was pickled where you trust it"
        ) from error
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def matched(found: list[int], wanted: torch.Size | None) -> list[int]:
    """A shape without the last ones of 1x1 convolutions, where a linear layer is wanted: older files have the former."""
    return found[:2] if wanted is not None and len(wanted) == 2 and found[2:] == [1, 1] else found


def parameter_bytes(parts: Parts) -> dict[str, int]:
    """Bytes of every network's parameters."""
    return {
        name: sum(p.numel() * p.element_size() for p in net.parameters())
        for name, net in (("net", parts.net), ("vae", parts.vae), ("speech", parts.speech))
    }
