"""Sampling: windows one after another, each told what came before, noise keyed by the absolute frame."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.vasa1.latents import LATENT, LID, LIPS
from deployments.engines.vasa1.transformer import CONTROL_SIZES, CONTROLS, Conditions, MotionTransformer, signal_share

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Guidance:
    """How strongly conditions are followed, and how much chance there is."""

    audio: float = 0.5  # lambda_A of the paper
    controls: float = 1.0  # lambda_g of the paper, for every control that is given
    steps: int = 8
    temperature: float = 1.0  # size of the noise: 0 gives the most likely motion, 1 a typical one
    seed: int = 0
    face: float | None = None  # size of the noise of head, brows and gaze; None: as the lips'
    lids: float | None = None  # and of the lids, whose blinks are rare
    together: bool = False  # leave out all controls at once instead of each by itself: cheaper, less exact

    def temperatures(self) -> Floats:
        """Size of the noise of each latent [18]."""
        sizes = np.full(LATENT, self.temperature, np.float32)
        if self.face is not None:
            sizes[LIPS.stop :] = self.face
        if self.lids is not None:
            sizes[LID] = self.lids
        return sizes


def noise_of(seed: int, start: int, stop: int) -> Floats:
    """Noise [stop - start, 18] of absolute frames: the same whichever window asks for it."""
    rows = [np.random.default_rng([seed, frame]).standard_normal(LATENT) for frame in range(start, stop)]
    return np.asarray(rows, np.float32)


@torch.inference_mode()
def sample(network: MotionTransformer, audio: Floats, controls: dict[str, Floats], guidance: Guidance) -> Floats:
    """Latents [T, 18] for audio features [T, A]; `controls` holds a row [T, n] for each condition that is given.

    A window begins `overlap` frames before the last one ended; the two are mixed there, so that no frame jumps.
    """
    config = network.config
    total, hop = len(audio), config.window - config.overlap
    edge = np.concatenate([np.repeat(audio[:1], config.before, 0), audio, np.repeat(audio[-1:], config.window, 0)])
    out = np.zeros((total + config.window, LATENT), np.float32)
    for start in range(0, max(1, total - config.overlap), hop):
        told = _told(network, edge, controls, out, start, total)
        noise = guidance.temperatures() * noise_of(guidance.seed, start, start + config.window)
        made = denoise(network, torch.from_numpy(noise)[None], told, guidance)[0].numpy()
        fade = np.ones((config.window, 1), np.float32)
        if start > 0:
            fade[: config.overlap, 0] = (np.arange(config.overlap) + 1) / (config.overlap + 1)
        part = slice(start, start + config.window)
        out[part] = fade * made + (1 - fade) * out[part]
    return out[:total]


def _told(
    network: MotionTransformer, edge: Floats, controls: dict[str, Floats], out: Floats, start: int, total: int
) -> Conditions:
    config = network.config
    past = np.zeros((config.before, LATENT), np.float32)
    if start >= config.before:
        past = out[start - config.before : start]
    middle = min(start + config.window // 2, total - 1)
    values = {n: controls[n][middle] if n in controls else np.zeros(CONTROL_SIZES[n], np.float32) for n in CONTROLS}
    keep = {"audio": 1.0, "before": float(start >= config.before)} | {n: float(n in controls) for n in CONTROLS}
    return Conditions(
        audio=torch.from_numpy(np.ascontiguousarray(edge[start : start + config.before + config.window]))[None],
        before=torch.from_numpy(np.ascontiguousarray(past))[None],
        controls={n: torch.from_numpy(np.asarray(v, np.float32))[None] for n, v in values.items()},
        keep={n: torch.tensor([v]) for n, v in keep.items()},
    )


def denoise(network: MotionTransformer, noise: torch.Tensor, told: Conditions, guidance: Guidance) -> torch.Tensor:
    """DDIM from noise [1, W, D]: X0 is predicted at every step, and the rest of the noise put back."""
    x = noise
    times = torch.linspace(1, 0, guidance.steps + 1)
    for now, then in pairwise(times):
        clean = guided(network, x, now, told, guidance)
        share, next_share = signal_share(now), signal_share(then)
        rest = (x - share.sqrt() * clean) / (1 - share).sqrt().clamp_min(1e-4)
        x = next_share.sqrt() * clean + (1 - next_share).sqrt() * rest if then > 0 else clean
    return x


def guided(network: MotionTransformer, x: torch.Tensor, time: torch.Tensor, told: Conditions, guidance: Guidance) -> torch.Tensor:
    """(1 + sum of lambdas) H(all conditions) - sum of lambda_c H(without c), in one batch."""
    left_out = _left_out(told, guidance)
    rows = 1 + len(left_out)
    keep = {n: value.repeat(rows) for n, value in told.keep.items()}
    for row, (names, _) in enumerate(left_out, start=1):
        for name in names:
            keep[name][row] = 0.0
    many = Conditions(
        told.audio.expand(rows, -1, -1),
        told.before.expand(rows, -1, -1),
        {n: v.expand(rows, -1) for n, v in told.controls.items()},
        keep,
    )
    made = network(x.expand(rows, -1, -1), time.expand(rows), many)
    out = (1 + sum(strength for _, strength in left_out)) * made[:1]
    for row, (_, strength) in enumerate(left_out, start=1):
        out = out - strength * made[row : row + 1]
    return out


def _left_out(told: Conditions, guidance: Guidance) -> list[tuple[list[str], float]]:
    """Conditions that are left out together, and how strongly their difference counts."""
    given = [name for name in CONTROLS if float(told.keep[name][0]) > 0]
    groups = [(["audio"], guidance.audio)] if float(told.keep["audio"][0]) > 0 else []
    groups += [(given, guidance.controls)] if guidance.together and given else [([name], guidance.controls) for name in given]
    return [group for group in groups if group[1] > 0]
