"""The mouth's look as a code: a linear picture model on the person's mean mesh (Cootes, Edwards, Taylor 1998).

Every frame's lower face is warped to the mean mesh; the first K principal pictures are the code. A frame that is known
has a code (the encoder is a projection); for a new mouth it is guessed, by a ridge regression, from the lip shapes
around the frame, the head's turn and the codes of the pictures that were looked up. The guess knows light, shadow and
teeth of the whole template, while looked-up pictures know the detail of a few frames; their errors differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.retrieval.bank import Bank
from deployments.retrieval.warp import read_at
from deployments.retrieval.window import Bytes, Floats, Window, scale_of
from kernels.mesh_warp import MeshRaster, rasterize

CONTEXT = 2  # frames on both sides whose lip shapes are clues
RIDGE = 1.0
FEWEST = 4  # frames per number of the code
FOLDS = 5
BORDER = 4  # frames between what a fold learns and what it guesses


@dataclass(frozen=True)
class Appearance:
    """Picture model of one person; P pixels of the window inside the mean mesh, K codes, C clues."""

    canonical: Floats  # [U, 2] mean mesh, window pixels
    inside: NDArray[np.bool_]  # [H, W]
    mean: Floats  # [P * 3] 0..255
    basis: Floats  # [K, P * 3] times the spread of its code
    codes: Floats  # [F, K] of the bank's frames, unit spread
    weight: Floats  # [C + K + 1, K]

    def guess(self, clues: Floats, look: Floats) -> Floats:
        """Codes [T, K] for clues [T, C] and the mixed codes of the looked-up pictures [T, K]."""
        ones = np.ones((len(clues), 1), np.float32)
        return np.asarray(np.concatenate([clues, look, ones], axis=1) @ self.weight, np.float32)

    def texture(self, code: Floats) -> Floats:
        """Picture [H, W, 3] on the mean mesh, 0..255, of one code [K]."""
        out = np.zeros((*self.inside.shape, 3), np.float32)
        out[self.inside] = (self.mean + code @ self.basis).reshape(-1, 3)
        return out

    def picture(self, code: Floats, raster: MeshRaster) -> Floats:
        """The same picture on another mesh [h, w, 3]."""
        source = raster.values(self.canonical, fill=0.0)
        return read_at(self.texture(code), source)


@dataclass(frozen=True)
class Textures:
    """The bank's lower faces on the mean mesh: pixels [F, P * 3]."""

    canonical: Floats
    inside: NDArray[np.bool_]
    pixels: Floats


def textures_of(bank: Bank, small: Bytes, window: Window, canonical: Floats) -> Textures:
    """Warp every small picture of the bank to the mean mesh `canonical` [U, 2] (window pixels)."""
    raster = rasterize(bank.mesh.triangles, canonical, window.height, window.width)
    inside, scale = raster.index >= 0, scale_of(bank, small)
    pixels = np.empty((len(bank.frames), int(inside.sum()) * 3), np.float32)
    for row, vertices in enumerate(bank.vertices):
        source = raster.values((vertices + 0.5) * scale - 0.5, fill=0.0)
        pixels[row] = read_at(small[row], source)[inside].reshape(-1)
    return Textures(canonical, inside, pixels)


def fit_appearance(textures: Textures, rows: NDArray[np.int64], clues: list[Floats], mixes: list[Mix], size: int) -> Appearance:
    """Learn from bank rows; `clues` [F, C] and `mixes` once for every way in which pictures were looked up."""
    mean = textures.pixels[rows].mean(0)
    centred = textures.pixels[rows] - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    count = max(1, min(size, len(rows) // FEWEST))
    values, vectors = np.maximum(values[::-1][:count], 1e-3), vectors[:, ::-1][:, :count]
    directions = (centred.T @ vectors / np.sqrt(values)).T
    spread = np.sqrt(values / len(rows))[:, None]
    codes = ((textures.pixels - mean) @ directions.T / spread.T).astype(np.float32)
    seen = [np.concatenate([c, mix.of(codes), np.ones((len(c), 1))], axis=1)[rows] for c, mix in zip(clues, mixes, strict=True)]
    x, y = np.concatenate(seen).astype(np.float64), np.tile(codes[rows], (len(clues), 1))
    weight = np.linalg.solve(x.T @ x / len(x) + RIDGE * np.diag([*np.ones(x.shape[1] - 1), 1e-6]), x.T @ y / len(x))
    basis = (directions * spread).astype(np.float32)
    return Appearance(textures.canonical, textures.inside, mean.astype(np.float32), basis, codes, weight.astype(np.float32))


@dataclass(frozen=True)
class Trust:
    """How far the painted picture is trusted: the more, the farther the looked-up mouths lie from the wanted one."""

    top: float  # share for mouths that are nowhere near
    half: float  # distance (eye distances) at which half of it is reached

    def shares(self, gap: Floats) -> Floats:
        """Share [T] of the painted picture for distances [T]."""
        return np.asarray(self.top * gap**2 / (gap**2 + self.half**2), np.float32)


@dataclass(frozen=True)
class Mix:
    """Which bank rows are mixed for every frame."""

    rows: NDArray[np.int32]  # [T, n]
    weights: Floats  # [T, n]

    def gap(self, bank: Bank, wanted: Floats, angles: Floats, pose_weight: float) -> Floats:
        """Mean distance [T] of the mixed frames from wanted coefficients [T, 8] under head angles [T, 3]."""
        shape = wanted[:, None] - bank.coefficients[self.rows]
        pose = pose_weight * (angles[:, None] - bank.angles[self.rows])
        distance = np.sqrt((shape**2).sum(2) + (pose**2).sum(2))
        return np.asarray((self.weights * distance).sum(1), np.float32)

    def of(self, codes: Floats) -> Floats:
        """Mixed codes [T, K]: the code of a mix of pictures is the mix of their codes."""
        return np.asarray(np.einsum("tn,tnk->tk", self.weights, codes[self.rows]), np.float32)


def folds_of(rows: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(learned, guessed) rows of each fold: whoever is guessed was not learned from, as a new mouth is not."""
    parts = np.array_split(rows, FOLDS)
    return [(rows[(rows < part[0] - BORDER) | (rows > part[-1] + BORDER)], part) for part in parts]


def save_appearance(model: Appearance, path: Path) -> None:
    """Write the model, pictures in half precision."""
    from safetensors.numpy import save

    from deployments.records import write_atomic

    tensors = {
        "canonical": model.canonical, "inside": model.inside.astype(np.uint8), "mean": model.mean.astype(np.float16),
        "basis": model.basis.astype(np.float16), "codes": model.codes, "weight": model.weight,
    }  # fmt: skip
    write_atomic(path, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def load_appearance(path: Path) -> Appearance:
    """Read what `save_appearance` wrote. Raises WeightsError."""
    from deployments.weights import load_tensors

    needed = ("canonical", "inside", "mean", "basis", "codes", "weight")
    t = {name: value.astype(np.float32) for name, value in load_tensors(path, *needed).items()}
    return Appearance(t["canonical"], t["inside"] > 0, t["mean"], t["basis"], t["codes"], t["weight"])
