"""Training frames: the windows that the template showed, and where the rig was in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deployments.contracts import Motion, Track
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.filmed import IRISES, Filmed
from deployments.engines.gaussian_splatting.network import Pose
from deployments.engines.gaussian_splatting.rig import Rig, build_rig
from deployments.errors import NoFaceError
from deployments.face.landmarks import LIPS_OUTER
from deployments.motion.dubbing import track_coefficients
from deployments.retrieval.bank import Bank
from deployments.retrieval.plan import Plan
from deployments.retrieval.warp import place

TILE = 16  # windows are whole tiles of the raster
FAINT = 0.15  # weight of a pixel that the mask lets hardly through
LEAST = 5  # windows: one of them is held out
MOST = 400  # frames; more of them teach nothing new in the time of a fit
CODE_LIMIT = 3.0  # standard deviations

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Coder:
    """Expression code [T, C] about 1 in size: lip shape and head angles.

    The look of the retrieved mouths as a further part was tried: -0.6 dB, the basis learned their noise.
    """

    center: Floats  # [K]
    axes: Floats  # [K, mouth codes]
    angles: Floats  # [2, head codes]: mean and spread

    def encode(self, coefficients: Floats, angles: Floats) -> Floats:
        """Codes of coefficients [T, K] and angles [T, 3], clipped: what was never shown looks like the extremes."""
        mouth = (coefficients - self.center) @ self.axes
        head = (angles[:, : self.angles.shape[1]] - self.angles[0]) / self.angles[1]
        return np.clip(np.concatenate([mouth, head], 1), -CODE_LIMIT, CODE_LIMIT).astype(np.float32)


def fit_coder(bank: Bank, config: GaussianConfig) -> Coder:
    """Principal directions of the template's own lips, mean and spread of its head angles."""
    center = bank.coefficients.mean(0)
    _, s, v = np.linalg.svd(bank.coefficients - center, full_matrices=False)
    spread = s[: config.mouth_codes] / np.sqrt(len(bank.coefficients))
    axes = v[: config.mouth_codes].T / np.maximum(spread, 1e-3)
    turn = bank.angles[:, : config.head_codes]
    angles = np.stack([turn.mean(0), np.maximum(turn.std(0), 0.02)])
    return Coder(*(np.asarray(a, np.float32) for a in (center, axes, angles)))


@dataclass(frozen=True)
class Shots:
    """S training windows of one size, in the order of the clip."""

    rgb: Tensor  # [S, h, w, 3] uint8
    weight: Tensor  # [S, h, w] uint8, 255 = 1
    mouth: Tensor  # [S, 4] x0, y0, x1, y1 of the mouth in the window
    pose: Pose  # vertices in pixels of the window
    taught: int  # how many are learned from; the last ones are held out

    def __len__(self) -> int:
        return len(self.rgb)

    def to(self, device: torch.device) -> Shots:
        """The same on a device; where the mouths are stays here, to be sliced with."""
        pose = Pose(*(value.to(device) for value in vars(self.pose).values()))
        return Shots(self.rgb.to(device), self.weight.to(device), self.mouth, pose, self.taught)


