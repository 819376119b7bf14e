"""Motion of a whole speech: windows one after another, each told the end of the one before; X0 prediction, cosine schedule."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.vasa1.liveportrait.config import SamplingConfig
from deployments.engines.vasa1.liveportrait.transformer import MotionNet

RATE, FRAME = 16000, 640  # samples a second, and of a frame
LEAD, TRAIL = 2, 1  # frames of silence around the speech, from and into which a face moves
OFFSET = 0.008  # of the cosine schedule (Nichol, Dhariwal 2021)


def signal_shares(steps: int) -> NDArray[np.float64]:
    """Share of the signal's variance after 0..steps steps of noise."""
    cosine = np.cos((np.arange(steps + 1) / steps + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2
    noise = np.clip(1 - cosine[1:] / cosine[:-1], 0.0001, 0.999)
    return np.concatenate([[1.0], np.cumprod(1 - noise)])


def noise_of(seed: int, window: int, shape: tuple[int, ...], count: int) -> torch.Tensor:
    """Noise [count, *shape] of a window, the same on every machine; drawn on the CPU."""
    made = np.random.default_rng([seed, window]).standard_normal((count, *shape), np.float32)
    return torch.from_numpy(made)


@torch.inference_mode()
def generate(net: MotionNet, samples: NDArray[np.float32], frames: int, config: SamplingConfig, seed: int) -> NDArray[np.float32]:
    """Latents [frames, D] for speech samples at 16 kHz. All windows start from the same noise, as published.

    The silence before the speech is heard and not filmed. The authors' program films it, so that its lips come 80 ms after the
    sound; in training, sound and motion began together.
    """
    sizes, device = net.config, net.enter.weight.device
    steps = config.steps or sizes.steps
    windows = -(-(LEAD + frames) // sizes.window)
    sound = np.zeros(max(windows * sizes.window * FRAME, (LEAD + TRAIL) * FRAME + len(samples)), np.float32)
    sound[LEAD * FRAME : LEAD * FRAME + len(samples)] = samples
    before: torch.Tensor = net.first_motion
    sound_before: torch.Tensor = net.first_sound
    start = noise_of(seed, 0, (1, sizes.window, sizes.latent), 1)[0].to(device)
    made = []
    for window in range(windows):
        part = sound[window * sizes.window * FRAME :][: sizes.window * FRAME]
        heard = net.hear(torch.from_numpy(part)[None].to(device))
        chance = noise_of(seed, 1 + window, (1, sizes.window, sizes.latent), steps).to(device)
        latents = denoise(net, start, before, torch.cat([sound_before, heard], 1), chance, config)
        before, sound_before = latents[:, -sizes.before :], heard[:, -sizes.before :]
        made.append(latents[0])
    return torch.cat(made)[LEAD : LEAD + frames].float().cpu().numpy()


def denoise(
    net: MotionNet, noisy: torch.Tensor, before: torch.Tensor, sound: torch.Tensor, chance: torch.Tensor, config: SamplingConfig
) -> torch.Tensor:
    """Latents [1, window, D] from noise; `sound` [1, T, C]; `chance` [steps, 1, window, D]: noise of the steps.

    All steps of the schedule: the ancestral sampler. Fewer: DDIM, which uses no chance.
    """
    sizes = net.config
    silent = torch.cat([sound[:, : sizes.before], net.no_sound.expand(1, sizes.window, -1)], 1)
    heard = net.listen(torch.cat([silent, sound]))
    before = before.expand(2, -1, -1)
    shares = signal_shares(sizes.steps)
    walk = np.unique(np.linspace(0, sizes.steps, (config.steps or sizes.steps) + 1).round().astype(int))[::-1]
    for number, (step, after) in enumerate(pairwise(walk)):
        without, clear = net(noisy.expand(2, -1, -1), before, heard, int(step)).chunk(2)
        clear = without + config.guidance * (clear - without)
        now, then = float(shares[step]), float(shares[after])
        if len(walk) == sizes.steps + 1:
            kept = now / then
            noisy = (1 - then) * math.sqrt(kept) / (1 - now) * noisy + (1 - kept) * math.sqrt(then) / (1 - now) * clear
            noisy = noisy + math.sqrt((1 - then) / (1 - now) * (1 - kept)) * chance[number]
        else:
            noise = (noisy - math.sqrt(now) * clear) / math.sqrt(1 - now)
            noisy = math.sqrt(then) * clear + math.sqrt(1 - then) * noise
    return noisy
