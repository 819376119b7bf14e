"""The hallo2 profile at its real sizes with random weights.

python -m benchmarks.engines.hallo2 [--steps 10] [--guidance 3.5] [--windows 4] [--compile] [--json FILE]

counted     : parameters, their bytes in bfloat16, and the multiplications and additions of a window of 16 frames at 512 x 512,
              from the shapes alone; needs neither the memory nor a GPU
measured    : on a GPU only: frames per second and peak memory of `ours`, and in the same run of `public`: the same networks
              as the public pipeline runs them (the portrait read anew for every window, pictures decoded one at a time by
              the plain decoder, nothing compiled). Random weights draw nothing, but take as long as real ones.
On a machine without a GPU nothing is timed and nothing is said about speed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deployments.engines.emo.hallo2.config import ProfileConfig, SampleConfig
from deployments.engines.emo.hallo2.face import Sitter
from deployments.engines.emo.hallo2.net import Hallo2
from deployments.engines.emo.hallo2.pipeline import Performer
from deployments.engines.emo.hallo2.speech import SpeechNet
from deployments.engines.emo.hallo2.vae import Vae
from deployments.engines.emo.hallo2.weights import Parts
from kernels.latent_decode import accelerate

KIND = torch.bfloat16


def built(config: ProfileConfig, device: str, kind: torch.dtype = KIND) -> Parts:
    """All networks with the weights that torch begins with."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device(device):
            nets = Hallo2(config.net), Vae(config.vae), SpeechNet(config.speech)
    finally:
        torch.set_default_dtype(before)
    return Parts(*(net.eval().requires_grad_(False) for net in nets))


def nobody(sample: SampleConfig, config: ProfileConfig) -> Sitter:
    """A portrait of noise."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (sample.side, sample.side, 3), np.uint8)
    region = np.zeros((sample.side, sample.side), np.float32)
    region[sample.side // 4 : -sample.side // 4, sample.side // 4 : -sample.side // 4] = 1
    return Sitter(picture, region, rng.random((3, 64, 64), np.float32), rng.standard_normal(config.net.face).astype(np.float32))


def heard(config: ProfileConfig, sample: SampleConfig) -> torch.Tensor:
    """Features of a window."""
    return torch.zeros(sample.window, config.net.audio_frames, config.net.audio_layers, config.net.context)


def counted(config: ProfileConfig, sample: SampleConfig) -> dict[str, Any]:
    """What the shapes tell: parameters, bytes, operations of a window."""
    parts = built(config, "meta")
    nets: dict[str, nn.Module] = {**dict(parts.net.named_children()), "vae": parts.vae, "speech": parts.speech}
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    one, two = (operations(parts, config, replace(sample, steps=steps)) for steps in (1, 2))
    tera = (one + (sample.steps - 1) * (two - one)) / 1e12
    total = sum(parameters.values())
    return {
        "parameters": parameters,
        "parameter_gib": total * KIND.itemsize / 2**30,
        "tflop_per_window": tera,
        "tflop_per_frame": tera / sample.window,
    }


def operations(parts: Parts, config: ProfileConfig, sample: SampleConfig) -> int:
    """Multiplications and additions of a window, by networks without memory."""
    performer = Performer(parts, nobody(sample, config), sample)
    with FlopCounterMode(display=False) as counter:
        performer.window(0, heard(config, sample), performer.start())
    return int(counter.get_total_flops())


class Public(Performer):
    """The public pipeline's arithmetic on the same networks."""

    def __init__(self, parts: Parts, sitter: Sitter, config: SampleConfig) -> None:
        self._sitter = sitter
        super().__init__(parts, sitter, config)

    def window(self, number: int, heard: torch.Tensor, carried: torch.Tensor) -> torch.Tensor:
        """Reads the portrait anew."""
        self._told = self._look(self._sitter)
        return super().window(number, heard, carried)


def timed(performer: Performer, sound: torch.Tensor, sample: SampleConfig, windows: int, clock: Callable[[], float]) -> float:
    """Frames per second over some windows, the first one not counted."""
    carried = performer.start()
    began = 0.0
    for number in range(windows + 1):
        carried = performer.window(number, sound, carried)[-sample.before :]
        if number == 0:
            began = clock()
    return windows * sample.window / (clock() - began)


def gpu_clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


def measured(config: ProfileConfig, sample: SampleConfig, windows: int, compiled: bool) -> dict[str, Any]:
    """Figures of a GPU."""
    parts, sitter, sound = built(config, "cuda"), nobody(sample, config), heard(config, sample).cuda()
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    found["public_fps"] = timed(Public(parts, sitter, replace(sample, decoded=1)), sound, sample, windows, gpu_clock)
    torch.cuda.reset_peak_memory_stats()
    parts.vae.decoder = accelerate(parts.vae.decoder)
    if compiled:
        parts.net.denoising_unet.compile()
    found["ours_fps"] = timed(Performer(parts, sitter, sample), sound, sample, windows, gpu_clock)
    return found | {"compiled": compiled, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def speed(config: ProfileConfig, sample: SampleConfig, windows: int, compiled: bool) -> dict[str, Any]:
    """What a GPU measures, or that there is none."""
    if torch.cuda.is_available():
        return {"measured": measured(config, sample, windows, compiled)}
    return {"not_measured": "no GPU here: no frames per second and no peak memory; run this on the machine in question"}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=SampleConfig.steps)
    parser.add_argument("--guidance", type=float, default=SampleConfig.guidance)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="run the denoiser through torch.compile")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config, sample = ProfileConfig(), SampleConfig(steps=args.steps, guidance=args.guidance, decoded=8)
    found: dict[str, Any] = {
        "settings": {"steps": sample.steps, "guidance": sample.guidance, "window": sample.window, "side": sample.side},
        "counted": counted(config, sample),
        **speed(config, sample, args.windows, args.compile),
    }
    text = json.dumps(found, indent=1, sort_keys=True)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
