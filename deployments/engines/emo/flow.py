"""The flow from the training-free picture to the generated one, in windows of frames that fit together.

    x at start = (1 - s) E(training-free) + s noise          s = 0.4
    x = x + (clean(x, t) - x) / (steps left)                 a straight way: rectified flow (Liu et al. 2022)

Windows lie on the absolute grid of the job's rows; each is sampled by itself, and where two of them predict a frame their
predictions are fused. Noise belongs to the clip, and a small part of it to the absolute frame. So a frame does not
depend on the chunk that it is rendered in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.emo.config import DenoiserConfig, FlowConfig
from deployments.engines.emo.network import Denoiser, Shots

Take = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]
"""Rows -> encoded training-free pictures [n, C, h, w] and planes [n, 8, h, w]."""


@dataclass(frozen=True)
class Rows:
    """What is known of all rows of a job or a template; the pictures are taken when they are needed."""

    take: Take
    told: torch.Tensor  # [T, 16]
    heard: torch.Tensor | None  # [T, F]
    run: NDArray[np.int64]  # [T]
    apart: torch.Tensor  # [T, R] bool

    def shots(self, firsts: Sequence[int], config: DenoiserConfig, hears: torch.Tensor) -> Shots:
        """Windows that begin at rows `firsts`; rows beyond the ends repeat and are not looked at."""
        inside = np.asarray(firsts)[:, None] + np.arange(config.window)
        before = np.asarray(firsts)[:, None] + np.arange(-config.before, 0)
        all_rows = np.concatenate([before, inside], 1)
        kept = np.clip(all_rows, 0, len(self.run) - 1)
        start, planes = self.take(kept.reshape(-1).tolist())
        start, planes = (x.unflatten(0, kept.shape) for x in (start, planes))
        here = kept[:, config.before :]
        around = np.clip(here[..., None] + np.arange(-config.around, config.around + 1), 0, len(self.run) - 1)
        sound = torch.zeros(len(self.run), config.heard, device=self.told.device) if self.heard is None else self.heard
        heard = sound[torch.from_numpy(around)]
        index = torch.from_numpy(here)
        return Shots(
            start[:, config.before :], planes[:, config.before :], self.told[index], heard,
            hears if self.heard is not None else torch.zeros_like(hears), start[:, : config.before],
            torch.from_numpy(self._together(all_rows, kept, config.before)).to(self.told.device), self.apart[index],
        )  # fmt: skip

    def _together(self, rows: NDArray[np.int64], kept: NDArray[np.int64], before: int) -> NDArray[np.bool_]:
        real, run = rows == kept, self.run[kept]
        seen = (run[:, before:, None] == run[:, None]) & real[:, None]
        itself = np.eye(rows.shape[1], dtype=bool)[before:]
        return np.asarray(seen | itself)


def sample(
    model: Denoiser,
    shots: Shots,
    noise: torch.Tensor,
    start: float,
    steps: int,
    guidance: float = 0.0,
    pages: torch.Tensor | None = None,
) -> torch.Tensor:
    """Clean latents [B, W, C, h, w] of windows; `noise` like them, `start` its share at the beginning.

    `pages` are `model.pages()`, given where they are known already.
    """
    x = (1 - start) * shots.start + start * noise
    ways = [shots, replace(shots, hears=torch.zeros_like(shots.hears))][: 1 if guidance == 0 else 2]
    seen = [model.look(way, pages) for way in ways]
    for done in range(steps):
        t = torch.full((len(x),), start * (1 - done / steps), device=x.device)
        clean = model(x, t, shots, seen[0])
        if guidance != 0:
            clean = clean + guidance * (clean - model(x, t, ways[1], seen[1]))
        x = x + (clean - x) / (steps - done)
    return x


def noise_of(frames: Sequence[int], shape: tuple[int, ...], seed: int, config: FlowConfig) -> torch.Tensor:
    """Noise [n, C, h, w] of absolute frames: the clip's, and a little of the frame's own."""
    still = np.random.default_rng([seed]).standard_normal(shape, np.float32)
    own = np.stack([np.random.default_rng([seed, frame]).standard_normal(shape, np.float32) for frame in frames])
    return torch.from_numpy(mix_noise(still, own, config.shimmer))


def mix_noise(still: NDArray[np.float32], own: NDArray[np.float32], shimmer: float) -> NDArray[np.float32]:
    """Noise of unit spread, a share `shimmer` of whose power changes from frame to frame."""
    return np.asarray(np.sqrt(1 - shimmer) * still + np.sqrt(shimmer) * own, np.float32)


def windows_over(row: int, config: DenoiserConfig) -> list[int]:
    """First rows of the windows that predict a row."""
    hop = config.window - config.overlap
    last = row // hop
    return [
        k * hop for k in range(max(0, last - (config.window - 1) // hop), last + 1) if k * hop <= row < k * hop + config.window
    ]


def window_weights(config: DenoiserConfig) -> NDArray[np.float32]:
    """Weight [W] of a window's predictions: full inside, falling where the next one takes over."""
    place = np.arange(config.window)
    return np.minimum(np.minimum(place + 1, config.window - place), config.overlap + 1).astype(np.float32)
