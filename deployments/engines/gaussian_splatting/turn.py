"""The head held otherwise than it was filmed, and how the frame's own pixels around the face go with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.engines.gaussian_splatting.eyes import LIDS, FaceRig
from deployments.face.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER
from deployments.face.mesh import FACE_POINTS, smoothstep
from deployments.face.pose import CanonicalFaces
from deployments.retrieval.warp import EVEN, SMALLEST, STILL, Place, eye_distance, longest, shown, smooth
from kernels.mesh_warp import rasterize

PIVOT = (0.0, 0.95, 0.55)  # head frame: about where a head nods and turns; the ears hardly move when it turns
RINGS = (1.12, 1.3, 1.6, 2.0, 2.5)  # around the face's oval, from its middle
SHARES = (1.0, 0.97, 0.75, 0.3, 0.0)  # of the head's motion: hair and ears go with it, the room does not
NECK = 0.85  # how much less of it the neck makes
CHIN = (0.35, 1.15)  # eye distances below the eyes: where the neck begins
GRAZING = (0.03, 0.2)  # cosine of the angle to the camera: pictures of skin seen more from the side are stretched when it turns

Floats = NDArray[np.float32]


def turned(faces: CanonicalFaces, angles: NDArray[np.float64], share: Floats) -> CanonicalFaces:
    """The same faces with `share` [T] of `angles` [3] (as of `CanonicalFaces.angles`) added, about a point in the neck."""
    held = faces.angles().astype(np.float64) + share[:, None] * angles
    rotation = rotations(held).astype(np.float32)
    pivot = np.array(PIVOT, np.float32)
    moved = faces.scale[:, None] * ((faces.rotation - rotation) @ pivot)
    moving = share > 0
    rotation = np.where(moving[:, None, None], rotation, faces.rotation)
    return replace(faces, rotation=rotation, translation=faces.translation + np.where(moving[:, None], moved, 0))


def rotations(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations [T, 3, 3] of yaw, pitch and roll [T, 3] in radians, the inverse of `CanonicalFaces.angles`."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles).T, np.sin(angles).T
    rows = [
        [cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp],
        [sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp],
        [-sy, cy * sp, cy * cp],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


@dataclass(frozen=True)
class HeadMesh:
    """The face and rings around it; V = 468 + 36 a ring."""

    triangles: NDArray[np.int32]  # [M, 3]
    alpha: Floats  # [V] how much of the drawn face shows
    skin: Floats  # [V] 0 at lips and eyes, 1 away from them

    @cached_property
    def face(self) -> NDArray[np.int32]:
        """Triangles of the face alone."""
        return self.triangles[(self.triangles < FACE_POINTS).all(1)]


def head_mesh(rig: FaceRig) -> HeadMesh:
    """Mesh of a subject."""
    count = len(FACE_OVAL)
    rows = [np.array(FACE_OVAL), *(FACE_POINTS + count * k + np.arange(count) for k in range(len(RINGS)))]
    strips = []
    for inner, outer in pairwise(rows):
        after, beyond = np.roll(inner, -1), np.roll(outer, -1)
        strips += [np.stack([inner, outer, after], 1), np.stack([outer, beyond, after], 1)]
    total = FACE_POINTS + count * len(RINGS)
    alpha = np.zeros(total, np.float32)
    alpha[:FACE_POINTS] = 1
    alpha[list(FACE_OVAL)] = 0
    skin = np.ones(total, np.float32)
    soft = (*LIPS_OUTER, *LIPS_INNER, *LIDS[0], *LIDS[1])
    near = np.isin(rig.face, soft).any(1)
    skin[np.unique(rig.face[near])] = 0.5
    skin[list(soft)] = 0
    return HeadMesh(np.concatenate([*strips, rig.face]).astype(np.int32), alpha, skin)


def around(own: Floats, rotation: Floats, new: Floats, shift: tuple[Floats, Floats], heights: Floats) -> tuple[Floats, Floats]:
    """Rings [R, 3] around a face filmed at pixels `own` [468, 3], and where they go.

    `rotation`, `new` [3, 3]: the head's, filmed and wanted; `shift`: both translations; `heights` [36]: of the oval in the
    head frame. Rings are pushed outwards in the picture, so that they never cross the face; in depth they go back to the ears.
    """
    oval = own[list(FACE_OVAL)]
    middle, ears = oval.mean(0), own[[234, 454], 2].mean()
    below = np.clip((heights - CHIN[0]) / (CHIN[1] - CHIN[0]), 0, 1)
    filmed, target = [], []
    for factor, share, fall in zip(RINGS, SHARES, np.linspace(0.3, 1.0, len(RINGS)), strict=True):
        ring = middle + factor * (oval - middle)
        ring[:, 2] = oval[:, 2] + min(1.0, 2 * (factor - 1)) * (ears - oval[:, 2])
        moved = (ring - shift[0]) @ rotation @ new.T + shift[1]
        filmed.append(ring)
        target.append(ring + (share * (1 - NECK * below * fall))[:, None] * (moved - ring))
    return np.concatenate(filmed).astype(np.float32), np.concatenate(target).astype(np.float32)


@dataclass(frozen=True)
class HeadPlace:
    """A window in which a head is turned: as `Place`, and how far what is filmed can be trusted [h, w]."""

    here: Place
    trust: Floats


def head_place(mesh: HeadMesh, filmed: Floats, target: Floats, size: tuple[int, ...]) -> HeadPlace | None:
    """The place of head vertices `target` [V, 3] that were filmed at `filmed` [V, 3]; None if off screen."""
    low, high = np.floor(target[:, :2].min(0)).astype(int), np.ceil(target[:, :2].max(0)).astype(int) + 1
    x0, y0 = (max(0, int(edge)) // EVEN * EVEN for edge in low)
    x1, y1 = min(size[1], int(high[0])), min(size[0], int(high[1]))
    if min(x1 - x0, y1 - y0) < SMALLEST:
        return None
    flat, origin = target[:, :2], np.array([x0, y0], np.float32)
    # later triangles win: what is nearest to the camera comes last
    order = np.argsort(-target[mesh.triangles, 2].sum(1), kind="stable")
    raster = rasterize(mesh.triangles[order], flat, y1 - y0, x1 - x0, (x0, y0))
    hull = np.asarray(cv2.convexHull(flat[list(FACE_OVAL)] - origin), np.float32)
    fields = np.stack([*(filmed - target)[:, :2].T, mesh.skin, facing(mesh, filmed)], 1).astype(np.float32)
    soft = smooth(raster, fields, flat)
    alpha = smooth(raster, mesh.alpha[:, None], flat, hull)
    alpha[alpha < 1 / 255] = 0
    way = np.ascontiguousarray(soft[..., :2])
    rows, columns = shown(np.maximum(alpha, longest(way) > STILL))
    corner, part = (x0 + columns.start, y0 + rows.start), (rows, columns)
    here = Place(*corner, raster.window(*part), alpha[part], way[part], soft[part][..., 2], eye_distance(flat))
    return HeadPlace(here, soft[part][..., 3])


def facing(mesh: HeadMesh, filmed: Floats) -> Floats:
    """How well each vertex [V] could be seen, 0..1: skin that was filmed from the side is stretched where it turns to us."""
    corners = filmed[mesh.face]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((len(filmed), 3))
    for k in range(3):
        np.add.at(total, mesh.face[:, k], normal)
    cosine = np.abs(total[:, 2]) / np.maximum(np.linalg.norm(total, axis=1), 1e-9)
    out = smoothstep((cosine - GRAZING[0]) / (GRAZING[1] - GRAZING[0]))
    out[FACE_POINTS:] = 1
    return np.asarray(out, np.float32)
