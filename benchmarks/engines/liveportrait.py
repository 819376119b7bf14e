"""Speed of vasa1's liveportrait profile with random weights: python -m benchmarks.engines.liveportrait [--small] [--json FILE].

    once_ms       a photo's volume and key points (F, M): once for a film
    warp_ms       W of a frame; draw_ms G; stitch_ms S
    plain_*_ms    the same networks as they are published, nothing folded, single precision, unless --quick
    film          frame_ms: all three and the way of the pixels to the host, so many frames `together`
    motion_ms     of a frame: the transformer's window of 100 frames, all its steps estimated from the measured ones
Random weights take the same time as trained ones. Medians: on a CPU of the process's own time, since machines are busy with
other work; on a GPU of the wall clock, W and G in half precision, compiled with --compile.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from deployments.engines.vasa1.liveportrait.config import (
    AppearanceConfig,
    GeneratorConfig,
    MotionConfig,
    PortraitNetsConfig,
    PoseConfig,
    SamplingConfig,
    SpeechConfig,
    StitchConfig,
    WarpConfig,
)
from deployments.engines.vasa1.liveportrait.layers import fold_all
from deployments.engines.vasa1.liveportrait.load import PortraitNets, device, new_portrait_nets, placed
from deployments.engines.vasa1.liveportrait.sampling import FRAME, denoise, noise_of
from deployments.engines.vasa1.liveportrait.transformer import MotionNet

SMALL = PortraitNetsConfig(
    side=64,
    points=5,
    channels=8,
    depth=4,
    appearance=AppearanceConfig((8, 12, 16), 2),
    pose=PoseConfig((1, 1, 2, 1), (8, 8, 12, 16), 66),
    warp=WarpConfig(2, (4, 8, 12), 16),
    generator=GeneratorConfig(2, 8, 6),
    stitch=StitchConfig((16,), (16,), (16,)),
)
SMALL_MOTION = MotionConfig(
    points=5, width=16, layers=2, heads=2, inner=32, window=20, before=4, steps=12,
    speech=SpeechConfig(channels=8, width=16, layers=1, heads=2, inner=16, position_kernel=8, position_groups=2),
)  # fmt: skip


Net = TypeVar("Net", bound=nn.Module)


def lively(net: Net, seed: int = 0) -> Net:
    """The same network with weights that make every layer matter, running means and spreads included."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=chance) / tensor[0].numel() ** 0.5)
            elif tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=chance) + 0.5 * ("var" in name))
    return net.eval().requires_grad_(False)


def random_nets(config: PortraitNetsConfig, where: torch.device) -> PortraitNets:
    """LivePortrait's networks with lively random weights, nothing folded."""
    nets = new_portrait_nets(config, where)
    for net, _ in nets.parts():
        lively(net).to(where)
    return nets


def median_ms(work: Callable[[], Any], repeats: int, where: torch.device) -> float:
    """Milliseconds of one call, the middle of `repeats` after one that is not counted; on a CPU the process's own time."""
    spent = []
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    for _ in range(repeats + 1):
        began = clock()
        work()
        if where.type == "cuda":
            torch.cuda.synchronize()
        spent.append(1000 * (clock() - began))
    return round(statistics.median(spent[1:]), 3)


@torch.inference_mode()
def frame_figures(nets: PortraitNets, repeats: int, prefix: str = "") -> dict[str, float]:
    """Times of a frame's parts."""
    side, where = nets.config.side, nets.device
    torch.manual_seed(0)
    picture, points = torch.rand(1, 3, side, side, device=where), torch.rand(1, nets.config.points, 3, device=where) - 0.5
    goal = points + 0.05
    volume = nets.appearance(picture).to(nets.dtype)
    features = nets.warping(volume, points, goal)
    parts: dict[str, Callable[[], Any]] = {
        "once_ms": lambda: (nets.appearance(picture), nets.pose(picture)),
        "stitch_ms": lambda: nets.stitching(points, goal),
        "warp_ms": lambda: nets.warping(volume, points, goal),
        "draw_ms": lambda: nets.generator(features),
    }
    wanted = [name for name in parts if not prefix or name in ("warp_ms", "draw_ms")]
    return {prefix + name: median_ms(parts[name], repeats, where) for name in wanted}


@torch.inference_mode()
def film_figures(nets: PortraitNets, together: int, repeats: int) -> dict[str, float]:
    """Time of a frame when so many are drawn at once, and its way to the host."""
    where, side, count = nets.device, nets.config.side, nets.config.points
    volume = nets.appearance(torch.rand(1, 3, side, side, device=where)).to(nets.dtype)
    points = torch.rand(1, count, 3, device=where) - 0.5
    goals = points + 0.05 * torch.rand(together, count, 3, device=where)

    def film() -> None:
        made = nets.generator(nets.warping(volume, points, nets.stitching(points, goals)))
        (made.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    return {"together": together, "frame_ms": round(median_ms(film, repeats, where) / together, 3)}


@torch.inference_mode()
def motion_figures(config: MotionConfig, where: torch.device, steps: int) -> dict[str, float]:
    """Times of the transformer; `steps` of all are measured."""
    net = lively(MotionNet(config)).to(where)
    fold_all(net)
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, config.window * FRAME)).astype(np.float32)).to(where)
    heard = torch.cat([net.first_sound, net.hear(sound)], 1)
    noise = noise_of(0, 0, (1, config.window, config.latent), 1)[0].to(where)
    few = SamplingConfig(steps=steps)
    step = median_ms(lambda: denoise(net, noise, net.first_motion, heard, noise[None], few), 2, where) / steps
    hear = median_ms(lambda: net.hear(sound), 2, where)
    every = (hear + step * config.steps) / config.window
    return {"hear_ms": hear, "step_ms": round(step, 3), "motion_ms": round(every, 3), "steps_measured": steps}


def measure(small: bool, repeats: int, quick: bool, compiled: bool = False) -> dict[str, Any]:
    """Every figure."""
    where = device()
    config, motion = (SMALL, SMALL_MOTION) if small else (PortraitNetsConfig(), MotionConfig())
    nets = random_nets(config, where)
    plain = {} if quick else frame_figures(copy.deepcopy(nets), repeats, "plain_")
    for net, _ in nets.parts():
        fold_all(net)
    nets = placed(nets, where, torch.float16 if where.type == "cuda" else torch.float32)
    if compiled:
        nets.warping.compile()
        nets.generator.compile()
    return {
        "device": torch.cuda.get_device_name() if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "side": 2 * config.side,
        "compiled": compiled,
        "frame": frame_figures(nets, repeats) | plain,
        "film": [film_figures(nets, count, repeats) for count in ((1, 4, 8) if where.type == "cuda" else (1,))],
        "motion": motion_figures(motion, where, 2 if where.type == "cpu" else 50),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("--quick", action="store_true", help="not the unfolded networks")
    parser.add_argument("--compile", action="store_true", help="torch.compile W and G")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    text = json.dumps(measure(args.small, args.repeats, args.quick, args.compile), indent=1)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
