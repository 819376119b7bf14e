"""Reading an operator's weights: safetensors with exactly the published tensors, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deployments.engines.vasa1.liveportrait.appearance import Appearance
from deployments.engines.vasa1.liveportrait.config import MotionConfig, PortraitNetsConfig
from deployments.engines.vasa1.liveportrait.generator import Generator
from deployments.engines.vasa1.liveportrait.layers import fold_all
from deployments.engines.vasa1.liveportrait.names import APPEARANCE, GENERATOR, MOTION, POSE, STITCHING, WARPING, Names, Tensors
from deployments.engines.vasa1.liveportrait.pose import PoseNet
from deployments.engines.vasa1.liveportrait.sampling import signal_shares
from deployments.engines.vasa1.liveportrait.stitch import Stitching
from deployments.engines.vasa1.liveportrait.transformer import MotionNet
from deployments.engines.vasa1.liveportrait.warping import Warping
from deployments.errors import WeightsError

SUFFIX = ".safetensors"
PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch's zip of pickles; a bare pickle
TEMPLATE = "motion_template"
SPEECH = "speech_encoder"  # a file of its own where the motion generator's file holds no audio encoder
FILES = {
    APPEARANCE.file: "LivePortrait, base_models",
    POSE.file: "LivePortrait, base_models",
    WARPING.file: "LivePortrait, base_models",
    GENERATOR.file: "LivePortrait, base_models",
    STITCHING.file: "LivePortrait, retargeting_models",
    MOTION.file: "JoyVASA, motion_generator",
    TEMPLATE: "JoyVASA, motion_template",
}
LISTED = 8  # keys named in a message
CLOSE = 1e-4  # two noise schedules are the same
HOW = "deployments/engines/vasa1/liveportrait/README.md says how to convert the public files, once, where you trust them"


@dataclass(frozen=True)
class PortraitNets:
    """LivePortrait's networks, ready to work."""

    config: PortraitNetsConfig
    appearance: Appearance
    pose: PoseNet
    warping: Warping
    generator: Generator
    stitching: Stitching
    device: torch.device
    dtype: torch.dtype = torch.float32  # of W and G, which work on every frame

    def parts(self) -> tuple[tuple[nn.Module, Names], ...]:
        """Every network and how its file calls its tensors."""
        return (
            (self.appearance, APPEARANCE),
            (self.pose, POSE),
            (self.warping, WARPING),
            (self.generator, GENERATOR),
            (self.stitching, STITCHING),
        )


@dataclass(frozen=True)
class Template:
    """Means and ranges in which the motion transformer's numbers are meant."""

    offset: NDArray[np.float32]  # [D]
    scale: NDArray[np.float32]  # [D]


def device() -> torch.device:
    """Where networks work."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_portrait_nets(config: PortraitNetsConfig | None = None, where: torch.device | None = None) -> PortraitNets:
    """Networks without weights."""
    config = config or PortraitNetsConfig()
    nets = Appearance(config), PoseNet(config), Warping(config), Generator(config), Stitching(config)
    return PortraitNets(config, *nets, where or device())


@lru_cache(maxsize=1)
def load_portrait_nets(folder: Path, config: PortraitNetsConfig | None = None) -> PortraitNets:
    """LivePortrait with the weights of a folder. Raises WeightsError that lists what is missing, unknown or of another shape."""
    with torch.device("meta"):  # no memory, no time for numbers that are thrown away
        nets = new_portrait_nets(config, device())
    for net, names in nets.parts():
        fill(net, read(folder, names.file), names, folder)
    return placed(nets, nets.device, torch.float16 if nets.device.type == "cuda" else torch.float32)


def placed(nets: PortraitNets, where: torch.device, dtype: torch.dtype) -> PortraitNets:
    """The networks on a device; those of every frame in another precision (half on a GPU, as their authors run them)."""
    for net, _ in nets.parts():
        net.to(where)
    nets.warping.to(dtype)
    nets.generator.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return replace(nets, device=where, dtype=dtype)


@lru_cache(maxsize=1)
def load_motion_net(folder: Path, config: MotionConfig | None = None) -> MotionNet:
    """JoyVASA's speech net and transformer with the weights of a folder. Raises WeightsError."""
    found = read(folder, MOTION.file)
    config = told_sizes(found, config or MotionConfig())
    with torch.device("meta"):
        net = MotionNet(config)
    if not any(name.startswith("audio_encoder.") for name in found):
        found |= {f"audio_encoder.{name}": tensor for name, tensor in read(folder, SPEECH).items()}
    check_constants(found, config, folder)
    fill(net, found, MOTION, folder)
    return net.to(device())


