"""An avatar on disk: `gaussians.safetensors` beside the bank, and `avatar.json` that says what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deployments.engines.gaussian_splatting.network import Binding, Gaussians
from deployments.engines.gaussian_splatting.rig import Rig
from deployments.engines.gaussian_splatting.shots import Coder
from deployments.errors import WeightsError
from deployments.records import write_atomic, write_json
from deployments.retrieval.bank import Bank, load_bank
from deployments.weights.load import load_tensors

TENSORS, META = "gaussians.safetensors", "avatar.json"
FORMAT = 1  # of the file and of the mesh that its triangles number
RECORDS = {"gaussians": Gaussians, "binding": Binding, "rig": Rig, "coder": Coder}


@dataclass(frozen=True)
class Head:
    """All that was learned of one person."""

    gaussians: Gaussians
    binding: Binding
    rig: Rig
    coder: Coder
    bank: Bank


def save_head(head: Head, folder: Path, facts: dict[str, Any]) -> None:
    """Write the tensors, then the facts that make the folder an avatar. The bank is there already."""
    from safetensors.numpy import save

    arrays = {
        f"{room}.{name}": np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
        for room in RECORDS
        for name, value in vars(getattr(head, room)).items()
    }
    write_atomic(folder / TENSORS, save(arrays))
    write_json(folder / META, {"engine": "gaussian_splatting", "format": FORMAT, **facts})


def load_head(folder: Path) -> Head:
    """Read an avatar. Raises WeightsError for one that is damaged or of another format."""
    try:
        found = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"expected an avatar in {folder.name}, got {error}; fit it again with `lipsync fit`") from error
    if found.get("engine") != "gaussian_splatting" or found.get("format") != FORMAT:
        kind = f"engine {found.get('engine')!r}, format {found.get('format')!r}"
        raise WeightsError(f"expected an avatar of gaussian_splatting, format {FORMAT}, got {kind}; fit it again")
    arrays = load_tensors(folder / TENSORS)
    bank = load_bank(folder)
    try:
        parts = {room: record(**_fields(arrays, room)) for room, record in RECORDS.items()}
    except TypeError as error:
        raise WeightsError(f"{TENSORS}: expected the tensors of format {FORMAT}: {error}; fit the avatar again") from error
    head = Head(bank=bank, **parts)
    _check(head)
    return head


def _fields(arrays: dict[str, Any], room: str) -> dict[str, Any]:
    """The values of one record; what is drawn with is torch's, the rest numpy's."""
    own = {name.partition(".")[2]: value for name, value in arrays.items() if name.startswith(f"{room}.")}
    return own if room in ("rig", "coder") else {name: torch.from_numpy(value) for name, value in own.items()}


def _check(head: Head) -> None:
    """Numbers must fit together: the file comes from outside. Raises WeightsError."""
    count, binding = len(head.gaussians.colour), head.binding
    corners = len(head.bank.mesh.reach) + len(head.rig.upper) + len(head.rig.lower)
    sound = (
        len(binding.owner) == len(binding.weights) == len(binding.layer) == count
        and 0 <= int(binding.owner.min()) <= int(binding.owner.max()) < len(binding.triangles)
        and 0 <= int(binding.triangles.min()) <= int(binding.triangles.max()) < corners
        and all(bool(torch.isfinite(value).all()) for value in vars(head.gaussians).values())
    )
    if not sound:
        raise WeightsError(f"{TENSORS}: its numbers do not fit together or its mesh has other points; fit the avatar again")
