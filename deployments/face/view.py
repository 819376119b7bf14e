"""A small picture of the mouth, upright and at the scale of the eyes: what lips are laid on (`deployments.motion.refine`)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LEFT_EYE_OUTER, LIPS_INNER, LIPS_OUTER, RIGHT_EYE_OUTER

VIEW_WIDTH, VIEW_HEIGHT = 64, 54  # pixels: half as many find lips as well, in a third of the time
REACH = 1.2  # eye distances that a view is wide
LARGE = 1.4  # picture pixels per view pixel from which on fine texture would turn into a pattern
BLUR = 0.45  # view pixels, sigma
LIPS = np.array((*LIPS_OUTER, *LIPS_INNER))


def mouth_view(rgb: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Luma of the mouth [VIEW_HEIGHT, VIEW_WIDTH] of landmarks [478, 3] (pixels) in a picture [H, W, 3]."""
    matrix = view_matrix(points)
    corners = np.array([(x, y) for x in (-2, VIEW_WIDTH + 2) for y in (-2, VIEW_HEIGHT + 2)]) @ matrix[:, :2].T + matrix[:, 2]
    high, wide = rgb.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(0)), 0, (wide - 2, high - 2)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)) + 1, (x0 + 2, y0 + 2), (wide, high)).astype(int)
    luma = cv2.cvtColor(rgb[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale > LARGE:
        luma = cv2.GaussianBlur(luma, (0, 0), BLUR * scale)
    matrix[:, 2] -= (x0, y0)
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (VIEW_WIDTH, VIEW_HEIGHT)
    return np.asarray(cv2.warpAffine(luma, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def view_matrix(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """T_picture_view [2, 3] of landmarks [478, 3]: centred on the lips, turned and scaled with the eyes."""
    eyes = (points[LEFT_EYE_OUTER, :2] - points[RIGHT_EYE_OUTER, :2]).astype(np.float64) * REACH / VIEW_WIDTH
    turn = np.array([[eyes[0], -eyes[1]], [eyes[1], eyes[0]]])
    middle = np.array([VIEW_WIDTH / 2, VIEW_HEIGHT / 2])
    return np.concatenate([turn, (points[LIPS, :2].mean(0) - turn @ middle)[:, None]], axis=1)
