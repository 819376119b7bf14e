"""Where Gaussians start: a lattice over the open face, coloured by what the template showed there."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.network import Binding, Gaussians, Pose, let_through, pose
from deployments.engines.gaussian_splatting.rig import CAVITY, LOWER, SKIN, UPPER, Rig
from deployments.face.landmarks import LIPS_INNER, LIPS_OUTER
from deployments.retrieval.warp import read_at
from kernels.gaussian_pose.reference import triangle_frames
from kernels.mesh_warp import rasterize

AREA_UNIT = 400.0  # lattice cells per eye distance while areas are measured
OVERLAP = 0.6  # standard deviation of a Gaussian, in distances to its neighbour
THIN = 0.15  # thickness over width
START_OPACITY = 0.85
DARK = 0.12  # colour of what no frame ever showed
LIP_REACH = 1.25  # lips and the skin around them, against the outer lip line

Floats = NDArray[np.float32]


def start(rig: Rig, opened: Floats, config: GaussianConfig) -> tuple[Gaussians, Binding]:
    """Grey Gaussians for a rig whose vertices [V, 3] lie at `opened` (a wide open mouth), in eye distances."""
    groups = [(SKIN, 1 - config.inner_share), (UPPER, 0.35), (LOWER, 0.35), (CAVITY, 0.3)]
    parts = []
    for layer, share in groups:
        count = config.gaussians * (share if layer == SKIN else config.inner_share * share)
        parts.extend(lattice(rig, opened, layer, int(count), config.lip_density if layer == SKIN else 1.0))
    return bound(rig, opened, parts, config)


def bound(
    rig: Rig, opened: Floats, parts: list[tuple[NDArray[np.int64], Floats, Floats]], config: GaussianConfig
) -> tuple[Gaussians, Binding]:
    """Grey Gaussians at the lattice points of `parts`, skin first."""
    owner, weights, spacing = (np.concatenate([part[k] for part in parts]) for k in range(3))
    corners = torch.from_numpy(opened[rig.triangles])
    _, rest = triangle_frames(corners)
    binding = Binding(
        triangles=torch.from_numpy(rig.triangles.astype(np.int64)),
        owner=torch.from_numpy(owner.astype(np.int64)),
        weights=torch.from_numpy(weights.astype(np.float32)),
        layer=torch.from_numpy(rig.layer[owner].astype(np.int64)),
        rest=rest.clamp_min(1e-4),
        rim=torch.tensor(LIPS_INNER),
    )
    return blank(torch.from_numpy(spacing.astype(np.float32)), config), binding


def blank(spacing: torch.Tensor, config: GaussianConfig) -> Gaussians:
    """Grey, flat Gaussians of given distances [N] to their neighbours."""
    count, codes = len(spacing), config.mouth_codes + config.head_codes
    width = torch.log(OVERLAP * spacing)
    opacity = float(np.log(START_OPACITY / (1 - START_OPACITY)))
    return Gaussians(
        colour=torch.full((count, 3), 0.5),
        colour_basis=torch.zeros(codes, count, 3),
        offset=torch.zeros(count, 3),
        offset_basis=torch.zeros(config.mouth_codes, count, 3),
        size=torch.stack([width, width, width + float(np.log(THIN))], 1),
        turn=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        opacity=torch.full((count,), opacity),
    )


def lattice(
    rig: Rig, opened: Floats, layer: int, count: int, lip_density: float
) -> list[tuple[NDArray[np.int64], Floats, Floats]]:
    """About `count` points of one layer: owners [n], barycentric weights [n, 3], spacing [n]; denser at the lips."""
    chosen = np.flatnonzero(rig.layer == layer)
    near = near_lips(rig, opened)[chosen] if lip_density != 1 else np.zeros(len(chosen), bool)
    fine, coarse = (len(points(rig, opened, chosen[part], 1 / AREA_UNIT)[0]) for part in (near, ~near))
    spacing = float(np.sqrt((fine * lip_density**2 + coarse) / max(count, 1))) / AREA_UNIT
    steps = [(chosen[near], spacing / lip_density), (chosen[~near], spacing)]
    out = []
    for triangles, step in steps:
        owner, weights = points(rig, opened, triangles, step)
        out.append((owner, weights, np.full(len(owner), step, np.float32)))
    return out


def points(rig: Rig, opened: Floats, chosen: NDArray[np.int64], step: float) -> tuple[NDArray[np.int64], Floats]:
    """Lattice points `step` apart on some triangles: owners [n] and barycentric weights [n, 3]."""
    if not len(chosen):
        return np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
    flat = opened[:, :2] / step
    low = np.floor(flat[rig.triangles[chosen]].min((0, 1))).astype(int)
    size = np.ceil(flat[rig.triangles[chosen]].max((0, 1))).astype(int) - low + 1
    raster = rasterize(rig.triangles[chosen], flat, int(size[1]), int(size[0]), (int(low[0]), int(low[1])))
    hit = raster.index >= 0
    first = raster.weights[hit]
    return chosen[raster.index[hit]], np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1).astype(np.float32)


def near_lips(rig: Rig, opened: Floats) -> NDArray[np.bool_]:
    """Triangles [M] at the lips."""
    outer = opened[list(LIPS_OUTER), :2]
    middle = outer.mean(0)
    ring = (middle + LIP_REACH * (outer - middle)).astype(np.float32)
    centers = opened[rig.triangles, :2].mean(1)
    return np.array([cv2.pointPolygonTest(ring[:, None], (float(x), float(y)), False) >= 0 for x, y in centers])


def paint(avatar: Gaussians, binding: Binding, at: Pose, pictures: list[NDArray[np.uint8]], corners: Floats) -> Gaussians:
    """The avatar in the median colour of the pictures, whose first pixels lie at `corners` [B, 2]."""
    posed = pose(avatar, binding, at)
    skin = int((binding.layer == SKIN).sum())
    gate = let_through(binding, at, posed.means).numpy()
    seen = np.concatenate([np.ones((len(pictures), skin)), gate > 0.9], 1).astype(bool)
    colours = np.full((len(pictures), len(binding.owner), 3), np.nan, np.float32)
    for b, picture in enumerate(pictures):
        spots = (posed.means[b, :, :2].numpy() - corners[b])[None].astype(np.float32)
        sampled = read_at(picture, spots)[0]
        colours[b, seen[b]] = sampled[seen[b]] / 255.0
    known = ~np.isnan(colours[..., 0]).all(0)
    median = np.full(colours.shape[1:], DARK, np.float32)
    median[known] = np.nanmedian(colours[:, known], 0)
    return Gaussians(torch.from_numpy(median), *(getattr(avatar, name) for name in PARTS[1:]))


PARTS = ("colour", "colour_basis", "offset", "offset_basis", "size", "turn", "opacity")
