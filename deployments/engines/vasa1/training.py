"""The decoder's training loop: every step is keyed by its number, so an interrupted fit ends as an uninterrupted one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from deployments.contracts import Progress
from deployments.engines.vasa1.config import Vasa1Config
from deployments.engines.vasa1.lessons import Lesson, Lessons
from deployments.engines.vasa1.losses import picture_loss, shown_psnr, textured
from deployments.engines.vasa1.network import Decoder, mixed
from deployments.face.composite import TEXTURE_SIGMA
from deployments.records import write_atomic, write_json
from deployments.retrieval.window import Floats

WEIGHTS, STATE, CHECKS = "decoder.safetensors", "training.safetensors", "training.json"
WARM_UP = 30
CLIP_NORM = 1.0
LIP_WEIGHT = 3.0
LOWEST_RATE = 0.02  # share of the rate at the end
CHECKED = 24  # held-out frames looked at


class Batch:
    """Lessons as tensors."""

    def __init__(self, lessons: list[Lesson]) -> None:
        def stack(arrays: list[Floats]) -> torch.Tensor:
            return torch.from_numpy(np.stack(arrays))

        self.planes = stack([lesson.sample.planes() for lesson in lessons])
        self.pictures = stack([lesson.sample.pictures for lesson in lessons])
        self.weights = stack([lesson.sample.weights for lesson in lessons])
        self.truth = stack([lesson.truth for lesson in lessons])
        self.condition = stack([lesson.condition for lesson in lessons])
        self.alpha = stack([lesson.sample.alpha for lesson in lessons])[:, None]
        lips = self.planes[:, -3:-2]
        self.weight = self.alpha * (1 + LIP_WEIGHT * lips)
        self.weight = self.weight / self.weight.mean().clamp_min(1e-3)


class Training:
    """Learns one person's decoder in `out`."""

    def __init__(self, lessons: Lessons, config: Vasa1Config, out: Path) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(config.fit.seed)
        self._lessons, self._config, self._out = lessons, config, out
        self._model = Decoder(config.decoder)
        self._average = copy.deepcopy(self._model).eval()
        fit = config.fit
        self._optimiser = torch.optim.AdamW(self._model.parameters(), lr=fit.rate, weight_decay=0.01)
        self._sigma = TEXTURE_SIGMA / lessons.sources.window.shrink
        self.step, self._loss = 0, 0.0
        self.checks: list[dict[str, float]] = []

    def run(self, progress: Progress) -> bool:
        """Train to the end or until held-out frames get no better; True if the decoder is of use."""
        fit = self._config.fit
        self._resume()
        while self.step < fit.steps and not self._stale():
            if self.step % fit.check_every == 0:
                self._check()
            self._step()
            progress("learn", self.step, fit.steps)
        if not self._stale() and (not self.checks or self.checks[-1]["step"] < self.step):
            self._check()
        progress("learn", fit.steps, fit.steps)
        return max(check["psnr"] for check in self.checks) >= self.checks[0]["psnr"] + fit.gain

    def clean(self) -> None:
        """Drop what only an interrupted fit needs."""
        (self._out / STATE).unlink(missing_ok=True)

    def _step(self) -> None:
        fit = self._config.fit
        rng = np.random.default_rng([fit.seed, self.step])
        torch.manual_seed(fit.seed * 1_000_003 + self.step)
        rows = rng.choice(self._lessons.train, fit.batch)
        batch = Batch([self._lessons.lesson(int(row), int(rng.integers(len(fit.exclude)))) for row in rows])
        self._model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = fit.rate * rate_share(self.step, fit.steps)
        loss = picture_loss(self._picture(self._model, batch), batch.truth, batch.weight)
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
        self._optimiser.step()
        self._follow()
        self.step += 1
        self._loss = float(loss.detach())

    def _picture(self, model: Decoder | None, batch: Batch) -> torch.Tensor:
        """The window's picture [B, 3, H, W] as the compositor makes it; without a model: of the given mix."""
        logits, residual = torch.zeros_like(batch.pictures[:, :, 0]), torch.zeros(())
        if model is not None:
            logits, residual = model(batch.planes.to(memory_format=torch.channels_last), batch.condition)
        picture, _ = mixed(batch.pictures, batch.weights, logits)
        return textured(picture, batch.pictures[:, 0], self._sigma, self._config.texture_gain) + residual

    @torch.no_grad()
    def _follow(self) -> None:
        """The average follows the weights; quicker at the start, where they move far."""
        pace = min(self._config.fit.average, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self._average.parameters(), self._model.parameters(), strict=True):
            mean.lerp_(now, 1 - pace)

    def _held_out_psnr(self, model: Decoder | None) -> float:
        rows = self._lessons.held_out
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, CHECKED).astype(int))]
        batches = (Batch([self._lessons.lesson(int(row), 0)]) for row in rows)
        values = [shown_psnr(self._picture(model, batch), batch.truth, batch.alpha) for batch in batches]
        return round(float(np.mean(values)), 3)

    @torch.no_grad()
    def _check(self) -> None:
        """Judge the averaged weights on held-out frames; the best are kept."""
        psnr = self._held_out_psnr(self._average)
        if not self.checks or psnr > max(check["psnr"] for check in self.checks):
            state = {name: value.half().contiguous() for name, value in self._average.state_dict().items()}
            write_atomic(self._out / WEIGHTS, save(state))
        self.checks.append({"step": self.step, "psnr": psnr, "loss": round(self._loss, 4)})
        self._save()

    def _stale(self) -> bool:
        """True where the last checks were no better than one before them."""
        psnr = [check["psnr"] for check in self.checks]
        return len(psnr) > 0 and len(psnr) - 1 - int(np.argmax(psnr)) >= self._config.fit.patience

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self._model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._average.state_dict().items()}
        for k, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{k}.{name}": value for name, value in state.items()}
        write_atomic(self._out / STATE, save({k: v.contiguous() for k, v in tensors.items()}))
        write_json(self._out / CHECKS, {"step": self.step, "checks": self.checks})

    def _resume(self) -> None:
        if not (self._out / STATE).is_file() or not (self._out / CHECKS).is_file():
            return
        facts = json.loads((self._out / CHECKS).read_text(encoding="utf-8"))
        tensors = load_file(self._out / STATE)

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self._model.load_state_dict(part("model."))
        self._average.load_state_dict(part("average."))
        adam: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in part("adam.").items():
            adam.setdefault(int(name.split(".")[0]), {})[name.split(".")[1]] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": adam})
        self.step, self.checks = facts["step"], facts["checks"]


def rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine down."""
    fall = 0.5 * (1 + np.cos(np.pi * step / max(steps, 1)))
    return float(min(1.0, (step + 1) / WARM_UP) * max(LOWEST_RATE, fall))
