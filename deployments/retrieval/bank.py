"""The bank: what the template showed, frame by frame, ready to be looked up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from deployments.face.mesh import FaceMesh
from deployments.face.retarget import ShapeModel

TENSORS, PIXELS, META = "bank.safetensors", "pictures.u8", "bank.json"


@dataclass(frozen=True)
class Bank:
    """F remembered frames; pictures are a read-only memory map."""

    frames: NDArray[np.int32]  # [F] index in the clip
    corner: NDArray[np.int32]  # [F, 2] x, y of the stored picture in its frame
    vertices: NDArray[np.float32]  # [F, U, 2] pixels inside the stored picture
    coefficients: NDArray[np.float32]  # [F, K]
    angles: NDArray[np.float32]  # [F, 3] radians
    code: NDArray[np.float32]  # [F, C] mouth appearance
    pictures: NDArray[np.uint8]  # [F, h, w, 3]
    stable: NDArray[np.float32]  # [60, 3] head frame of the subject
    mesh: FaceMesh
    shape: ShapeModel


def save_bank(bank: Bank, folder: Path, info: dict[str, object]) -> None:
    """Write all but the pictures (they are written while fitting)."""
    tensors = {
        "frames": bank.frames, "corner": bank.corner, "vertices": bank.vertices, "coefficients": bank.coefficients,
        "angles": bank.angles, "code": bank.code, "stable": bank.stable, "triangles": bank.mesh.triangles, "ring": bank.mesh.ring,
        "reach": bank.mesh.reach, "alpha": bank.mesh.alpha, "shape_mean": bank.shape.mean, "shape_basis": bank.shape.basis,
    }  # fmt: skip
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / TENSORS)
    (folder / META).write_text(json.dumps({**info, "pictures": list(bank.pictures.shape)}, indent=1))


def load_bank(folder: Path) -> Bank:
    """Read a bank; pictures stay on disk."""
    t = load_file(folder / TENSORS)
    shape = tuple(json.loads((folder / META).read_text())["pictures"])
    pictures = np.memmap(folder / PIXELS, np.uint8, "r", shape=shape)
    mesh = FaceMesh(t["triangles"], t["ring"], t["reach"], t["alpha"])
    model = ShapeModel(t["shape_mean"], t["shape_basis"])
    return Bank(
        t["frames"], t["corner"], t["vertices"], t["coefficients"], t["angles"], t["code"], pictures, t["stable"], mesh, model
    )
