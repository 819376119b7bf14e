"""A training loop whose every step is keyed by its number: an interrupted one ends as an uninterrupted one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from deployments.contracts import Progress
from deployments.records import write_atomic

Loss = Callable[[np.random.Generator], torch.Tensor]
Score = Callable[[nn.Module], float]
WARM_UP = 30
CLIP_NORM = 1.0
LOWEST_RATE = 0.02  # share of the rate at the end
ROUNDED = 4  # decimals of what is told


@dataclass(frozen=True)
class Course:
    """How one network is trained."""

    name: str  # of its files and of the stage that is told
    steps: int
    rate: float
    decay: float
    average: float
    check_every: int
    patience: int
    seed: int


class Training:
    """Trains `model`; the best averaged weights lie in `<name>.safetensors`, what a stopped fit needs in `<name>.state`."""

    def __init__(self, model: nn.Module, course: Course, out: Path) -> None:
        self.model, self.course = model, course
        self._average = copy.deepcopy(model).eval()
        self._weights, self._state = out / f"{course.name}.safetensors", out / f"{course.name}.state"
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=course.rate, weight_decay=course.decay)
        self.step, self._losses = 0, list[float]()
        self.checks: list[dict[str, float]] = []

    def run(
        self, loss: Callable[[np.random.Generator], torch.Tensor], score: Callable[[nn.Module], float], told: Progress
    ) -> None:
        """Train to the end, or until `score` (the higher the better) rises no more."""
        course = self.course
        self._resume()
        while self.step < course.steps and not self._stale():
            if self.step % course.check_every == 0 and not self._checked():
                self._check(score)
            self._step(loss)
            told(f"{course.name} (loss {self._losses[-1]:.4f})", self.step, course.steps)
        if not self._stale() and not self._checked():
            self._check(score)
        told(course.name, course.steps, course.steps)

    def keep(self, model: nn.Module) -> None:
        """Write the weights of `model`, in half precision."""
        state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
        write_atomic(self._weights, save(state))

    def clean(self) -> None:
        """Drop what only an interrupted fit needs."""
        self._state.unlink(missing_ok=True)

    def _step(self, loss: Loss) -> None:
        course = self.course
        torch.manual_seed(course.seed * 1_000_003 + self.step)
        self.model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = course.rate * rate_share(self.step, course.steps)
        found = loss(np.random.default_rng([course.seed, self.step]))
        self._optimiser.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self._optimiser.step()
        pace = min(course.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self._average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, 1 - pace)
        self.step += 1
        self._losses.append(float(found.detach()))

    @torch.no_grad()
    def _check(self, score: Score) -> None:
        """Judge the averaged weights; the best are kept."""
        value = round(score(self._average), ROUNDED)
        if not self.checks or value > max(check["score"] for check in self.checks):
            self.keep(self._average)
        recent = self._losses[-self.course.check_every :]
        mean = round(float(np.mean(recent)), ROUNDED) if recent else 0.0
        self.checks.append({"step": self.step, "score": value, "loss": mean})
        self._save()

    def _checked(self) -> bool:
        return bool(self.checks) and self.checks[-1]["step"] == self.step

    def _stale(self) -> bool:
        scores = [check["score"] for check in self.checks]
        return len(scores) > 0 and len(scores) - 1 - int(np.argmax(scores)) >= self.course.patience

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._average.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        facts = json.dumps({"step": self.step, "checks": self.checks, "losses": self._losses[-self.course.check_every :]})
        write_atomic(self._state, save({k: v.contiguous() for k, v in tensors.items()}, {"facts": facts}))

    def _resume(self) -> None:
        if not self._state.is_file():
            return
        tensors = load_file(self._state)
        with safe_open(self._state, "pt") as file:
            facts = json.loads(file.metadata()["facts"])

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self._average.load_state_dict(part("average."))
        adam: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in part("adam.").items():
            adam.setdefault(int(name.split(".")[0]), {})[name.split(".")[1]] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": adam})
        self.step, self.checks, self._losses = facts["step"], facts["checks"], facts["losses"]


def rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine down."""
    fall = 0.5 * (1 + np.cos(np.pi * step / max(steps, 1)))
    return float(min(1.0, (step + 1) / WARM_UP) * max(LOWEST_RATE, fall))
