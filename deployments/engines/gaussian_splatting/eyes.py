"""The whole face as a rig: all triangles of the face, and behind the lids an eyeball's white and a turning iris for each eye."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from deployments.engines.gaussian_splatting.filmed import Filmed
from deployments.engines.gaussian_splatting.rig import EYES, IRIS_REACH, Rig, build_rig
from deployments.face.landmarks import FACE_OVAL
from deployments.face.mesh import FACE_POINTS
from deployments.portrait.mesh import LEFT_EYE, RIGHT_EYE

LIDS = (RIGHT_EYE, LEFT_EYE)
AXIS = 0.6  # eye distances behind the eyes: around this upright line a face is laid out flat
BALL = 0.42  # radius of an eyeball in widths of its eye
SUNK = 0.08  # eye distances of the white behind the lids
IN_FRONT = 0.05  # eye distances of the iris before the white: what is drawn first must not depend on a learned offset
IRIS_RADIUS = (0.17, 0.25)  # eye widths, whatever the tracker says
WHITE_GRID, IRIS_GRID = (7, 5), (4, 4)  # corners across and down
WHITE_MARGIN = 0.03  # eye distances around the widest opening
EDGE_ON = 0.2  # of an eye's area: a face is not seen more from the side than that
FARTHEST = 0.85  # sine of the largest angle that an eyeball turns

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FaceRig(Rig):
    """Vertices are the mesh's U, both plates of teeth, the whites [2, P] and the irises [2, Q]."""

    face: NDArray[np.int32]  # [M', 3] all of the face without holes, for pictures that are warped
    white: Floats  # [2, P, 3] head frame
    ball: Floats  # [2, 3] centres of the eyeballs
    radius: Floats  # [2] of the irises
    width: Floats  # [2] of the eyes

    def whole(self, target: Floats, iris: Floats) -> Floats:
        """All vertices [T, V, 3] of mesh vertices [T, U, 3] and iris centres [T, 2, 2] (x, y), in the head frame."""
        white = np.broadcast_to(self.white.reshape(-1, 3), (len(target), self.white.shape[1] * 2, 3))
        discs = [self._disc(iris[:, k], k) for k in range(2)]
        return np.concatenate([self.vertices(target), white, *discs], axis=1, dtype=np.float32)

    def _disc(self, centre: Floats, eye: int) -> Floats:
        """Corners [T, Q, 3] of an iris whose middle is seen at `centre` [T, 2]: a plate on the ball, which turns."""
        ball, reach = self.ball[eye], float(BALL * self.width[eye])
        toward = (centre - ball[:2]) / reach
        length = np.linalg.norm(toward, axis=1, keepdims=True)
        toward = toward * np.minimum(1, FARTHEST / np.maximum(length, 1e-6))
        ahead = np.sqrt(1 - (toward**2).sum(1))
        u, v = np.meshgrid(*(np.linspace(-1, 1, n) for n in IRIS_GRID))
        flat = np.stack([u, v], -1).reshape(-1, 2) * IRIS_REACH * self.radius[eye]
        # the smallest turn that takes straight ahead (0, 0, -1) to `toward`
        along = flat @ toward.T / (1 + ahead)  # [Q, T]
        xy = flat[None] - along.T[..., None] * toward[:, None]
        z = (flat @ toward.T).T
        corners = np.concatenate([xy, z[..., None]], -1)
        front = np.concatenate([toward, -ahead[:, None]], 1) * reach - (0, 0, IN_FRONT)
        return np.asarray(ball + front[:, None] + corners, np.float32)


