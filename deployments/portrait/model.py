"""Learn a portrait: mesh, spread of the lips, mouth layers. Deterministic, below a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Track
from deployments.errors import MediaError
from deployments.face.pose import canonical
from deployments.portrait.eyes import EyeLayers, eye_layers
from deployments.portrait.iris import Eyeball, eyeballs
from deployments.portrait.mesh import (
    FACE_POINTS,
    LOWER_INNER,
    LOWER_OUTER,
    UPPER_INNER,
    UPPER_OUTER,
    opened,
    ring_points,
    ring_weights,
    spread_matrix,
    triangulate,
)
from deployments.portrait.mouth import MouthLayers, mouth_layers

MIN_SIDE = 64  # pixels; a smaller picture cannot hold a mouth
MAX_SIDE = 8192
UPPER_SHARE = 0.5  # of the photo's own gap that the upper lip closes; the lower lip closes the rest
OUTER_SHARE = 0.55  # how far the red of a lip follows its inner edge when the photo's mouth is closed
CHIN_SHARE = 0.3


@dataclass(frozen=True)
class PortraitModel:
    """Everything that rendering needs of one photo. Points are in the head frame (eye distances)."""

    photo: NDArray[np.uint8]  # [H, W, 3] RGB
    landmarks: NDArray[np.float32]  # [478, 3] pixels
    head: NDArray[np.float64]  # [478, 3]
    rings: NDArray[np.float64]  # [R, 3]
    ring_head: NDArray[np.float64]  # [R] share of the head's motion
    ring_lips: NDArray[np.float64]  # [R] share of the jaw's motion
    pixels_from_head: NDArray[np.float64]  # [3, 3], scale times rotation
    translation: NDArray[np.float64]  # [3]
    border: NDArray[np.float64]  # [B, 2] pixels that never move
    triangles: NDArray[np.int32]  # [M, 3] over face points, rings, border
    spread: NDArray[np.float32]  # [468, P]
    moved: NDArray[np.int64]  # [P] the points that a motion moves
    closing: NDArray[np.float64]  # [468, 3] from the photo's lips to lips that touch
    layers: MouthLayers
    eyes: EyeLayers
    balls: dict[tuple[int, ...], Eyeball]  # by the ring of eye points

    @property
    def scale(self) -> float:
        """Pixels per eye distance."""
        return float(np.cbrt(abs(np.linalg.det(self.pixels_from_head))))

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Head frame [P, 3] -> pixels [P, 2]."""
        return (points @ self.pixels_from_head.T + self.translation)[:, :2]


def check_picture(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture cropped to even sides. Raises MediaError if it is no RGB picture of a workable size."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise MediaError(f"a portrait must be uint8 RGB [H, W, 3], got {rgb.dtype} {list(rgb.shape)}; convert it first")
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise MediaError(f"a portrait needs sides of {MIN_SIDE}..{MAX_SIDE} px, got {width}x{height}; resize it first")
    return np.ascontiguousarray(rgb[: height - height % 2, : width - width % 2])


def fit_portrait(rgb: NDArray[np.uint8], track: Track, moved: NDArray[np.int64]) -> PortraitModel:
    """Model of a photo [H, W, 3] with even sides and its track (T = 1); `moved` [P] are the points of a motion."""
    faces = canonical(track.landmarks[:1])
    head = faces.points[0].astype(np.float64)
    linear = faces.scale[0].astype(np.float64) * faces.rotation[0].astype(np.float64)
    translation = faces.translation[0].astype(np.float64)
    rings, (ring_head, ring_lips) = ring_points(head, linear, translation), ring_weights(head)
    border = border_points(rgb.shape[0], rgb.shape[1])
    layout = np.concatenate([opened(head), rings]) @ linear.T + translation
    spread = spread_matrix(head, moved)
    layers = mouth_layers(rgb, track.landmarks[0], head, linear, translation)
    return PortraitModel(
        photo=rgb,
        landmarks=track.landmarks[0],
        head=head,
        rings=rings,
        ring_head=ring_head,
        ring_lips=ring_lips,
        pixels_from_head=linear,
        translation=translation,
        border=border,
        triangles=triangulate(np.concatenate([layout[:, :2], border])),
        spread=spread,
        moved=moved,
        closing=closing_move(head, spread, moved),
        layers=layers,
        eyes=eye_layers(layers.skin, track.landmarks[0], float(faces.scale[0])),
        balls=eyeballs(rgb, track.landmarks[0]),
    )


def border_points(height: int, width: int, steps: int = 8) -> NDArray[np.float64]:
    """Points [4 * steps, 2] well outside the picture: what lies there never moves."""
    margin = max(height, width)
    low_x, low_y, high_x, high_y = -margin, -margin, width + margin, height + margin
    t = np.arange(steps) / steps
    x, y = low_x + t * (high_x - low_x), low_y + t * (high_y - low_y)
    sides = [
        np.stack([x, np.full(steps, low_y)], 1),
        np.stack([np.full(steps, high_x), y], 1),
        np.stack([high_x + low_x - x, np.full(steps, high_y)], 1),
        np.stack([np.full(steps, low_x), high_y + low_y - y], 1),
    ]
    return np.concatenate(sides).astype(np.float64)


def closing_move(head: NDArray[np.float64], spread: NDArray[np.float32], moved: NDArray[np.int64]) -> NDArray[np.float64]:
    """Displacement [468, 3] that brings the photo's lips together: the rest from which a motion starts."""
    gap = head[list(LOWER_INNER)] - head[list(UPPER_INNER)]
    gap[:, 0] = 0.0
    move = np.zeros((FACE_POINTS, 3))
    move[list(UPPER_INNER)] = UPPER_SHARE * gap
    move[list(LOWER_INNER)] = (UPPER_SHARE - 1) * gap
    move[list(UPPER_OUTER)] = OUTER_SHARE * UPPER_SHARE * gap
    move[list(LOWER_OUTER)] = OUTER_SHARE * (UPPER_SHARE - 1) * gap
    lips = set(UPPER_INNER + LOWER_INNER + UPPER_OUTER + LOWER_OUTER + (78, 308, 61, 291))
    middle = gap[4, 1:] * (UPPER_SHARE - 1) * CHIN_SHARE
    for k in moved:
        if int(k) not in lips and head[k, 1] > head[17, 1]:
            near = 1 - np.clip(abs(head[k, 0]) / 0.6, 0, 1)
            move[k, 1:] = middle * near
    return spread @ move[moved]