def collect(bank: Bank, track: Track, config: GaussianConfig) -> tuple[Rig, Coder, Shots, Floats, Filmed]:
    """Rig, coder and windows of a filled bank, the rig's vertices [V, 3] with the mouth wide open, where the head was."""
    coefficients = track_coefficients(track, bank.stable)
    plan = Plan(bank, Motion(coefficients, np.ones(len(coefficients), np.float32)), track, config.retrieval)
    pick = np.unique(np.linspace(0, len(bank.frames) - 1, min(MOST, len(bank.frames))).astype(int))
    rows = plan.row[bank.frames[pick]]
    rig = build_rig(bank.mesh.triangles, plan.target)
    coder = fit_coder(bank, config)
    codes = coder.encode(bank.coefficients[pick], bank.angles[pick])
    vertices = rig.vertices(plan.target[rows])
    gap = plan.target[rows, 14, 1] - plan.target[rows, 13, 1]
    opened = vertices[gap >= np.quantile(gap, 0.85)].mean(0)
    pixels = np.stack([plan.faces.to_pixels(v, int(row)) for v, row in zip(vertices, rows, strict=True)])
    faces, frames = plan.faces, bank.frames[pick]
    seen = track.landmarks[frames, :, :2]
    iris, size = seen[:, IRISES], np.stack([iris_size(seen, first) for first in IRISES], 1)
    filmed = Filmed(
        frames, plan.target[rows], faces.rotation[rows], faces.scale[rows], faces.translation[rows], iris, size, codes
    )
    windows = _windows(bank, pick, pixels, plan.faces.scale[rows], codes, config)
    return rig, coder, windows, opened.astype(np.float32), filmed


def iris_size(points: Floats, first: int) -> Floats:
    """Radius [F] of an iris in pixels from landmarks [F, 478, 2]: across, where lids do not cover it."""
    return np.asarray(np.linalg.norm(points[:, first + 1] - points[:, first + 3], axis=1) / 2, np.float32)


def _windows(bank: Bank, pick: NDArray[np.int64], pixels: Floats, scale: Floats, codes: Floats, config: GaussianConfig) -> Shots:
    """Cut and shrink the windows around the shown part of the lower face."""
    pixels[..., :2] -= bank.corner[pick][:, None]
    points = bank.vertices.shape[1]
    places = {k: place(bank, v[:points, :2], v[:points, :2], bank.pictures.shape[1:3]) for k, v in enumerate(pixels)}
    seen = {k: here for k, here in places.items() if here is not None}
    if len(seen) < LEAST:
        raise NoFaceError(
            f"Gaussians need {LEAST} frames with the lower face in the picture, found {len(seen)}; take another clip"
        )
    sizes = np.array([here.alpha.shape for here in seen.values()])
    shrink = min(1.0, config.fit.side / float(sizes.max()))
    size = tuple(-(-int(np.ceil(edge * shrink)) // TILE) * TILE for edge in sizes.max(0))
    pictures, weights, mouths = [], [], []
    for k, here in seen.items():
        rows, columns = slice(here.y, here.y + here.alpha.shape[0]), slice(here.x, here.x + here.alpha.shape[1])
        pictures.append(fitted(bank.pictures[pick[k]][rows, columns], shrink, size))
        shown = np.clip(here.alpha, FAINT, 1) * (here.raster.index >= 0) * 255
        weights.append(fitted(shown.astype(np.uint8), shrink, size))
        pixels[k, :, :2] = (pixels[k, :, :2] - (here.x, here.y) + 0.5) * shrink - 0.5
        pixels[k, :, 2] *= shrink
        lips = pixels[k, list(LIPS_OUTER), :2]
        mouths.append((*np.floor(lips.min(0) - 4).clip(0), *np.ceil(lips.max(0) + 4)))
    kept = list(seen)
    arrays = (np.ascontiguousarray(a, np.float32) for a in (pixels[kept], scale[kept] * shrink, codes[kept]))
    where = Pose(*(torch.from_numpy(a) for a in arrays))
    rgb, weight = (torch.from_numpy(np.stack(stack)) for stack in (pictures, weights))
    taught = len(kept) - max(1, round(len(kept) * config.fit.held_out))
    return Shots(rgb, weight, torch.from_numpy(np.array(mouths, np.int64)), where, taught)


def fitted(picture: NDArray[np.uint8], shrink: float, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture [h, w, ...] shrunk, and filled up with zeros to `size`."""
    small = _shrink(picture, shrink)
    out = np.zeros((*size, *small.shape[2:]), np.uint8)
    out[: small.shape[0], : small.shape[1]] = small
    return out


def _shrink(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    if factor == 1.0:
        return picture
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
