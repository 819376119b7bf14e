"""The decoders that our own engines fit to a person, with random weights: what `benchmarks.kernels.latents` and `.paste` time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deployments.engines.emo.autoencoder import Autoencoder
from deployments.engines.emo.config import LatentConfig
from deployments.engines.vasa1.config import DecoderConfig
from deployments.engines.vasa1.network import MOTION, PLANES
from deployments.engines.vasa1.network import Decoder as FaceDecoder
from kernels.latent_decode import accelerate

EMO_SIDE, VASA_SIDE = 96, 128  # the largest windows of the two engines: 9216 and 16384 pixels
Work = Callable[[], Tensor]


def emo_code(dtype: torch.dtype, device: str) -> Autoencoder:
    """emo's auto-encoder, weights in channels-last order, as the engine has it."""
    torch.manual_seed(0)
    code = Autoencoder(LatentConfig()).eval().requires_grad_(False).to(device, dtype)
    code.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return code


def emo_works(frames: int, dtype: torch.dtype, device: str) -> dict[str, Work]:
    """Latent pictures to windows of 96 x 96."""
    code, fast, first = (emo_code(dtype, device) for _ in range(3))
    first.decoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    fast.decoder = accelerate(fast.decoder)
    random = torch.Generator().manual_seed(0)
    latent = torch.randn(frames, LatentConfig().channels, EMO_SIDE // 4, EMO_SIDE // 4, generator=random).to(device, dtype)
    compiled, compiled_fast = torch.compile(code.decode), torch.compile(fast.decode)
    return {
        "eager": lambda: first.decoder(latent * first.spread + first.mean) + 0.5,
        "eager channels last": lambda: code.decode(latent),
        "torch.compile channels last": lambda: compiled(latent),
        "ours": lambda: fast.decode(latent),
        "ours under torch.compile": lambda: compiled_fast(latent),
    }


def vasa1_works(frames: int, dtype: torch.dtype, device: str) -> dict[str, Work]:
    """Planes of a window of 128 x 128 to logits and correction: a whole U-Net, down and up."""
    first, last, fast = (vasa1_decoder(dtype, device) for _ in range(3))
    for model in (last, fast):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for stacks in (fast.down_blocks, fast.up_blocks):
        for number, stack in enumerate(stacks):
            stacks[number] = accelerate(stack)
    random = torch.Generator().manual_seed(0)
    planes = torch.rand(frames, PLANES, VASA_SIDE, VASA_SIDE, generator=random).to(device, dtype)
    told = torch.randn(frames, DecoderConfig().code + MOTION, generator=random).to(device, dtype)
    turned = planes.contiguous(memory_format=torch.channels_last)
    compiled, compiled_fast = torch.compile(last), torch.compile(fast)

    def run(model: Callable[..., tuple[Tensor, Tensor]], given: Tensor) -> Work:
        return lambda: torch.cat(model(given, told), 1)

    return {
        "eager": run(first, planes),
        "eager channels last": run(last, turned),
        "torch.compile channels last": run(compiled, turned),
        "ours": run(fast, turned),
        "ours under torch.compile": run(compiled_fast, turned),
    }


def vasa1_decoder(dtype: torch.dtype, device: str) -> FaceDecoder:
    """Its last layers begin at zero; here they are random, or every answer would be 0."""
    torch.manual_seed(0)
    model = FaceDecoder(DecoderConfig()).eval().requires_grad_(False)
    for layer in (model.leave, model.film[2]):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        nn.init.normal_(layer.weight, 0, 0.05)
    return model.to(device, dtype)
