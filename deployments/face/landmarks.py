"""The 478-point face mesh: MediaPipe Face Landmarker through LiteRT, and the index sets that others use.

Source: Grishchenko et al., Attention Mesh, 2020 (arXiv 2006.10962). Points 0..467 are the face mesh, 468..477 the irises.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import MESH_POINTS
from deployments.face.detect import LANDMARKER, FaceBox, interpreter, run
from deployments.weights import bundle_member, weights_path

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263  # the subject's right eye lies on the left of the picture
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
UPPER_INNER_LIP, LOWER_INNER_LIP = 13, 14

INPUT_SIDE = 256
ROI_SCALE = 1.5  # the window is this many times the face's larger side, as MediaPipe trains it
JITTER = (
    (0.0, 0.0, 1.0, 0.0),
    (0.02, -0.01, 1.05, 0.03),
    (-0.02, 0.01, 0.95, -0.03),
    (0.01, 0.02, 1.02, -0.02),
    (-0.01, -0.02, 0.98, 0.02),
)


@dataclass(frozen=True)
class Roi:
    """A rotated square window: centre (x, y) and side in pixels, angle in radians."""

    center: tuple[float, float]
    side: float
    angle: float

    def jittered(self, dx: float, dy: float, scale: float, turn: float) -> Roi:
        """The window shifted by a share of its side, scaled and turned."""
        center = (self.center[0] + dx * self.side, self.center[1] + dy * self.side)
        return Roi(center, self.side * scale, self.angle + turn)


def roi_of_box(face: FaceBox) -> Roi:
    """Window around a detected face."""
    return Roi(face.center, face.size * ROI_SCALE, face.angle)


def roi_of_points(points: NDArray[np.float32]) -> Roi:
    """Window around landmarks [478, >=2]."""
    mesh = points[:468, :2]
    low, high = mesh.min(0), mesh.max(0)
    eyes = mesh[LEFT_EYE_OUTER] - mesh[RIGHT_EYE_OUTER]
    center = (low + high) / 2
    return Roi((float(center[0]), float(center[1])), float((high - low).max() * ROI_SCALE), float(np.arctan2(eyes[1], eyes[0])))


class Landmarker:
    """Finds the 478 points inside a window; not shared between threads."""

    def __init__(self) -> None:
        self._net = interpreter(bundle_member(weights_path(LANDMARKER), "face_landmarks_detector.tflite"))

    def points(self, rgb: NDArray[np.uint8], roi: Roi, passes: int = 1) -> tuple[NDArray[np.float32], float]:
        """Landmarks [478, 3] in pixels and the presence score 0..1, averaged over `passes` jittered windows.

        Averaging windows cuts the network's own jitter (measured 0.75 -> 0.46 px with five).
        """
        runs = [self._single(rgb, roi.jittered(*JITTER[k % len(JITTER)])) for k in range(passes)]
        return np.mean([points for points, _ in runs], axis=0).astype(np.float32), min(score for _, score in runs)

    def _single(self, rgb: NDArray[np.uint8], roi: Roi) -> tuple[NDArray[np.float32], float]:
        scale = roi.side / INPUT_SIDE
        turn = scale * np.array([[np.cos(roi.angle), -np.sin(roi.angle)], [np.sin(roi.angle), np.cos(roi.angle)]])
        matrix = np.concatenate([turn, (np.array(roi.center) - turn @ [INPUT_SIDE / 2, INPUT_SIDE / 2])[:, None]], axis=1)
        crop = cv2.warpAffine(rgb, matrix, (INPUT_SIDE, INPUT_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        mesh, presence = run(self._net, crop.astype(np.float32) / 255.0)[:2]
        local = mesh.reshape(MESH_POINTS, 3)
        flat = local[:, :2] @ turn.T + matrix[:, 2]
        points = np.concatenate([flat, local[:, 2:] * scale], axis=1).astype(np.float32)
        return points, float(1.0 / (1.0 + np.exp(-presence.reshape(-1)[0])))
