"""Teach the auto-encoder and the denoiser one person, and find out on unseen frames whether they are of use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deployments.contracts import Progress
from deployments.engines.emo.autoencoder import FACTOR, Autoencoder
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.flow import noise_of, sample
from deployments.engines.emo.lessons import Encoded, Lessons
from deployments.engines.emo.memory import save_memory
from deployments.engines.emo.network import Denoiser, Shots
from deployments.engines.emo.networks import CODE, DENOISER, device, fill
from deployments.engines.emo.scene import detail
from deployments.engines.emo.training import Course, Training

SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
JUDGED = 24  # pictures that judge the auto-encoder


@dataclass(frozen=True)
class Outcome:
    """What learning was good for."""

    remembered: float  # share of what the memory adds to the training-free picture
    share: float  # of what the networks add to that; 0: they are not used
    facts: dict[str, Any]


def learn(lessons: Lessons, out: Path, config: EmoConfig, progress: Progress) -> Outcome:
    """Train both networks in `out`, going on with what was interrupted there."""
    torch.set_num_threads(1)
    here = device()
    code, code_training = learn_code(lessons, out, config, progress)
    encoded = lessons.encoded(code, here)
    pictures = torch.from_numpy(lessons.references()).to(here)
    judge = Judge(lessons, encoded, code, config)
    remembered, plain = judge.remember(recalled(lessons, config))
    save_memory(lessons.memory(np.arange(len(lessons.rows))), out)  # of all frames, now that it is judged
    denoiser, training = learn_denoiser(lessons, encoded, code.encode(pictures).detach(), judge, out, config, progress)
    share, before, after = judge.share(denoiser)
    for done in (code_training, training):
        done.clean()
    facts = {
        "psnr_training_free": plain, "psnr_remembered": before, "psnr_generated": after,
        "autoencoder_checks": code_training.checks, "denoiser_checks": training.checks,
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in ((CODE, code), (DENOISER, denoiser))},
    }  # fmt: skip
    return Outcome(remembered, config.fit.faith * share if after - before >= config.fit.gain else 0.0, facts)


def recalled(lessons: Lessons, config: EmoConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What a memory of the learned frames adds to those that were not learned from [n, 3, H, W]."""
    memory, scene, out = lessons.memory(lessons.train), lessons.scene, []
    for index in lessons.judged.tolist():
        heard = None if lessons.heard is None else lessons.heard[index]
        texture = memory.texture(lessons.told[index], heard, 1.0, config.memory)
        out.append(memory.added(scene, lessons.start(index), texture, config.window).transpose(2, 0, 1))
    return np.stack(out)