def build_face_rig(filmed: Filmed) -> FaceRig:
    """Rig of a subject from the frames that are learned from."""
    opened = filmed.opened(filmed.vertices)
    triangles = face_triangles(opened[:FACE_POINTS])
    holes = np.any([np.isin(triangles, ring).all(1) for ring in LIDS], axis=0)
    rig = build_rig(triangles[~holes], filmed.vertices)
    count = filmed.vertices.shape[1] + 2 * len(rig.upper)
    eyes = [_eyeball(filmed, ring) for ring in LIDS]
    grids, layers = [rig.triangles], [rig.layer]
    for kind, (across, down) in enumerate((WHITE_GRID, IRIS_GRID)):
        for eye in range(2):
            grids.append(grid(across, down) + count)
            layers.append(np.full(len(grids[-1]), EYES + 2 * eye + kind))
            count += across * down
    white, ball, width = (np.stack([np.asarray(eye[k], np.float32) for eye in eyes]) for k in range(3))
    return FaceRig(
        triangles=np.concatenate(grids).astype(np.int32),
        layer=np.concatenate(layers).astype(np.int32),
        upper=rig.upper,
        lower=rig.lower,
        chin=rig.chin,
        face=triangles,
        white=white,
        ball=ball,
        radius=np.clip(np.median(filmed.size / filmed.scale[:, None], axis=0), *(share * width for share in IRIS_RADIUS)),
        width=width,
    )


def face_triangles(points: Floats) -> NDArray[np.int32]:
    """Delaunay triangles [M, 3] of face points [468, 3] laid out flat, inside the face's oval."""
    flat = unrolled(points)
    simplices = np.asarray(Delaunay(flat.astype(np.float64)).simplices, np.int32)
    oval = (flat[list(FACE_OVAL)] * 1000).astype(np.float32)[:, None]
    centres = flat[simplices].mean(1) * 1000
    inside = [cv2.pointPolygonTest(oval, (float(x), float(y)), False) >= 0 for x, y in centres]
    return simplices[inside]


def unrolled(points: Floats) -> Floats:
    """Head-frame points [..., 3] laid out flat [..., 2]: cheeks keep their area, which a view from the front foreshortens."""
    x = AXIS * np.arctan2(points[..., 0], AXIS - points[..., 2])
    return np.stack([x, points[..., 1]], -1).astype(np.float32)


def grid(across: int, down: int) -> NDArray[np.int32]:
    """Triangles of a plate of across x down corners."""
    corner = np.arange(across * down).reshape(down, across)
    a, b, c, d = corner[:-1, :-1].ravel(), corner[:-1, 1:].ravel(), corner[1:, :-1].ravel(), corner[1:, 1:].ravel()
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)


def _eyeball(filmed: Filmed, ring: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """White [P, 3], centre [3] and width of one eye."""
    lids = filmed.vertices[:, list(ring)].astype(np.float64)
    width = float(np.median(np.linalg.norm(lids[:, 0] - lids[:, 8], axis=1)))
    reach, front = BALL * width, np.median(lids[..., 2]) + SUNK
    eye = LIDS.index(ring)
    seen = iris_places(filmed.iris[:, eye], filmed.rotation, filmed.scale, filmed.translation, front - IN_FRONT)
    x, y = np.median(seen, axis=0)
    low, high = (np.quantile(lids[..., :2], q, axis=(0,)) for q in (0.02, 0.98))
    low, high = low.min(0) - WHITE_MARGIN, high.max(0) + WHITE_MARGIN
    across, down = np.meshgrid(np.linspace(low[0], high[0], WHITE_GRID[0]), np.linspace(low[1], high[1], WHITE_GRID[1]))
    away = (across - x) ** 2 + (down - y) ** 2
    z = front + reach - np.sqrt(np.maximum(reach**2 - away, (0.3 * reach) ** 2))
    return np.stack([across, down, z], -1).reshape(-1, 3), np.array([x, y, front + reach]), width


def iris_places(pixels: Floats, rotation: Floats, scale: Floats, translation: Floats, depth: float) -> Floats:
    """Head-frame places [T, 2] (x, y) of iris centres seen at `pixels` [T, 2], on the plane z = `depth`."""
    seen = (pixels - translation[:, :2]) / scale[:, None] - rotation[:, :2, 2] * np.float32(depth)
    (a, b), (c, d) = rotation[:, :2, :2].transpose(1, 2, 0)
    turned = np.maximum(a * d - b * c, EDGE_ON)
    x, y = seen.T
    return np.asarray(np.stack([d * x - b * y, a * y - c * x], -1) / turned[:, None], np.float32)
