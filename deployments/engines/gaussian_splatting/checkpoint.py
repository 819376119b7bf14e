"""A fit that was stopped: all that it needs to go on, in one file that is gone when it is done."""

from __future__ import annotations

import hashlib
import json
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


def save_run(run: Run, binding: Binding, key: str, folder: Path) -> None:
    """Write the state of a fit. Raises OSError."""
    from safetensors.numpy import save

    rows: dict[str, torch.Tensor] = {"owner": binding.owner, "weights": binding.weights, "error": run.error}
    for name, (mean, square) in zip(vars(run.avatar), run.moments, strict=True):
        rows |= {f"now.{name}": getattr(run.avatar, name), f"best.{name}": getattr(run.best, name)}
        rows |= {f"mean.{name}": mean, f"square.{name}": square}
    facts = {"key": key, "step": run.step, "best_psnr": run.best_psnr, "stale": run.stale, "history": run.history}
    arrays = {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in rows.items()}
    write_atomic(folder / NAME, save(arrays, {"run": json.dumps(facts)}))


def load_run(folder: Path, key: str, binding: Binding) -> tuple[Run, Binding] | None:
    """The state that was saved under `key` in `folder`, or None if there is none, it is damaged, or it is another fit's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / NAME, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("run", "{}"))
            if facts.pop("key", None) != key:
                return None
            rows = {name: file.get_tensor(name).to(binding.owner.device) for name in file.keys()}
        now, best = (Gaussians(**_part(rows, kind)) for kind in ("now", "best"))
        moments = [(rows[f"mean.{name}"], rows[f"square.{name}"]) for name in vars(now)]
        run = Run(now, best, moments, rows["error"], **facts)
        moved = Binding(binding.triangles, rows["owner"], rows["weights"], binding.layer, binding.rest, binding.rim)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return run, moved


def _part(rows: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.partition(".")[2]: value for name, value in rows.items() if name.startswith(f"{kind}.")}
