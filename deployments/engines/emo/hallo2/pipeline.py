"""Windows of frames from a portrait and what is heard: reference features once, motion frames carried, DDIM, decode.

    portrait ─ encode ─ reference net ────────────── features ──┐
    last 2 frames of the window before ─ encode ─ reference net ┤
    speech ─ wav2vec ─ 5 frames ─ 32 tokens ────────────────────┤
    noise of the window ────────────────────────────────── denoiser x steps ─ decode ─ 16 frames

A window depends on its number, on what is heard in it and on the frames that are carried to it: whoever has these can go on
anywhere. Its noise and what its motion frames lose are drawn from its number, not in the order of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from deployments.contracts import Progress, no_progress
from deployments.engines.emo.hallo2.attention import Context
from deployments.engines.emo.hallo2.config import SampleConfig
from deployments.engines.emo.hallo2.face import Sitter, levels_of
from deployments.engines.emo.hallo2.schedule import steps_of
from deployments.engines.emo.hallo2.weights import Parts

NOISE, DROPS = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class Told:
    """What all windows of a portrait share. H = 2 halves with guidance (without, with all conditions), else 1."""

    face: torch.Tensor  # [H, 4, D] tokens
    features: dict[str, torch.Tensor]  # [H, L, C] of the portrait
    located: torch.Tensor  # [H, C, h, w]
    masks: list[torch.Tensor]  # per level [3, L]
    portrait: torch.Tensor  # [3, S, S] -1..1
    region: torch.Tensor  # [S, S] bool


class Performer:
    """Makes one portrait speak."""

    def __init__(self, parts: Parts, sitter: Sitter, config: SampleConfig) -> None:
        self._net, self._vae, self._config = parts.net, parts.vae, config
        weight = parts.net.denoising_unet.conv_in.weight
        self._device, self._kind = weight.device, weight.dtype
        self._latent = (weight.shape[1], *[config.side // parts.vae.config.factor] * 2)
        self._guided = config.guidance > 1
        self._told = self._look(sitter)

    def frames(self, heard: torch.Tensor, wanted: int, progress: Progress = no_progress) -> Iterator[torch.Tensor]:
        """Pictures [3, S, S], 0..1, of the first `wanted` frames; `heard` [T, 5, layers, D] of whole windows."""
        size, carried = self._config.window, self.start()
        for number in range(-(-wanted // size)):
            pictures = self.window(number, heard[number * size : (number + 1) * size], carried)
            carried = pictures[-self._config.before :]
            progress("generate", (number + 1) * size, len(heard))
            yield from pictures[: wanted - number * size]

    def start(self) -> torch.Tensor:
        """Frames [2, 3, S, S], 0..1, that are carried to the first window: the portrait."""
        return (self._told.portrait.float() / 2 + 0.5).expand(self._config.before, -1, -1, -1)

    @torch.inference_mode()
    def window(self, number: int, heard: torch.Tensor, carried: torch.Tensor) -> torch.Tensor:
        """Pictures [16, 3, S, S], 0..1, of window `number`; `carried` [2, 3, S, S], 0..1, are the frames before it."""
        config = self._config
        seen, located = self._context(number, heard, carried), self._told.located.repeat_interleave(config.window, 0)
        x = self._noise(number)
        for step in steps_of(config.steps):
            halves = x.to(self._kind).repeat(len(self._told.face), 1, 1, 1)
            time = torch.full((len(halves),), step.time, device=x.device)
            velocity = self._net.denoising_unet(halves, time, seen, located)[0].float()
            if self._guided:
                without, with_all = velocity.chunk(2)
                velocity = without + config.guidance * (with_all - without)
            x = step.next(x, velocity)
        return self._decode(x)

    @torch.inference_mode()
    def _look(self, sitter: Sitter) -> Told:
        portrait = (torch.from_numpy(sitter.picture).to(self._device).permute(2, 0, 1) / 127.5 - 1).to(self._kind)
        embedding = torch.from_numpy(sitter.embedding)[None].to(self._device, self._kind)
        face = self._net.imageproj(torch.cat([0 * embedding, embedding]) if self._guided else embedding)
        region = torch.from_numpy(sitter.region).to(self._device, self._kind)
        located = self._net.face_locator(region.expand(1, 3, -1, -1))
        masks = levels_of(sitter.parts, self._latent[1], len(self._net.denoising_unet.down_blocks))
        return Told(
            face,
            self._features(self._vae.encode(portrait[None]), face, 0),
            torch.cat([torch.zeros_like(located), located]) if self._guided else located,
            [mask.to(self._device, self._kind) for mask in masks],
            portrait,
            region > 0,
        )

    def _features(self, latents: torch.Tensor, face: torch.Tensor, first: int) -> dict[str, torch.Tensor]:
        """Features [H P, L, C] of P pages, of which the first is page `first` of all.

        The public pipeline tells the pages of both halves the face or none by turns, not half by half.
        """
        halves, pages = len(face), 1 + self._config.before
        turns = [(half * pages + first + page) % halves for half in range(halves) for page in range(len(latents))]
        batch = latents.repeat(halves, 1, 1, 1)
        time = torch.zeros(len(batch), device=batch.device)
        return self._net.reference_unet(batch, time, Context(len(batch), face[turns]))[1]

    def _context(self, number: int, heard: torch.Tensor, carried: torch.Tensor) -> Context:
        """What the denoiser looks at in one window."""
        told, config = self._told, self._config
        halves, count = len(told.face), config.window
        kept = self._moved(number, carried)
        bank = {
            name: torch.cat([part[:, None], kept[name].unflatten(0, (halves, -1))], 1) for name, part in told.features.items()
        }
        speech = self._net.audioproj(heard.to(self._device, self._kind))
        alone = torch.arange(halves, device=speech.device).repeat_interleave(count) == 0
        return Context(
            count,
            told.face.repeat_interleave(count, 0),
            torch.cat([torch.zeros_like(speech), speech]) if self._guided else speech,
            tuple(tuple(part.expand(halves * count, -1) for part in level) for level in told.masks),
            (1.0, config.expression, config.expression),
            bank,
            alone if self._guided else None,
        )

    def _moved(self, number: int, carried: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features of the motion frames, which lose some pixels outside the face."""
        config, region = self._config, self._told.region
        drawn = np.random.default_rng([config.seed, number, DROPS]).random(region.shape) > config.dropped
        stays = torch.from_numpy(drawn).to(region.device) | region
        frames = ((2 * carried.to(region.device) - 1) * stays).to(self._kind)
        return self._features(self._vae.encode(frames), self._told.face, 1)

    def _noise(self, number: int) -> torch.Tensor:
        config = self._config
        drawn = np.random.default_rng([config.seed, number, NOISE]).standard_normal((config.window, *self._latent), np.float32)
        return torch.from_numpy(drawn).to(self._device)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        parts = latents.to(self._kind).split(self._config.decoded)
        return torch.cat([(self._vae.decode(part).float() / 2 + 0.5).clamp(0, 1) for part in parts])