def learn_code(lessons: Lessons, out: Path, config: EmoConfig, progress: Progress) -> tuple[Autoencoder, Training]:
    """The auto-encoder, its latents standardised."""
    fit, here = config.fit, device()
    torch.manual_seed(fit.seed)
    code = Autoencoder(config.latent).to(here)
    truths, starts, weights = lessons.pictures.truths, lessons.pictures.starts, lessons.pictures.alpha
    rows = lessons.judged[np.unique(np.linspace(0, len(lessons.judged) - 1, JUDGED).astype(int))]

    def batch(bank: np.ndarray[Any, np.dtype[np.uint8]], chosen: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor:
        return torch.from_numpy(bank[chosen]).to(here).float() / 255

    def loss(rng: np.random.Generator) -> torch.Tensor:
        source = truths if rng.random() < 0.6 else starts
        chosen = rng.choice(lessons.train, fit.code_batch)
        pictures = batch(source[int(rng.integers(len(source)))], chosen)
        latent = code.encode(pictures)
        noisy = latent + config.latent.noise * torch.randn_like(latent)
        weight = torch.from_numpy(weights[chosen])[:, None].to(here)
        size = 0.01 * (latent**2).mean()  # holds latents near unit size
        return picture_loss(code.decode(noisy), pictures, weight) + size

    def score(model: nn.Module) -> float:
        assert isinstance(model, Autoencoder)
        pictures = batch(truths[0], rows)
        weight = torch.from_numpy(weights[rows])[:, None].to(here)
        return shown_psnr(model.decode(model.encode(pictures)), pictures, weight)

    course = Course(CODE, fit.code_steps, fit.code_rate, 0.0, fit.average, 2 * fit.check_every, 99, fit.seed)
    training = Training(code, course, out)
    training.run(loss, score, progress)
    fill(code, out / f"{CODE}.safetensors")
    code.eval()
    code.standardise(batch(truths[0], lessons.train[:: max(1, len(lessons.train) // 128)]))
    training.keep(code)
    fill(code, out / f"{CODE}.safetensors")
    return code, training


class Judge:
    """Pictures of frames that were never learned from, generated in windows."""

    def __init__(self, lessons: Lessons, encoded: Encoded, code: Autoencoder, config: EmoConfig) -> None:
        self._code, self._config, self._here = code, config, device()
        judged, window = lessons.judged, config.denoiser.window
        self._window = lessons.scene.window
        self._firsts = [int(row) for row in judged[: len(judged) - window + 1 : window]]
        rows = (np.array(self._firsts)[:, None] + np.arange(window)).reshape(-1)
        frames = lessons.scene.bank.frames[lessons.rows[rows]].tolist()
        hears = torch.ones(len(self._firsts), device=self._here)
        self._shots = encoded.rows[0].shots(self._firsts, config.denoiser, hears)
        noise = noise_of(frames, tuple(encoded.truths.shape[2:]), config.fit.seed, config.flow)
        self._noise = noise.to(self._here).unflatten(0, (len(self._firsts), window))
        self._rows = rows - judged[0]
        self._start, self._truth = (torch.from_numpy(b[0][rows]).float().to(self._here) / 255 for b in _both(lessons))
        self._alpha = torch.from_numpy(lessons.pictures.alpha[rows])[:, None].to(self._here)
        with torch.no_grad():
            self._plain = code.decode(self._shots.start.flatten(0, 1))

    def remember(self, added: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[float, float]:
        """From now on start from pictures with what the memory adds [n, 3, H, W]; the share of it, and PSNR without."""
        remembered = torch.from_numpy(added[self._rows]).to(self._here)
        best, before, after = self._best(remembered)
        fit, most = self._config.fit, self._config.memory.most
        share = min(most, fit.faith * best) if after - before >= fit.gain else 0.0
        self._start = self._start + share * remembered
        return share, before

    @torch.no_grad()
    def added(self, model: nn.Module) -> torch.Tensor:
        """What the networks add to the training-free pictures [n, 3, H, W]."""
        assert isinstance(model, Denoiser)
        flow = self._config.flow
        clean = sample(model, self._shots, self._noise, flow.start, flow.steps)
        added = (self._code.decode(clean.flatten(0, 1)) - self._plain).permute(0, 2, 3, 1).cpu().numpy()
        fine = np.stack([detail(picture, self._window, self._config.window) for picture in added])
        return torch.from_numpy(fine).permute(0, 3, 1, 2).to(self._here)

    def score(self, model: nn.Module) -> float:
        """PSNR in dB with the best share."""
        return self.share(model)[2]

    def share(self, model: nn.Module) -> tuple[float, float, float]:
        """The share of what is added that makes unseen frames best, and PSNR without and with it."""
        return self._best(self.added(model))

    def _best(self, added: torch.Tensor) -> tuple[float, float, float]:
        found = [shown_psnr(self._start + share * added, self._truth, self._alpha) for share in SHARES]
        best = int(np.argmax(found))
        return SHARES[best], round(found[0], 3), round(found[best], 3)


def learn_denoiser(
    lessons: Lessons, encoded: Encoded, references: torch.Tensor, judge: Judge, out: Path, config: EmoConfig, progress: Progress
) -> tuple[Denoiser, Training]:
    """The denoiser with the weights that were best on unseen frames."""
    fit, flow, here = config.fit, config.flow, device()
    torch.manual_seed(fit.seed + 1)
    window = lessons.scene.window
    model = Denoiser(config.latent, config.denoiser, (window.height // FACTOR, window.width // FACTOR)).to(here)
    model.references.copy_(references)
    starts = first_rows(lessons, config.denoiser.window)
    shape = tuple(encoded.truths.shape[2:])

    def loss(rng: np.random.Generator) -> torch.Tensor:
        way, firsts = int(rng.integers(len(encoded.rows))), rng.choice(starts, fit.windows)
        hears = torch.from_numpy((rng.random(fit.windows) >= fit.silence).astype(np.float32)).to(here)
        shots = doubted(encoded.rows[way].shots(firsts.tolist(), config.denoiser, hears), fit.doubt)
        rows = firsts[:, None] + np.arange(config.denoiser.window)
        frames = rng.integers(1 << 30, size=rows.size).tolist()
        noise = noise_of(frames, shape, int(rng.integers(1 << 30)), flow).to(here).unflatten(0, rows.shape)
        t = np.where(rng.random(fit.windows) < 0.5, flow.start, flow.start * rng.uniform(0.1, 1, fit.windows))
        share = torch.from_numpy((t / flow.start).astype(np.float32)).to(here).view(-1, 1, 1, 1, 1)
        truth = encoded.truths[way][torch.from_numpy(rows)]
        noised = (1 - flow.start) * shots.start + flow.start * noise
        x, weight = share * noised + (1 - share) * truth, encoded.weight[torch.from_numpy(rows)]
        by = tuple((2 * rng.integers(-fit.shift, fit.shift + 1, 2)).tolist())
        x, truth, weight = (torch.roll(part, by, (-2, -1)) for part in (x, truth, weight))
        clean = model(x, torch.from_numpy(t.astype(np.float32)).to(here), moved(shots, by))
        return torch.as_tensor(((clean - truth) ** 2 * weight).sum() / (weight.sum() * shape[0]))

    course = Course(DENOISER, fit.steps, fit.rate, fit.decay, fit.average, fit.check_every, fit.patience, fit.seed)
    training = Training(model, course, out)
    training.run(loss, judge.score, progress)
    fill(model, out / f"{DENOISER}.safetensors")
    return model.eval(), training


def doubted(shots: Shots, doubt: float) -> Shots:
    """The shots with noise on what is told and heard."""
    told, heard = (part + doubt * torch.randn_like(part) for part in (shots.told, shots.heard))
    return replace(shots, told=told, heard=heard)


def moved(shots: Shots, by: tuple[int, ...]) -> Shots:
    """The shots with their pictures rolled by places (down, right)."""
    start, planes, before = (torch.roll(part, by, (-2, -1)) for part in (shots.start, shots.planes, shots.before))
    return replace(shots, start=start, planes=planes, before=before)


def first_rows(lessons: Lessons, window: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows at which a window of learned frames that follow one another begins; all rows where there is none."""
    train = lessons.train[: max(1, len(lessons.train) - window + 1)]
    whole = train[lessons.run[train] == lessons.run[np.minimum(train + window - 1, len(lessons.run) - 1)]]
    return whole if len(whole) else train


def picture_loss(picture: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted L1, L2 and the gradient's L1; pictures [B, 3, H, W], weight [B, 1, H, W]."""
    error = (picture - truth) * (0.2 + 0.8 * weight)
    slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return torch.as_tensor(error.abs().mean() + 4 * (error**2).mean().sqrt() + 0.5 * slope)


def shown_psnr(picture: torch.Tensor, truth: torch.Tensor, alpha: torch.Tensor) -> float:
    """PSNR of pictures [n, 3, H, W] laid over the truth by alpha [n, 1, H, W], where they show; mean over the frames."""
    square = (((picture.clamp(0, 1) - truth) * alpha) ** 2).sum((1, 2, 3))
    count = 3 * (alpha > 0.02).sum((1, 2, 3))
    return float((-10 * torch.log10((square / count.clamp_min(1)).clamp_min(1e-10))).mean())


def _both(lessons: Lessons) -> tuple[Any, Any]:
    return lessons.pictures.starts, lessons.pictures.truths
