"""A whole decoder of latent pictures on the fast parts: normalisations with SiLU, doublings folded into convolutions.

Knows decoders by the names of their parts: the layout of diffusers' `AutoencoderKL`, and sequences of plain residual
blocks with `norm_1`, `conv_1`, `norm_2` and `conv_2`, as in the engine `emo`; imports neither.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from kernels.checks import DtypeError, KernelError, ShapeError
from kernels.latent_decode.modules import FoldedUpsample, FusedNorm, FusedResidual, Widened, multiplies

__all__ = ["LayoutError", "accelerate", "decode"]

Decoder = TypeVar("Decoder", bound=nn.Module)
PARTS = ("conv_in", "mid_block", "up_blocks", "conv_norm_out", "conv_out")


class LayoutError(KernelError, TypeError):
    """The decoder is built in another way than the one that is known."""


def accelerate(decoder: Decoder) -> Decoder:
    """A copy of the decoder for rendering, on the fast parts, channels last; the one given stays as it is.

    `norm1`, `norm2` and `nonlinearity` of a residual block, `conv_norm_out` and `conv_act`, `group_norm` of an
    attention and doublings with a 3x3 convolution in `upsamplers` are swapped; of a sequence the residual blocks that are
    told nothing. What looks otherwise is left alone. Where a CPU cannot multiply bfloat16, layers and residual blocks of it work
    in float32 between their ends. The copy has the weights of now: after further training accelerate again.
    """
    sequence = isinstance(decoder, nn.Sequential) and any(_residual(part) is not part for part in decoder)
    missing = [name for name in PARTS if not sequence and not hasattr(decoder, name)]
    if missing:
        raise LayoutError(
            f"expected a decoder with {', '.join(PARTS)} as in diffusers' AutoencoderKL.decoder, "
            f"{type(decoder).__name__} has no {', '.join(missing)}; hand over the decoder itself, or run it as it is"
        )
    fast = copy.deepcopy(decoder).eval().requires_grad_(False)
    for number, part in enumerate(fast if isinstance(fast, nn.Sequential) else ()):
        setattr(fast, str(number), _residual(part))
    for part in list(fast.modules()):
        _fuse_pairs(part)
        upsamplers = getattr(part, "upsamplers", None)
        if isinstance(upsamplers, nn.ModuleList):
            part.upsamplers = nn.ModuleList(_folded(each) for each in upsamplers)
    _widen(fast)
    return _channels_last(fast)


def decode(decoder: nn.Module, latents: Tensor, batch: int = 8) -> Tensor:
    """Pictures of latents [B, C, h, w] by an accelerated (or any) decoder, `batch` at a time, without gradients."""
    if latents.ndim != 4 or min(latents.shape) < 1:
        raise ShapeError(f"latents: expected [B, C, h, w] with at least one of each, got {[*latents.shape]}; reshape them")
    if batch < 1:
        raise ShapeError(f"batch: expected at least 1, got {batch}")
    wanted = _type_of(decoder)
    if wanted not in (None, latents.dtype):
        raise DtypeError(f"latents: expected {wanted} like the decoder, got {latents.dtype}; convert them")
    with torch.no_grad():
        parts = latents.contiguous(memory_format=torch.channels_last).split(batch)
        pictures = [decoder(part) for part in parts]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def _channels_last(fast: Decoder) -> Decoder:
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own annotations lack it
    return fast


def _type_of(decoder: nn.Module) -> torch.dtype | None:
    """What the decoder takes, by its first layer; None where nothing in it has weights."""
    for part in decoder.modules():
        weight = next(part.parameters(recurse=False), None)
        if isinstance(part, Widened) or weight is not None:
            return part.dtype if weight is None else weight.dtype  # type: ignore[return-value]  # Widened's own
    return None


def _widen(fast: nn.Module) -> None:
    """Let layers work in float32 whose own type this device cannot multiply."""
    for part in list(fast.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.Conv2d | nn.Linear | FoldedUpsample | FusedResidual):
                weight = next(layer.parameters())
                if not multiplies(weight.dtype, weight.device):
                    setattr(part, name, Widened(layer))


def _residual(part: nn.Module) -> nn.Module:
    """A residual block of a sequence on the fast parts, or the module itself where it is anything else."""
    norms = (getattr(part, "norm_1", None), getattr(part, "norm_2", None))
    convs = (getattr(part, "conv_1", None), getattr(part, "conv_2", None))
    if not all(isinstance(norm, nn.GroupNorm) for norm in norms) or not all(isinstance(conv, nn.Conv2d) for conv in convs):
        return part
    known = {"norm_1", "norm_2", "conv_1", "conv_2", "dropout"}  # a film or a shortcut would be another block
    if {name for name, child in part.named_children() if child is not None} - known:
        return part
    return FusedResidual(norms, convs)  # type: ignore[arg-type]  # seen above


def _fuse_pairs(part: nn.Module) -> None:
    """Swap the normalisations of one block, and its SiLU away where every use of it follows one of them."""
    names = [("norm1", "norm2"), ("conv_norm_out",)]
    for norms, silu in zip(names, ("nonlinearity", "conv_act"), strict=True):
        every = [getattr(part, name, None) for name in norms]
        found = [norm for norm in every if isinstance(norm, nn.GroupNorm)]
        if len(found) < len(norms) or not isinstance(getattr(part, silu, None), nn.SiLU):
            continue
        if getattr(part, "time_emb_proj", None) is not None or getattr(part, "upsample", None) is not None:
            continue  # the SiLU is applied to the time embedding, too; or something stands between norm and convolution
        for name, norm in zip(norms, found, strict=True):
            setattr(part, name, FusedNorm(norm, silu=True))
        setattr(part, silu, nn.Identity())
    alone = getattr(part, "group_norm", None)
    if isinstance(alone, nn.GroupNorm):
        part.group_norm = FusedNorm(alone, silu=False)


def _folded(upsampler: nn.Module) -> nn.Module:
    """The doubling with its convolution folded, or the module itself where it is anything else."""
    conv = getattr(upsampler, "conv", None)
    if not isinstance(conv, nn.Conv2d) or isinstance(conv, nn.ConvTranspose2d):
        return upsampler
    how = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = getattr(upsampler, "norm", None) is None and getattr(upsampler, "interpolate", True)
    if how != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros") or not plain or getattr(upsampler, "use_conv_transpose", False):
        return upsampler
    return FoldedUpsample(conv)
