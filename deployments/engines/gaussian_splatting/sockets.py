"""Where the whole face's Gaussians start, and what fills the places of an eyeball that no frame showed."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.eyes import LIDS, FaceRig, unrolled
from deployments.engines.gaussian_splatting.face_shots import Views
from deployments.engines.gaussian_splatting.filmed import Filmed
from deployments.engines.gaussian_splatting.network import Binding, Gaussians, Pose, let_through, pose
from deployments.engines.gaussian_splatting.rig import CAVITY, EYES, LOWER, SKIN, UPPER
from deployments.engines.gaussian_splatting.seed import AREA_UNIT, DARK, bound, lattice, near_lips, paint, points

PAINTERS = 15  # frames whose median colour the Gaussians start with
AROUND_EYES = 1.5  # lids and what is close to them, against the lids' line
ROUND = 1.08  # iris radii that its Gaussians fill
SURE = 0.9  # share that lids and iris leave of a Gaussian that is seen
OFTEN = 0.25  # share of the frames in which a Gaussian of an eye must have been seen
FILLED = 3.0  # logit of their opacity
SIDEWAYS = (1.0, 2.5)  # a white is lit alike from side to side: the upper lid's shade lies above
PALE = 0.6  # colour of a white that no frame showed
NEIGHBOURS = 8  # whose colour an unseen one takes

Floats = NDArray[np.float32]
Part = tuple[NDArray[np.int64], Floats, Floats]


def face_start(rig: FaceRig, filmed: Filmed, views: Views, config: GaussianConfig) -> tuple[Gaussians, Binding]:
    """Painted Gaussians of a whole face."""
    opened = filmed.opened(rig.whole(filmed.vertices, np.repeat(rig.ball[None, :, :2], len(filmed.frames), 0)))
    face = config.face
    inner, eyes = face.inner_share * face.gaussians, face.eye_share * face.gaussians / 2
    parts = skin(rig, opened, round(face.gaussians - inner - 2 * eyes), face.density)
    for layer, share in ((UPPER, 0.35), (LOWER, 0.35), (CAVITY, 0.3)):
        parts.extend(lattice(rig, opened, layer, int(inner * share), 1.0))
    for layer in range(EYES, EYES + 4):
        eye = lattice(rig, opened, layer, int(eyes * (0.55 if layer % 2 == 0 else 0.45)), 1.0)
        parts.extend(eye if layer % 2 == 0 else [rounded(part, rig, opened, (layer - EYES) // 2) for part in eye])
    avatar, binding = bound(rig, opened, parts, config)
    corners = [np.unique(rig.triangles[rig.layer == layer]) for layer in (EYES + 1, EYES + 3)]
    binding = replace(binding, lids=torch.tensor(LIDS), irises=torch.from_numpy(np.stack(corners).astype(np.int64)))
    shots = views.shots
    rows = np.unique(np.linspace(0, len(shots) - 1, PAINTERS).astype(int))
    at = Pose(shots.pose.vertices[rows], shots.pose.scale[rows], shots.pose.code[rows])
    pictures = [shots.rgb[int(row)].numpy() for row in rows]
    painted = paint(avatar, binding, at, pictures, np.zeros((len(rows), 2), np.float32))
    return filled(painted, binding, rig, unseen(painted, binding, views)), binding


def rounded(part: Part, rig: FaceRig, opened: Floats, eye: int) -> Part:
    """The points of an iris's plate that lie in the iris."""
    owner, weights, spacing = part
    spots = (opened[rig.triangles[owner], :2] * weights[..., None]).sum(1)
    kept = np.linalg.norm(spots - rig.ball[eye, :2], axis=1) < ROUND * rig.radius[eye]
    return owner[kept], weights[kept], spacing[kept]


def skin(rig: FaceRig, opened: Floats, count: int, density: float) -> list[Part]:
    """About `count` points on the skin, laid out flat so that the sides get their share, denser at lips and eyes."""
    flat = np.zeros_like(opened)
    flat[:, :2] = unrolled(opened)
    chosen = np.flatnonzero(rig.layer == SKIN)
    near = (near_lips(rig, opened) | near_eyes(rig, opened))[chosen]
    fine, coarse = (len(points(rig, flat, chosen[part], 1 / AREA_UNIT)[0]) for part in (near, ~near))
    spacing = float(np.sqrt((fine * density**2 + coarse) / count)) / AREA_UNIT
    parts = []
    for triangles, step in ((chosen[near], spacing / density), (chosen[~near], spacing)):
        owner, weights = points(rig, flat, triangles, step)
        parts.append((owner, weights, np.full(len(owner), step, np.float32)))
    return parts


