"""The lower-face mesh that every engine warps with: topology, how far speech reaches, and where pictures are mixed.

Vertices are the 468 mesh points and a ring outside the jaw that is rigid to the head, so that a dropping jaw compresses
the neck below it instead of tearing it. Triangles are a Delaunay triangulation of the subject's own open-mouth face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from deployments.face.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER, LOWER_INNER_LIP, UPPER_INNER_LIP

FACE_POINTS = 468
SUBNASALE = 2
JAW = FACE_OVAL[8:29]  # ear to ear below the temples
RING_DISTANCE = 0.28  # eye distances outside the jaw
FADE_TOP = (-0.03, 0.13)  # eye distances below the nose base: where speech starts to reach, and reaches fully
REACH_SIDE = (0.8, 1.05)  # share of the face's half width: where the jaw's movement fades towards the ears
SHOWN_SIDE = (0.62, 0.92)  # and where the rendered picture does: ears and hair are the frame's own


@dataclass(frozen=True)
class FaceMesh:
    """Topology and per-vertex weights of one subject; U = 468 + ring vertices."""

    triangles: NDArray[np.int32]  # [M, 3]
    ring: NDArray[np.float32]  # [R, 3] in the head frame
    reach: NDArray[np.float32]  # [U] 0..1: how far a vertex follows the lips and jaw
    alpha: NDArray[np.float32]  # [U] 0..1: how much of the rendered picture is shown

    def vertices(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mesh vertices [..., U, 3] of canonical landmarks [..., 478, 3]."""
        ring = np.broadcast_to(self.ring, (*points.shape[:-2], *self.ring.shape))
        return np.concatenate([points[..., :FACE_POINTS, :], ring], axis=-2)


def build_mesh(points: NDArray[np.float32]) -> FaceMesh:
    """Mesh of a subject from canonical landmarks [T, 478, 3] of many frames."""
    mean = np.median(points, axis=0)[:FACE_POINTS]
    gap = points[:, LOWER_INNER_LIP, 1] - points[:, UPPER_INNER_LIP, 1]
    wide = points[gap >= np.quantile(gap, 0.9)].mean(0)[:FACE_POINTS]  # closed lips would triangulate across each other
    ring = jaw_ring(mean)
    corners = np.concatenate([wide, ring])[:, :2]
    reach, shown = reach_of(mean, REACH_SIDE), reach_of(mean, SHOWN_SIDE)
    return FaceMesh(
        triangles=lower_triangles(corners, len(ring), reach),
        ring=ring.astype(np.float32),
        reach=np.concatenate([reach, np.zeros(len(ring))]).astype(np.float32),
        alpha=np.concatenate([smoothstep(shown * 1.6), np.zeros(len(ring))]).astype(np.float32),
    )


def jaw_ring(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ring vertices [R, 3]: the jaw line pushed outwards from the mouth."""
    jaw = mean[list(JAW)]
    out = jaw[:, :2] - mean[[UPPER_INNER_LIP, LOWER_INNER_LIP], :2].mean(0)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return np.concatenate([jaw[:, :2] + RING_DISTANCE * out, jaw[:, 2:]], axis=1)


def reach_of(mean: NDArray[np.float32], side: tuple[float, float]) -> NDArray[np.float32]:
    """Weight [468]: 1 around the mouth, 0 above the nose base and towards the ears (`side`, shares of the half width)."""
    below = (mean[:, 1] - mean[SUBNASALE, 1] - FADE_TOP[0]) / (FADE_TOP[1] - FADE_TOP[0])
    half = np.abs(mean[list(JAW), 0]).max()
    aside = (side[1] - np.abs(mean[:, 0]) / half) / (side[1] - side[0])
    return smoothstep(below) * smoothstep(aside)


def skin_of(mesh: FaceMesh) -> NDArray[np.float32]:
    """Weight [U]: 0 at the lips and the vertices next to them, 1/2 at those beyond, 1 from there on."""
    weight = np.zeros(len(mesh.alpha), np.float32)
    near = np.isin(np.arange(len(weight)), (*LIPS_OUTER, *LIPS_INNER))
    for share in (0.0, 0.5):
        corners = mesh.triangles[near[mesh.triangles].any(axis=1)]
        reached = np.isin(np.arange(len(weight)), corners) & ~near
        weight[reached] = share
        near |= reached
    weight[~near] = 1.0
    return weight


def smoothstep(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """3x^2 - 2x^3 of x clipped to 0..1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def lower_triangles(corners: NDArray[np.float32], ring: int, reach: NDArray[np.float32]) -> NDArray[np.int32]:
    """Delaunay triangles [M, 3] that touch a vertex which speech reaches."""
    simplices = Delaunay(corners.astype(np.float64)).simplices
    reached = np.concatenate([reach > 0, np.zeros(ring, bool)])
    return simplices[reached[simplices].any(axis=1)].astype(np.int32)
