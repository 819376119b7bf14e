"""What all remembered frames together say of a mouth: its look as a smooth function of lips, head and sound.

A looked-up picture is a few frames, with all that was by chance theirs. Here every frame has a say, by how alike its lips, its
head and its sound were (a Gaussian process); what the two get wrong has little in common, so that between them lies the truth:

    texture(x) = mean + k(x, frames) weights basis        shown = looked-up + share (texture on the wanted mesh - looked-up)

Textures lie on one open mouth, without their own light. Only numpy: an avatar whose networks are of no use has this still.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.engines.emo.config import MemoryConfig, WindowConfig
from deployments.engines.emo.scene import Scene, Start, detail, shown
from deployments.errors import WeightsError
from deployments.face.landmarks import LIPS_INNER
from deployments.retrieval.warp import read_at
from deployments.retrieval.window import Floats, to_window
from kernels.mesh_warp import rasterize

FILE = "memory.safetensors"
TEXTURE = 1.2  # window pixels: what is finer is the nearest picture's, as everywhere; a mean of many frames has none
SHAPE, ANGLES = slice(0, 8), slice(8, 11)  # of what is told of a row


@dataclass(frozen=True)
class Memory:
    """The look of a mouth as a function. n frames, K parts."""

    mesh: Floats  # [U, 2] the open mouth, window pixels
    mean: Floats  # [H, W, 3] 0..255
    basis: Floats  # [K, H, W, 3]
    weights: Floats  # [n, K]
    told: Floats  # [n, 11] lips and head
    heard: Floats  # [n, F] sound; F is 0 for a template without

    def texture(self, told: Floats, heard: Floats | None, says: float, config: MemoryConfig) -> Floats:
        """On the open mouth [H, W, 3], for what is told [16] and heard [F]; `says`: how often the sound says what it says."""
        alike = likeness(told[None], self.told, config)[0]
        part = np.float32(1 - config.listens) * alike @ self.weights
        if not self.heard.shape[1]:
            part = alike @ self.weights
        elif heard is not None:
            part += says * config.listens * (alike * echo(heard[None], self.heard, config)[0]) @ self.weights
        return np.asarray(self.mean + np.tensordot(part, self.basis, 1), np.float32)

    def added(self, scene: Scene, start: Start, texture: Floats, config: WindowConfig) -> Floats:
        """What a texture has that the looked-up picture of a row lacks [H, W, 3], 0..1, without light and fine texture."""
        source = start.raster.values(self.mesh, fill=0.0)
        seen = shown(read_at(texture, source), start.alpha)
        lacks = detail((seen - start.picture).transpose(1, 2, 0), scene.window, config)
        return np.asarray(cv2.GaussianBlur(lacks, (0, 0), TEXTURE, borderType=cv2.BORDER_REPLICATE), np.float32)


def likeness(told: Floats, of: Floats, config: MemoryConfig) -> Floats:
    """How alike lips and head are [n, m], 0..1, of what is told [n, 11 or more] and [m, ...]."""
    apart = np.zeros((len(told), len(of)), np.float32)
    for part, reach in ((SHAPE, config.lips), (ANGLES, config.head)):
        apart += ((told[:, None, part] - of[None, :, part]) ** 2).sum(-1) / np.float32(reach**2)
    return np.asarray(np.exp(-0.5 * apart), np.float32)


def echo(heard: Floats, of: Floats, config: MemoryConfig) -> Floats:
    """How alike sounds are [n, m], 0..1, of what is heard [n, F] and [m, F]."""
    apart = ((heard[:, None] - of[None]) ** 2).sum(-1) / np.float32(config.sound**2)
    return np.asarray(np.exp(-0.5 * apart), np.float32)


def fit_memory(
    scene: Scene, rows: NDArray[np.int64], told: Floats, heard: Floats | None, config: MemoryConfig, light: float
) -> Memory:
    """The memory of bank rows [n], of which `told` [n, 16] and `heard` [n, F] is known; `light` is the blur that takes it out."""
    mesh, textures = open_textures(scene, rows)
    mean = textures.mean(0)
    textures -= mean
    for index, texture in enumerate(textures):
        textures[index] -= cv2.GaussianBlur(texture, (0, 0), light, borderType=cv2.BORDER_REPLICATE)
    flat = textures.reshape(len(rows), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    vectors = vectors[:, values > 1e-6 * values[-1]][:, -config.parts :]
    basis = vectors.T @ flat
    known, sound = told[:, : ANGLES.stop], np.zeros((len(rows), 0), np.float32) if heard is None else heard
    alike = likeness(known, known, config).astype(np.float64)
    if heard is not None:
        alike *= 1 - config.listens + config.listens * echo(heard, heard, config)
    weights = np.linalg.solve(alike + config.noise * np.eye(len(rows)), vectors)
    return Memory(mesh, mean, basis.reshape(-1, *mean.shape), weights.astype(np.float32), known.astype(np.float32), sound)


def open_textures(scene: Scene, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """A mesh [U, 2] with an open mouth, in which everything can be seen, and bank rows on it [n, H, W, 3]."""
    bank, window = scene.bank, scene.window
    targets = np.stack([to_window(window.matrix(bank.stable, bank.vertices[row]), bank.vertices[row]) for row in rows])
    opening = np.ptp(targets[:, list(LIPS_INNER), 1], axis=1)
    widest = np.argsort(-opening, kind="stable")[: max(1, len(rows) * 3 // 20)]
    mesh = targets[widest].mean(0).astype(np.float32)
    raster = rasterize(bank.mesh.triangles, mesh, window.height, window.width)
    return mesh, np.stack([scene.warped(raster, int(row)) for row in rows])


def save_memory(memory: Memory, folder: Path) -> None:
    """Write it, pictures in half precision."""
    from safetensors.numpy import save

    from deployments.records import write_atomic

    tensors = {field.name: np.ascontiguousarray(getattr(memory, field.name)) for field in fields(memory)}
    write_atomic(folder / FILE, save(tensors | {name: tensors[name].astype(np.float16) for name in ("mean", "basis")}))


def load_memory(folder: Path) -> Memory:
    """Read it. Raises WeightsError that tells the keys and shapes where they do not fit together."""
    from deployments.weights import load_tensors

    names = [field.name for field in fields(Memory)]
    found = load_tensors(folder / FILE, *names)
    frames, parts, picture = found["weights"].shape[:1], found["weights"].shape[1:], found["mean"].shape
    wanted = {
        "basis": parts + picture,
        "weights": frames + parts,
        "told": (*frames, ANGLES.stop),
        "mesh": (*found["mesh"].shape[:1], 2),
    }
    sounds = found["heard"].ndim == 2 and found["heard"].shape[:1] == frames
    if found.keys() != set(names) or len(parts) != 1 or not sounds or any(found[key].shape != wanted[key] for key in wanted):
        shapes = ", ".join(f"{key} {list(found[key].shape)}" for key in sorted(found))
        raise WeightsError(f"expected a memory's {', '.join(names)} in {folder / FILE}, got {shapes}; fit the avatar again")
    return Memory(**{name: np.asarray(found[name], np.float32) for name in names})
