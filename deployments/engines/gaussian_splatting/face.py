"""Learn the whole face of an avatar's person, when a job asks for a pose or a gaze. Deterministic; goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Clip, Progress, no_progress
from deployments.engines.gaussian_splatting.avatar import META
from deployments.engines.gaussian_splatting.checkpoint import fit_key, load_run, save_run
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.eyes import FaceRig, build_face_rig
from deployments.engines.gaussian_splatting.face_shots import Views, face_shots
from deployments.engines.gaussian_splatting.filmed import NAME as FILMED
from deployments.engines.gaussian_splatting.filmed import load_filmed
from deployments.engines.gaussian_splatting.network import DEVICE, Binding, Gaussians
from deployments.engines.gaussian_splatting.sockets import face_start, kept_clean
from deployments.engines.gaussian_splatting.train import Run, new_run, train
from deployments.errors import WeightsError
from deployments.records import write_atomic
from deployments.weights.load import load_tensors

NAME, CHECKPOINT = "face.safetensors", "face_fit.safetensors"
ROOMS = {"gaussians": Gaussians, "binding": Binding, "rig": FaceRig}


@dataclass(frozen=True)
class Face:
    """The whole face of one person."""

    gaussians: Gaussians
    binding: Binding
    rig: FaceRig


def fit_face(folder: Path, clip: Clip, config: GaussianConfig, progress: Progress = no_progress) -> None:
    """Learn the whole face from the clip of the avatar in `folder`, unless it is there. Raises WeightsError, MediaError."""
    key = face_key(folder, config)
    if _known(folder) == key:
        return
    filmed = load_filmed(folder)
    rig = build_face_rig(filmed)
    views = face_shots(clip, filmed, rig, config)
    start, binding = face_start(rig, filmed, views, config)
    binding, shots = binding.to(DEVICE), views.shots.to(DEVICE)
    start = start.map(lambda value: value.to(DEVICE))
    found = load_run(folder, key, binding, CHECKPOINT)
    run, binding = found or (new_run(start), binding)

    def look(run: Run, binding: Binding) -> None:
        save_run(run, binding, key, folder, CHECKPOINT)
        progress("face", run.step, config.face.fit.steps)

    with one_thread():
        binding = train(run, binding, shots, start.size, config.face.fit, look)
    _save(
        finished(run.best, start, binding, rig, views),
        folder,
        {"key": key, "psnr": f"{run.best_psnr:.3f}", "step": str(run.step)},
    )
    (folder / CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: jobs that share an avatar have other numbers of threads, and must learn the same face."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finished(best: Gaussians, start: Gaussians, binding: Binding, rig: FaceRig, views: Views) -> Face:
    """What was learned, on the CPU, with painted colours for what no frame showed."""
    learned, painted = (avatar.map(lambda value: value.detach().cpu()) for avatar in (best, start))
    binding = binding.to(torch.device("cpu"))
    return Face(kept_clean(learned, painted, binding, views), binding, rig)


def face_key(folder: Path, config: GaussianConfig) -> str:
    """What a whole face is made of: where the head was in which frames of which clip, and the settings."""
    try:
        parts = [(folder / name).read_bytes() for name in (META, FILMED)]
    except OSError as error:
        raise WeightsError(f"expected an avatar in {folder.name}, got {error}; fit it again with `lipsync fit`") from error
    return fit_key(parts, config.face, config.mouth_codes, config.head_codes, DEVICE.type)


def load_face(folder: Path) -> Face:
    """Read a whole face. Raises WeightsError for one that is missing, damaged or does not fit together."""
    arrays = load_tensors(folder / NAME)
    parts: dict[str, Any] = {}
    try:
        for room, record in ROOMS.items():
            own = {part.name: arrays[f"{room}.{part.name}"] for part in fields(record)}
            parts[room] = record(**own if room == "rig" else {name: torch.from_numpy(value) for name, value in own.items()})
    except KeyError as error:
        raise WeightsError(f"{NAME}: expected the tensor {error}; fit the avatar again") from error
    face = Face(**parts)
    _check(face)
    return face


def _check(face: Face) -> None:
    """Numbers must fit together: the file comes from outside. Raises WeightsError."""
    count, binding, rig = len(face.gaussians.colour), face.binding, face.rig
    corners = int(rig.triangles.max()) + 1
    sound = (
        len(binding.owner) == len(binding.weights) == len(binding.layer) == count
        and bool((binding.layer.diff() >= 0).all())
        and len(binding.lids) == len(binding.irises) == 2
        and 0 <= int(binding.owner.min()) <= int(binding.owner.max()) < len(binding.triangles)
        and 0 <= int(binding.triangles.min()) <= int(binding.triangles.max()) < corners
        and all(bool(torch.isfinite(value).all()) for value in vars(face.gaussians).values())
    )
    if not sound:
        raise WeightsError(f"{NAME}: its numbers do not fit together; fit the avatar again")


def subset(avatar: Gaussians, binding: Binding, kept: torch.Tensor) -> tuple[Gaussians, Binding]:
    """The Gaussians of a mask [N]."""
    cut = {
        name: (value[:, kept] if name.endswith("_basis") else value[kept]).contiguous() for name, value in vars(avatar).items()
    }
    rows = {name: getattr(binding, name)[kept] for name in ("owner", "weights", "layer")}
    return Gaussians(**cut), replace(binding, **rows)


def _known(folder: Path) -> str | None:
    """Key of the whole face that is there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / NAME, framework="np") as file:
            return (file.metadata() or {}).get("key")
    except (OSError, SafetensorError):
        return None


def _save(face: Face, folder: Path, facts: dict[str, str]) -> None:
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {
        f"{room}.{name}": np.ascontiguousarray(value.numpy() if isinstance(value, torch.Tensor) else value)
        for room in ROOMS
        for name, value in vars(getattr(face, room)).items()
    }
    write_atomic(folder / NAME, save(arrays, facts))
