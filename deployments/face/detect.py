"""Face detection: MediaPipe's BlazeFace (short and full range) through LiteRT.

Source: Bazarevsky et al., BlazeFace, 2019 (arXiv 1907.05047); model cards of MediaPipe Face Detection.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.weights import bundle_member, weights_path

LANDMARKER = "face_landmarker.task"
FULL_RANGE = "face_detection_full_range.tflite"
MIN_SCORE = 0.5
NMS_OVERLAP = 0.3


@dataclass(frozen=True)
class FaceBox:
    """A detected face in pixels of the upright picture: box centre and size, eye centres, score 0..1."""

    center: tuple[float, float]
    size: float  # side of the square box
    angle: float  # radians, of the line from the right eye (image left) to the left eye
    score: float


@dataclass(frozen=True)
class DetectorLayout:
    """Input side in pixels and (stride, anchors per cell) of the output grids."""

    side: int
    grids: tuple[tuple[int, int], ...]


SHORT_LAYOUT = DetectorLayout(128, ((8, 2), (16, 6)))
FULL_LAYOUT = DetectorLayout(192, ((4, 1),))


def interpreter(model: bytes, threads: int = 1) -> Any:
    """A LiteRT interpreter with tensors allocated."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_content=model, num_threads=threads)
    net.allocate_tensors()
    return net


def run(net: Any, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Run a single-input network on `pixels` (without the batch axis); outputs in the model's order."""
    net.set_tensor(net.get_input_details()[0]["index"], pixels[None].astype(np.float32, copy=False))
    net.invoke()
    return [net.get_tensor(detail["index"]) for detail in net.get_output_details()]


def anchor_centers(layout: DetectorLayout) -> NDArray[np.float32]:
    """Anchor centres [A, 2] in 0..1."""
    rows = []
    for stride, count in layout.grids:
        cells = layout.side // stride
        grid = (np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2) + 0.5) / cells
        rows.append(np.repeat(grid, count, axis=0))
    return np.concatenate(rows).astype(np.float32)


class FaceDetector:
    """Finds all faces of a picture; not shared between threads."""

    def __init__(self) -> None:
        self._short = interpreter(bundle_member(weights_path(LANDMARKER), "face_detector.tflite"))
        self._full = interpreter(weights_path(FULL_RANGE).read_bytes())

    def faces(self, rgb: NDArray[np.uint8]) -> list[FaceBox]:
        """Faces of an upright picture [H, W, 3], best score first.

        The full-range network sees the whole picture; where it finds nothing, the short-range one looks at
        overlapping square tiles, which finds small faces in tall or wide pictures.
        """
        height, width = rgb.shape[:2]
        whole = (0.0, 0.0, float(max(height, width)))
        found = self._detect(self._full, FULL_LAYOUT, rgb, whole)
        found += self._detect(self._short, SHORT_LAYOUT, rgb, whole)
        if not found and min(height, width) >= 64:
            for tile in square_tiles(width, height):
                found += self._detect(self._short, SHORT_LAYOUT, rgb, tile)
        return suppress(found)

    def _detect(
        self, net: Any, layout: DetectorLayout, rgb: NDArray[np.uint8], window: tuple[float, float, float]
    ) -> list[FaceBox]:
        x0, y0, side = window
        scale = side / layout.side
        matrix = np.array([[scale, 0, x0 + 0.5 * scale - 0.5], [0, scale, y0 + 0.5 * scale - 0.5]])
        small = shrink(rgb, matrix, layout.side, scale)
        boxes, logits = run(net, small.astype(np.float32) / 127.5 - 1.0)
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits.reshape(-1), -50, 50)))
        anchors = anchors_of(layout)
        found = []
        for k in np.flatnonzero(scores >= MIN_SCORE):
            raw = boxes.reshape(-1, 16)[k] / layout.side
            center = (anchors[k] + raw[:2]) * side + (x0, y0)
            right, left = (anchors[k] + raw[4:8].reshape(2, 2)) * side
            angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
            found.append(FaceBox((float(center[0]), float(center[1])), float(raw[2:4].max() * side), angle, float(scores[k])))
        return found


@lru_cache(maxsize=4)
def anchors_of(layout: DetectorLayout) -> NDArray[np.float32]:
    """Cached `anchor_centers`."""
    return anchor_centers(layout)


def shrink(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], side: int, scale: float) -> NDArray[np.uint8]:
    """Sample a square window; area-average first where the window is much larger than `side` (no aliasing)."""
    step = int(scale / 2)
    if step >= 2:
        height, width = rgb.shape[0] // step, rgb.shape[1] // step
        whole = rgb[: height * step, : width * step]
        rgb = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix / step
    return np.asarray(cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint8)


def square_tiles(width: int, height: int) -> list[tuple[float, float, float]]:
    """Overlapping square windows (x, y, side): the short side, then half of it."""
    tiles = []
    for side in (min(width, height), min(width, height) // 2):
        step = max(1, side // 2)
        for y in range(0, max(1, height - side + 1), step):
            tiles += [(float(x), float(y), float(side)) for x in range(0, max(1, width - side + 1), step)]
    return tiles


def suppress(faces: list[FaceBox]) -> list[FaceBox]:
    """Greedy non-maximum suppression, best score first."""
    kept: list[FaceBox] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(overlap(face, other) < NMS_OVERLAP for other in kept):
            kept.append(face)
    return kept


def overlap(a: FaceBox, b: FaceBox) -> float:
    """Intersection over union of two square boxes."""
    sides = [
        max(
            0.0, min(a.center[i] + a.size / 2, b.center[i] + b.size / 2) - max(a.center[i] - a.size / 2, b.center[i] - b.size / 2)
        )
        for i in (0, 1)
    ]
    inter = sides[0] * sides[1]
    return inter / max(a.size**2 + b.size**2 - inter, 1e-9)
