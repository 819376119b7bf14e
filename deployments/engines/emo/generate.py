"""The networks at work on a job: rows in, what is to be added to their training-free pictures out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from deployments.engines.emo.autoencoder import FACTOR
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.flow import Rows, noise_of, sample, window_weights, windows_over
from deployments.engines.emo.motion import HEARD, told_wishes
from deployments.engines.emo.networks import load_networks
from deployments.engines.emo.recall import Starts, remember
from deployments.engines.emo.scene import detail, rim, runs_of, told_of
from deployments.retrieval.plan import Plan, PlanKey
from deployments.retrieval.window import Floats

KEPT = 64  # rows whose encoded start is remembered: windows and their motion frames overlap


class Generator:
    """Generates windows when a row of them is asked for, and remembers the last ones."""

    def __init__(self, plan: Plan, key: PlanKey, pictures: Starts, config: EmoConfig) -> None:
        window = pictures.scene.window
        self._config, self._pictures = config, pictures
        self._nets = load_networks(key.avatar.path, config, (window.height, window.width))
        self._wishes = told_wishes(key.motion)
        self._fade = rim(window)[..., None]
        self._frames = np.flatnonzero(key.track.usable)
        self._starts: OrderedDict[int, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._windows: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._pages: torch.Tensor | None = None
        self._latent = (config.latent.channels, window.height // FACTOR, window.width // FACTOR)
        here, count = self._nets.device, len(self._frames)
        heard = key.motion.extra.get(HEARD)
        self._rows = Rows(
            self._take,
            torch.from_numpy(told_of(plan.bank, plan.wanted, plan.faces.angles(), self._frames)).to(here),
            None if heard is None else torch.from_numpy(np.ascontiguousarray(heard[self._frames])).to(here),
            runs_of(self._frames, key.track),
            torch.ones(count, config.denoiser.references, dtype=torch.bool, device=here),
        )

    @torch.inference_mode()
    def added(self, row: int) -> Floats:
        """What is to be added [H, W, 3], -255..255, to the training-free picture of a row."""
        start, _ = self._start(row)
        pair = self._nets.code.decode(torch.stack([self._clean(row), start]))
        difference = (pair[0] - pair[1]).permute(1, 2, 0).cpu().numpy()
        return np.asarray(255 * self._fade * detail(difference, self._pictures.scene.window, self._config.window), np.float32)

    def _clean(self, row: int) -> torch.Tensor:
        """Latent of a row: the windows that predict it, fused."""
        config = self._config.denoiser
        weights = window_weights(config)
        total = torch.zeros(self._latent, device=self._nets.device)
        mass = 0.0
        for first in windows_over(row, config):
            weight = float(weights[row - first])
            total += weight * self._window(first)[row - first]
            mass += weight
        return total / mass

    def _window(self, first: int) -> torch.Tensor:
        """Latents [W, C, h, w] of the window that begins at row `first`."""
        if first not in self._windows:
            config, wishes = self._config, self._wishes
            shots = self._rows.shots([first], config.denoiser, torch.ones(1, device=self._nets.device))
            rows = np.clip(first + np.arange(config.denoiser.window), 0, len(self._frames) - 1)
            noise = noise_of(self._frames[rows].tolist(), self._latent, wishes.seed, config.flow).to(self._nets.device)
            model, flow = self._nets.denoiser, config.flow
            self._pages = model.pages() if self._pages is None else self._pages
            found = sample(model, shots, noise[None], flow.start, wishes.steps, wishes.guidance, self._pages)
            remember(self._windows, first, found[0], 3)
        return self._windows[first]

    def _take(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [self._start(row) for row in rows]
        return torch.stack([start for start, _ in pairs]), torch.stack([planes for _, planes in pairs])

    def _start(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded training-free picture [C, h, w] and planes [8, h, w] of a row. One at a time: so no row depends on others."""
        if row not in self._starts:
            start, here = self._pictures.start(row), self._nets.device
            latent = self._nets.code.encode(torch.from_numpy(start.picture)[None].to(here))[0].contiguous()
            remember(self._starts, row, (latent, torch.from_numpy(start.planes).to(here)), KEPT)
        return self._starts[row]