def load_template(folder: Path, points: int = 21) -> Template:
    """The template that the motion transformer was trained with. Raises WeightsError."""
    found = read(folder, TEMPLATE)
    sizes = {"scale": 1, "t": 3, "pitch": 1, "yaw": 1, "roll": 1}
    wanted: dict[str, tuple[int, ...]] = {"mean_exp": (3 * points,), "std_exp": (3 * points,)}
    wanted |= {f"{end}_{name}": (size,) for name, size in sizes.items() for end in ("min", "max")}
    compare({name: found[name] for name in wanted.keys() & found.keys()}, wanted, folder / TEMPLATE)
    lows = torch.cat([found["mean_exp"], *(found[f"min_{name}"] for name in sizes)]).double()
    spans = torch.cat([found["std_exp"], *(found[f"max_{name}"] - found[f"min_{name}"] for name in sizes)]).double()
    return Template(lows.float().numpy(), spans.float().numpy())


def check_files(folder: Path, stems: Iterable[str] = tuple(FILES)) -> None:
    """Refuse a folder without the files called so. Raises WeightsError that names them, where they come from, and pickles."""
    gone = [stem for stem in stems if not (folder / f"{stem}{SUFFIX}").is_file()]
    if not gone:
        return
    told = ", ".join(f"{stem}{SUFFIX} ({FILES.get(stem, 'chinese-hubert-base')})" for stem in gone)
    near = [f"{stem}{suffix}" for stem in gone for suffix in PICKLES if (folder / f"{stem}{suffix}").is_file()]
    pickles = f" There is {', '.join(near)}: a pickle is never read." if near else ""
    raise WeightsError(f"expected the liveportrait profile's files in {folder}, got no {told}.{pickles} {HOW}")


def read(folder: Path, stem: str) -> Tensors:
    """Tensors of a file. Raises WeightsError for a missing file, a pickle, or what is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_files(folder, (stem,))
    path = folder / f"{stem}{SUFFIX}"
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a safetensors file at {path}, got {seen_in(path, error)}: {HOW}") from error
    return {tidied(name): tensor for name, tensor in found.items()}


def seen_in(path: Path, error: Exception) -> str:
    """What a file that is no safetensors file seems to be."""
    with path.open("rb") as file:
        pickled = file.read(4).startswith(PICKLE_STARTS)
    return "a pickle under that name; a pickle is never read" if pickled else f"{error}; convert or copy it again"


def tidied(name: str) -> str:
    """A public name without what a training run on several GPUs, or a newer torch, adds to it."""
    name = name.replace("module.", "")
    return name.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")


def fill(net: nn.Module, found: Tensors, names: Names, folder: Path) -> None:
    """Give a network the published tensors and fold it. Raises WeightsError."""
    ours = net.state_dict()
    kept = {name: tensor for name, tensor in found.items() if not re.search(names.constants, name)}
    compare(kept, names.wanted(ours), folder / names.file)
    read_in = names.translated(kept, ours)
    net.load_state_dict({name: tensor.to(ours[name].dtype) for name, tensor in read_in.items()}, assign=True)
    fold_all(net.eval())


def compare(found: Tensors, wanted: dict[str, tuple[int, ...]], path: Path) -> None:
    """Refuse a file that holds other tensors than the wanted ones. Raises WeightsError that lists them by their public names."""
    faults = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(wanted[name])}"
            for name in sorted(wanted.keys() & found.keys())
            if tuple(found[name].shape) != wanted[name]
        ],
    }
    told = [f"{len(keys)} {what}: {', '.join(keys[:LISTED])}" for what, keys in faults.items() if keys]
    if told:
        raise WeightsError(
            f"expected the {len(wanted)} published tensors in {path}{SUFFIX}, got {'; '.join(told)}; "
            f"convert the published file again: {HOW}"
        )


def told_sizes(found: Tensors, config: MotionConfig) -> MotionConfig:
    """The sizes of a motion generator as far as its own file tells them: they were options of its training."""
    shares, first, mask = (
        found.get(name) for name in ("diffusion_sched.alpha_bars", "start_motion_feat", "denoising_net.alignment_mask")
    )
    if shares is not None and shares.ndim == 1 and len(shares) > 1:
        config = replace(config, steps=len(shares) - 1)
    if first is not None and first.ndim == 3:
        config = replace(config, before=first.shape[1], extra=max(0, first.shape[2] - 3 * config.points - 7))
    if mask is not None and len(mask) > config.before:
        config = replace(config, window=len(mask) - config.before)
    return config


def check_constants(found: Tensors, config: MotionConfig, folder: Path) -> None:
    """What a file says of its noise schedule and of who hears what must be what is computed here. Raises WeightsError."""
    path = folder / f"{MOTION.file}{SUFFIX}"
    shares, mask = found.get("diffusion_sched.alpha_bars"), found.get("denoising_net.alignment_mask")
    own = torch.from_numpy(signal_shares(config.steps))
    if shares is not None and (shares.shape != own.shape or (shares.double() - own).abs().max() > CLOSE):
        raise WeightsError(
            f"expected the cosine schedule of {config.steps} steps in {path}, got another schedule; "
            "this is not the published motion generator"
        )
    if mask is not None and not torch.equal(mask.bool(), ~torch.eye(len(mask), dtype=torch.bool)):
        raise WeightsError(f"expected frames that hear their own sound only in {path}, got a wider mask; take the published file")
