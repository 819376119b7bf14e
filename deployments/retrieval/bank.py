"""The bank: what the template showed, frame by frame, ready to be looked up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsError
from deployments.face.mesh import FaceMesh
from deployments.face.retarget import ShapeModel
from deployments.records import write_atomic, write_json
from deployments.weights import AGAIN, load_facts, load_tensors, map_bytes

TENSORS, PIXELS, META = "bank.safetensors", "pictures.u8", "bank.json"
FORMAT = 1  # of the files, and of the mesh whose points they number
ROWS = ("frames", "corner", "vertices", "coefficients", "angles", "code", "light")
MESH, SHAPE = ("triangles", "ring", "reach", "alpha"), ("shape_mean", "shape_basis")


@dataclass(frozen=True)
class Bank:
    """F remembered frames; pictures are a read-only memory map."""

    frames: NDArray[np.int32]  # [F] index in the clip
    corner: NDArray[np.int32]  # [F, 2] x, y of the stored picture in its frame
    vertices: NDArray[np.float32]  # [F, U, 2] pixels inside the stored picture
    coefficients: NDArray[np.float32]  # [F, K]
    angles: NDArray[np.float32]  # [F, 3] radians
    code: NDArray[np.float32]  # [F, C] mouth appearance
    light: NDArray[np.float32]  # [F, 3] median RGB of the face's skin; zeros: not measured
    pictures: NDArray[np.uint8]  # [F, h, w, 3]
    stable: NDArray[np.float32]  # [60, 3] head frame of the subject
    mesh: FaceMesh
    shape: ShapeModel


def save_bank(bank: Bank, folder: Path, info: dict[str, object]) -> None:
    """Write all but the pictures (they are written while fitting); the facts come last and make the bank whole."""
    from safetensors.numpy import save

    mesh, shape = bank.mesh, bank.shape
    tensors = {name: getattr(bank, name) for name in (*ROWS, "stable")}
    tensors |= dict(zip(MESH, (mesh.triangles, mesh.ring, mesh.reach, mesh.alpha), strict=True))
    tensors |= dict(zip(SHAPE, (shape.mean, shape.basis), strict=True))
    write_atomic(folder / TENSORS, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))
    write_json(folder / META, {**info, "format": FORMAT, "pictures": list(bank.pictures.shape)})


def load_bank(folder: Path) -> Bank:
    """Read a bank; pictures stay on disk. Raises WeightsError for one that is damaged or of another format."""
    facts = load_facts(folder / META, "format", "pictures")
    if facts["format"] != FORMAT:
        raise WeightsError(f"{folder}: expected a bank of format {FORMAT}, got {facts['format']!r}; {AGAIN}")
    pictures = map_bytes(folder / PIXELS, facts["pictures"])
    t = load_tensors(folder / TENSORS, *ROWS, "stable", *MESH, *SHAPE)
    mesh, model = FaceMesh(*(t[name] for name in MESH)), ShapeModel(*(t[name] for name in SHAPE))
    bank = Bank(**{name: t[name] for name in ROWS}, pictures=pictures, stable=t["stable"], mesh=mesh, shape=model)
    _check(bank, folder)
    return bank


def _check(bank: Bank, folder: Path) -> None:
    """Numbers must fit together: a file may be another avatar's, or older than the mesh. Raises WeightsError."""
    count, points = len(bank.frames), len(bank.mesh.reach)
    each = (bank.corner, bank.vertices, bank.coefficients, bank.angles, bank.code, bank.light, bank.pictures)
    sound = (
        all(len(part) == count for part in each)
        and bank.vertices.shape[1] == points == len(bank.mesh.alpha) == len(bank.shape.mean)
        and 0 <= int(bank.mesh.triangles.min(initial=0)) <= int(bank.mesh.triangles.max(initial=0)) < points
        and all(bool(np.isfinite(part).all()) for part in (bank.vertices, bank.coefficients, bank.angles, bank.code, bank.light))
    )
    if not sound:
        raise WeightsError(f"{folder / TENSORS}: its numbers do not fit together or its mesh has other points; {AGAIN}")
