"""Learn a person: fill the bank, seed Gaussians on the mesh, train them. Deterministic; goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deployments.contracts import Clip, Progress, Track
from deployments.engines.gaussian_splatting.avatar import Head, save_head
from deployments.engines.gaussian_splatting.checkpoint import NAME, fit_key, load_run, save_run
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.filmed import save_filmed
from deployments.engines.gaussian_splatting.network import DEVICE, Binding, Gaussians, Pose
from deployments.engines.gaussian_splatting.seed import paint, start
from deployments.engines.gaussian_splatting.shots import Shots, collect
from deployments.engines.gaussian_splatting.train import Run, new_run, train
from deployments.errors import NoFaceError
from deployments.retrieval.fill import fill_bank

PAINTERS = 15  # frames whose median colour the Gaussians start with
LEAST_FRAMES = 8  # measured: unseen mouths are -0.6 to +0.2 dB from those of `video_rewrite`, and clean (README)


def fit_avatar(clip: Clip, track: Track, out: Path, config: GaussianConfig, progress: Progress) -> Head:
    """Learn the person of a clip into the folder `out`. Raises NoFaceError under 8 usable frames."""
    usable = int(track.usable.sum())
    if usable < LEAST_FRAMES:
        found = f"{clip.path.name} has {usable}"
        other = "take --engine video_rewrite, which needs 5" if usable >= 5 else "take a longer clip"
        raise NoFaceError(f"Gaussians need {LEAST_FRAMES} frames with a usable face, {found}; {other}")
    out.mkdir(parents=True, exist_ok=True)
    bank = fill_bank(clip, track, out, config.retrieval, progress)
    rig, coder, shots, opened, filmed = collect(bank, track, config)
    avatar, binding = start(rig, opened, config)
    key = fit_key(clip.digest, config, track.usable.tobytes(), torch.get_num_threads(), DEVICE.type)
    avatar = _painted(avatar, binding, shots).map(lambda value: value.to(DEVICE))
    binding, shots = binding.to(DEVICE), shots.to(DEVICE)
    run, binding = load_run(out, key, binding) or (new_run(avatar), binding)

    def look(run: Run, binding: Binding) -> None:
        save_run(run, binding, key, out)
        progress("gaussians", run.step, config.fit.steps)

    binding = train(run, binding, shots, avatar.size, config.fit, look)
    progress("gaussians", config.fit.steps, config.fit.steps)
    head = Head(run.best, binding, rig, coder, bank)
    facts = {"clip": clip.digest, "gaussians": len(binding.owner), "history": run.history, "psnr": run.best_psnr}
    save_filmed(filmed, out)
    save_head(head, out, facts)
    (out / NAME).unlink(missing_ok=True)
    return head


def _painted(avatar: Gaussians, binding: Binding, shots: Shots) -> Gaussians:
    """Start colours: the median of frames, half of them those with the most open mouths."""
    gap = (shots.pose.vertices[:, 14, 1] - shots.pose.vertices[:, 13, 1]) / shots.pose.scale
    spread = np.linspace(0, len(shots) - 1, PAINTERS // 2 + 1).astype(int)
    rows = np.unique(np.concatenate([spread, gap.argsort(descending=True)[: PAINTERS // 2].numpy()]))
    at = Pose(shots.pose.vertices[rows], shots.pose.scale[rows], shots.pose.code[rows])
    return paint(avatar, binding, at, [shots.rgb[int(row)].numpy() for row in rows], np.zeros((len(rows), 2), np.float32))
