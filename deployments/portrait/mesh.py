"""The mesh of a portrait: face points, rings around the head, and how a move of the lips spreads over the face.

Everything is computed once per photo. Head-frame units are outer-eye distances (see deployments.face.pose).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from deployments.face.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER
from deployments.face.pose import STABLE

FACE_POINTS = 468  # the irises are no corners of the mesh: an eyeball does not follow the lid
RING_FACTORS = (1.12, 1.3, 1.55, 1.9, 2.35, 2.9)
RING_HEAD = (1.0, 0.97, 0.82, 0.5, 0.18, 0.0)  # share of the head's motion
RING_LIPS = (0.66, 0.3, 0.06, 0.0, 0.0, 0.0)
BELOW_CHIN = 0.85  # the neck stays with the shoulders: head motion fades faster below the chin

RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
SUBNASALE = 2
STILL = (*STABLE, 1, 2, 98, 327, 97, 326, 234, 454, 93, 323, 127, 356, 116, 345, 117, 346, 118, 347, 50, 280, 64, 294)

UPPER_INNER = LIPS_INNER[1:10]  # right to left corner in the picture, corners (78, 308) left out
LOWER_INNER = LIPS_INNER[:10:-1]
UPPER_OUTER = LIPS_OUTER[1:10]
LOWER_OUTER = LIPS_OUTER[:10:-1]
CORNERS = (78, 308, 61, 291)
UPPER_BAND = (78, *UPPER_INNER, 308, 291, *UPPER_OUTER[::-1], 61)
LOWER_BAND = (78, *LOWER_INNER, 308, 291, *LOWER_OUTER[::-1], 61)


def ring_points(head: NDArray[np.float64], linear: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [6 * 36, 3] around the head: the face oval of `head` [478, 3] pushed away from the face's centre.

    Pushed in the picture's plane, so that rings never cross the face; in depth they go back to the ears, as hair does.
    """
    oval = head[list(FACE_OVAL)] @ linear.T + translation
    center = np.array([0.0, 0.25, 0.0]) @ linear.T + translation
    ears = (head[[234, 454]] @ linear.T + translation)[:, 2].mean()
    rings = []
    for factor in RING_FACTORS:
        ring = center + (oval - center) * factor
        ring[:, 2] = oval[:, 2] + min(1.0, 2 * (factor - 1)) * (ears - oval[:, 2])
        rings.append((ring - translation) @ np.linalg.inv(linear).T)
    return np.concatenate(rings)


def ring_weights(head: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares [6 * 36] of the head's and of the jaw's motion for `ring_points`."""
    below = np.clip((head[list(FACE_OVAL), 1] - 0.35) / 0.8, 0.0, 1.0)
    fall = np.array(RING_HEAD)[:, None] * (1 - BELOW_CHIN * below[None] * np.linspace(0.3, 1.0, 6)[:, None])
    return fall.reshape(-1), np.repeat(RING_LIPS, len(FACE_OVAL))


def opened(head: NDArray[np.float64]) -> NDArray[np.float64]:
    """Face points [468, 3] of `head` with the mouth opened, so that lips that touch are told apart."""
    flat = head[:FACE_POINTS].copy()
    gap = flat[list(LOWER_INNER), 1] - flat[list(UPPER_INNER), 1]
    push = np.maximum(0.12 * np.sin(np.pi * np.arange(1, 10) / 10) - gap, 0.0)
    lower = lower_side(head)
    centers = flat[list(LOWER_INNER), 0]
    order = np.argsort(centers)
    flat[lower, 1] += np.interp(flat[lower, 0], centers[order], push[order])
    return flat


def lower_side(head: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the mesh points that hang on the lower lip: below the mouth's line, between its corners."""
    flat = head[:FACE_POINTS, :2]
    line = (flat[list(UPPER_INNER)] + flat[list(LOWER_INNER)]) / 2
    line = np.concatenate([flat[[78]], line, flat[[308]]])
    order = np.argsort(line[:, 0])
    below = flat[:, 1] > np.interp(flat[:, 0], line[order, 0], line[order, 1])
    below[list(UPPER_BAND)] = False
    below[list(band_members(flat, UPPER_BAND))] = False
    below[list(LOWER_INNER) + list(LOWER_OUTER)] = True
    return np.flatnonzero(below & (flat[:, 1] > flat[SUBNASALE, 1]))


def band_members(flat: NDArray[np.float64], band: tuple[int, ...]) -> list[int]:
    """Points of the mesh strictly inside one lip's outline, its own corners left out."""
    outline = (flat[list(band)] * 1000).astype(np.float32)
    inside = [k for k in range(FACE_POINTS) if cv2.pointPolygonTest(outline, (flat[k] * 1000).tolist(), False) > 0]
    return sorted(set(inside) - set(band))


def triangulate(layout: NDArray[np.float64]) -> NDArray[np.int32]:
    """Triangles [M, 3] over all corners [V, 2] of the mesh, laid out in pixels with the mouth opened.

    Triangles of the face come last: where a chin slides over the neck, the chin is in front.
    """
    triangles = np.asarray(Delaunay(layout).simplices, np.int32)
    return triangles[np.argsort((triangles < FACE_POINTS).sum(axis=1), kind="stable")]


def spread_matrix(head: NDArray[np.float64], moved: NDArray[np.int64]) -> NDArray[np.float32]:
    """Matrix [468, P] that spreads displacements of the points `moved` [P] over the face.

    The moved points keep theirs; skin between follows a linear radial basis (Duchon 1977) that is zero on nose,
    eyes, cheekbones and ears; points inside a lip follow that lip alone.
    """
    moved_set = [int(k) for k in moved]
    still = [k for k in STILL if k not in moved_set]
    inner = set(LIPS_INNER)
    skin = [k for k in moved_set if k not in inner]
    flat = opened(head)[:, :2]
    out = np.zeros((FACE_POINTS, len(moved_set)))
    column = {k: n for n, k in enumerate(moved_set)}
    fill(out, flat, range(FACE_POINTS), skin, still, column)
    nose = flat[SUBNASALE, 1]
    out *= smoothstep((flat[:, 1] - nose + 0.05) / 0.12)[:, None]
    for band in (UPPER_BAND, LOWER_BAND):
        members = band_members(flat, band)
        out[members] = 0.0
        fill(out, flat, members, [k for k in band if k in column], [], column)
    out[moved_set] = np.eye(len(moved_set))
    return out.astype(np.float32)


def fill(
    out: NDArray[np.float64],
    flat: NDArray[np.float64],
    rows: range | list[int],
    centers: list[int],
    still: list[int],
    column: dict[int, int],
) -> None:
    """Write interpolation weights of `centers` into `out`, for the points `rows`; `still` are centres that do not move."""
    nodes = flat[centers + still]
    kernel = np.linalg.norm(nodes[:, None] - nodes[None], axis=2)
    size = len(nodes)
    system = np.zeros((size + 1, size + 1))
    system[:size, :size], system[size, :size], system[:size, size] = kernel - 1e-3 * np.eye(size), 1.0, 1.0
    reach = np.linalg.norm(flat[list(rows)][:, None] - nodes[None], axis=2)
    weights = np.concatenate([reach, np.ones((len(reach), 1))], axis=1) @ np.linalg.inv(system)
    for n, center in enumerate(centers):
        out[list(rows), column[center]] += weights[:, n]


def smoothstep(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic ease from 0 to 1 of values clipped to 0..1."""
    t = np.clip(x, 0.0, 1.0)
    return t * t * (3 - 2 * t)
