"""A fit that was stopped: all that it needs to go on, in one file that is gone when it is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deployments.engines.gaussian_splatting.network import Binding, Gaussians
from deployments.engines.gaussian_splatting.train import Run
from deployments.records import write_atomic

NAME = "fit.safetensors"


def fit_key(*facts: object) -> str:
    """What a checkpoint belongs to."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def save_run(run: Run, binding: Binding, key: str, folder: Path, name: str = NAME) -> None:
    """Write the state of a fit. Raises OSError."""
    from safetensors.numpy import save

    rows: dict[str, torch.Tensor] = {"owner": binding.owner, "weights": binding.weights, "error": run.error}
    for part, (mean, square) in zip(vars(run.avatar), run.moments, strict=True):
        rows |= {f"now.{part}": getattr(run.avatar, part), f"best.{part}": getattr(run.best, part)}
        rows |= {f"mean.{part}": mean, f"square.{part}": square}
    facts = {"key": key, "step": run.step, "best_psnr": run.best_psnr, "stale": run.stale, "history": run.history}
    arrays = {part: np.ascontiguousarray(value.detach().cpu().numpy()) for part, value in rows.items()}
    write_atomic(folder / name, save(arrays, {"run": json.dumps(facts)}))


def load_run(folder: Path, key: str, binding: Binding, name: str = NAME) -> tuple[Run, Binding] | None:
    """The state that was saved under `key` in `folder`, or None if there is none, it is damaged, or it is another fit's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / name, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("run", "{}"))
            if facts.pop("key", None) != key:
                return None
            rows = {part: file.get_tensor(part).to(binding.owner.device) for part in file.keys()}
        now, best = (Gaussians(**_part(rows, kind)) for kind in ("now", "best"))
        moments = [(rows[f"mean.{part}"], rows[f"square.{part}"]) for part in vars(now)]
        run = Run(now, best, moments, rows["error"], **facts)
        moved = replace(binding, owner=rows["owner"], weights=rows["weights"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return run, moved


def _part(rows: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.partition(".")[2]: value for name, value in rows.items() if name.startswith(f"{kind}.")}