def near_eyes(rig: FaceRig, opened: Floats) -> NDArray[np.bool_]:
    """Triangles [M] at the eyes."""
    centres = opened[rig.triangles, :2].mean(1)
    found = np.zeros(len(centres), bool)
    for ring in LIDS:
        lids = opened[list(ring), :2]
        wider = (lids.mean(0) + AROUND_EYES * (lids - lids.mean(0))).astype(np.float32)[:, None]
        found |= np.array([cv2.pointPolygonTest(wider, (float(x), float(y)), False) >= 0 for x, y in centres])
    return found


@torch.no_grad()
def unseen(avatar: Gaussians, binding: Binding, views: Views) -> Tensor:
    """Which Gaussians [N] of the eyeballs hardly any frame showed: what they learned means nothing."""
    eyes = torch.nonzero(binding.layer >= EYES)[:, 0]
    part = {name: (value[:, eyes] if name.endswith("_basis") else value[eyes]) for name, value in vars(avatar).items()}
    own = replace(binding, **{name: getattr(binding, name)[eyes] for name in ("owner", "weights", "layer")})
    at = views.shots.pose
    seen = let_through(own, at, pose(Gaussians(**part), own, at).means) > SURE
    out = torch.zeros(len(binding.owner), dtype=torch.bool)
    out[eyes] = seen.float().mean(0) < OFTEN
    return out


def filled(painted: Gaussians, binding: Binding, rig: FaceRig, lost: Tensor) -> Gaussians:
    """Give the `lost` Gaussians of each white and iris the colour of their nearest neighbours."""
    flat, layers, gone = places(binding, rig), binding.layer.numpy(), lost.numpy()
    colour = painted.colour.clone()
    for layer in range(EYES, EYES + 4):
        missing, known = np.flatnonzero((layers == layer) & gone), np.flatnonzero((layers == layer) & ~gone)
        if not len(known):
            colour[missing] = PALE if layer % 2 == 0 else DARK
            continue
        apart = np.linalg.norm((flat[missing, None] - flat[None, known]) * SIDEWAYS, axis=-1)
        if layer % 2:  # an iris is round: what counts is the distance from its middle
            rings = np.linalg.norm(flat, axis=-1)
            apart = np.abs(rings[missing, None] - rings[None, known]) + 0.1 * apart
        near = colour[known[np.argsort(apart, axis=1, kind="stable")[:, :NEIGHBOURS]]]
        if layer % 2 == 0:  # lashes and the iris' rim are not white
            light = near.sum(-1).argsort(1, descending=True)[:, : max(1, near.shape[1] // 2), None]
            near = near.gather(1, light.expand(-1, -1, 3))
        colour[missing] = near.median(1).values
    return replace(painted, colour=colour)


@torch.no_grad()
def kept_clean(learned: Gaussians, start: Gaussians, binding: Binding, views: Views) -> Gaussians:
    """What was learned, but for what hardly any frame showed, which stays as it was painted."""
    lost = unseen(learned, binding, views)
    out = learned.map(torch.clone)
    for name, value in vars(out).items():
        rows = (slice(None), lost) if name.endswith("_basis") else (lost,)
        value[rows] = getattr(start, name)[rows]
    out.opacity[lost] = FILLED
    return out


def places(binding: Binding, rig: FaceRig) -> Floats:
    """Where the Gaussians of eyeballs lie on them [N, 2], from their middle, looking straight ahead; 0 for all others."""
    count = int(rig.triangles[rig.layer == UPPER].min())
    rest = rig.whole(np.zeros((1, count, 3), np.float32), rig.ball[None, :, :2])[0, :, :2]
    eyes = binding.layer.numpy() >= EYES
    owner, layer = binding.owner.numpy()[eyes], binding.layer.numpy()[eyes]
    spots = (rest[rig.triangles[owner]] * binding.weights.numpy()[eyes][..., None]).sum(1)
    out = np.zeros((len(eyes), 2), np.float32)
    out[eyes] = spots - rig.ball[(layer - EYES) // 2, :2]
    return out
