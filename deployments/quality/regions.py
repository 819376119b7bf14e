"""Where to look: mouth box, lower-face mask, upper-face mask, from the mesh points of one frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.crop import Window
from deployments.face.landmarks import FACE_OVAL, LEFT_EYE_OUTER, LIPS_INNER, LIPS_OUTER, RIGHT_EYE_OUTER

LIPS = LIPS_OUTER + LIPS_INNER
EYES = (RIGHT_EYE_OUTER, LEFT_EYE_OUTER)
MOUTH_MARGIN = 4
LOWER_FACE = (
    93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 98, 2, 327,
)  # fmt: skip
UPPER_FACE = (10, 338, 297, 332, 284, 251, 389, 356, 454, 6, 234, 127, 162, 21, 54, 103, 67, 109)

Points = NDArray[np.float32]


def eye_distance(points: Points) -> float:
    """Outer-eye distance in pixels of mesh points [478, >=2] (points 33 and 263)."""
    return float(np.linalg.norm(points[RIGHT_EYE_OUTER, :2] - points[LEFT_EYE_OUTER, :2]))


def window_around(points: Points, margin: float, shape: tuple[int, ...]) -> Window:
    """Bounding rectangle of points [P, >=2] plus `margin` pixels, cut at the picture of `shape` (H, W, ...)."""
    low = np.floor(points[:, :2].min(0) - margin).astype(int)
    high = np.ceil(points[:, :2].max(0) + margin).astype(int) + 1
    x0, y0 = (int(v) for v in np.clip(low, 0, (shape[1], shape[0])))
    x1, y1 = (int(v) for v in np.clip(high, 0, (shape[1], shape[0])))
    return Window(x0, y0, max(0, x1 - x0), max(0, y1 - y0))


def mouth_box(points: Points, shape: tuple[int, ...]) -> Window:
    """Lip box + 4 px of mesh points [478, >=2]."""
    return window_around(points[list(LIPS)], MOUTH_MARGIN, shape)


def face_window(points: Points, shape: tuple[int, ...]) -> Window:
    """Rectangle of the whole face with a tenth of the eye distance around it."""
    return window_around(points[:468], 0.1 * eye_distance(points), shape)


def mouth_view(points: Points, shape: tuple[int, ...]) -> Window:
    """Square around the mouth and chin for people to look at, 1.2 eye distances wide (moved inside the picture)."""
    side = min(max(16, round(1.2 * eye_distance(points))), shape[0], shape[1])
    center = points[list(LIPS), :2].mean(0)
    x = int(np.clip(round(float(center[0])) - side // 2, 0, shape[1] - side))
    y = int(np.clip(round(float(center[1])) - side // 2, 0, shape[0] - side))
    return Window(x, y, side, side)


def hull_mask(points: Points, window: Window, grow: float = 0.0) -> NDArray[np.bool_]:
    """Convex hull of points [P, >=2], grown by `grow` pixels, inside a window: bool [height, width]."""
    mask = np.zeros((window.height, window.width), np.uint8)
    if mask.size == 0:
        return mask.astype(bool)
    local = np.round(points[:, :2] - (window.x, window.y)).astype(np.int32)
    hull = cv2.convexHull(local)
    cv2.fillConvexPoly(mask, hull, 1)
    if grow >= 1:
        # a thick outline grows a convex shape as a dilation would, at a hundredth of the cost
        cv2.polylines(mask, [hull], True, 1, thickness=2 * round(grow) + 1)
    return mask.astype(bool)


def lower_face(points: Points, window: Window) -> NDArray[np.bool_]:
    """The region that lip-sync may repaint: hull of jaw and nose base."""
    return hull_mask(points[list(LOWER_FACE)], window)


def upper_face(points: Points, window: Window) -> NDArray[np.bool_]:
    """Forehead to nose bridge, the part of a face that speech leaves alone."""
    return hull_mask(points[list(UPPER_FACE)], window)


def outside_face(points: Points, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Everything farther than 0.15 eye distances from the face oval's lower half: bool [H, W].

    Wider than `lower_face`, because a blend fades out beyond the jaw.
    """
    whole = Window(0, 0, shape[1], shape[0])
    low = points[list(FACE_OVAL)]
    nose = float(points[2, 1])
    jaw = np.concatenate([low[low[:, 1] > nose], points[[98, 2, 327]], points[[6]]])
    return ~hull_mask(jaw, whole, grow=0.15 * eye_distance(points))
