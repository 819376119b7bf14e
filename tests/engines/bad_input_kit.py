"""Clips that are hard to use, made of an ordinary one: a head that turns, a face that leaves, another light, another size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from deployments.face.track import track_image
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.sound import SoundPlan
from deployments.retrieval.warp import read_at
from kernels.mesh_warp import rasterize

Frames = Sequence[np.ndarray]

SKULL = 1.35  # how far the head reaches beyond the face's outline
DEPTH = 0.9  # eye distances that the back of that rim lies behind the eyes


def write_clip(frames: Iterable[np.ndarray], path: Path, rate: int = 25, sound: SoundPlan | None = None) -> Path:
    """Frames [H, W, 3] as a clip."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    encode_new(width, height, Fraction(rate), frames, sound, EncodeOptions("high"), path)
    return path


def shifted(frames: Frames, way: Iterable[tuple[float, float]]) -> list[np.ndarray]:
    """The pictures pushed aside by (x, y) pixels; what comes in is their own border."""
    return [
        cv2.warpAffine(f, np.array([[1, 0, x], [0, 1, y]], np.float64), f.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        for f, (x, y) in zip(frames, way, strict=True)
    ]


def out_and_back(count: int, far: float) -> list[tuple[float, float]]:
    """A way to the right until nothing of the face is seen, and back."""
    return [(far * float(np.clip(1.5 * np.sin(np.pi * k / (count - 1)) - 0.25, 0, 1)), 0.0) for k in range(count)]


def relit(frames: Frames, start: int, gain: Sequence[float], gamma: float = 1.0) -> list[np.ndarray]:
    """From frame `start` on the light is another one: RGB times `gain` after a power."""
    curve = (np.arange(256) / 255.0)[:, None] ** gamma * np.asarray(gain) * 255
    table = np.clip(np.rint(curve), 0, 255).astype(np.uint8)
    return [f if k < start else np.stack([cv2.LUT(f[..., c], table[:, c]) for c in range(3)], -1) for k, f in enumerate(frames)]


def in_a_wall(frames: Frames, scale: float, size: tuple[int, int], at: tuple[int, int]) -> list[np.ndarray]:
    """The pictures scaled down, at (x, y) of a grey wall of `size` (width, height)."""
    walls = []
    for frame in frames:
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        wall = np.full((size[1], size[0], 3), 110, np.uint8)
        wall[at[1] : at[1] + small.shape[0], at[0] : at[0] + small.shape[1]] = small
        walls.append(wall)
    return walls


def side_by_side(left: Frames, right: Frames) -> list[np.ndarray]:
    """Two people in one picture."""
    return [np.concatenate([a, b], 1) for a, b in zip(left, right, strict=True)]


def turning(frames: Frames, yaw: Iterable[float]) -> list[np.ndarray]:
    """The head of every picture turned by `yaw` degrees: its texture on the tracked mesh, a skull behind, grey around."""
    return [turned(frame, np.deg2rad(angle)) for frame, angle in zip(frames, yaw, strict=True)]


def turned(frame: np.ndarray, yaw: float) -> np.ndarray:
    """One picture's head, turned about an upright axis behind its face."""
    points, source = head_of(frame)
    span = float(np.ptp(points[:468, 0]))
    pivot = points[:468].mean(0) + (0, 0, 0.35 * span)
    c, s = np.cos(yaw), np.sin(yaw)
    target = (points - pivot) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + pivot
    triangles = delaunay(points[:, :2])
    corner = target[triangles]
    edge = corner[:, 1:, :2] - corner[:, :1, :2]
    seen = edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0] > 0
    triangles = triangles[seen][np.argsort(-corner[seen][..., 2].mean(1))]  # the nearest is drawn last
    raster = rasterize(triangles, target[:, :2].astype(np.float32), *frame.shape[:2])
    picture = read_at(frame, raster.values(source, fill=0.0))
    wall = np.full_like(frame, 110)
    return np.where(raster.index[..., None] >= 0, picture, wall)


def head_of(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] of face and skull, and where each is seen in the picture [P, 2]."""
    face = track_image(frame).landmarks[0][:468].astype(np.float64)
    hull = cv2.convexHull(face[:, :2].astype(np.float32), returnPoints=False)[:, 0]
    middle, eyes = face.mean(0), float(np.hypot(*(face[263] - face[33])[:2]))
    rims = []
    for part in (0.5, 1.0):
        rim = middle + (face[hull] - middle) * (1 + (SKULL - 1) * part)
        rim[:, 2] = face[hull, 2] + DEPTH * eyes * part**0.5
        rims.append(rim)
    points = np.concatenate([face, *rims])
    limit = np.array(frame.shape[1::-1]) - 1.0
    return points, np.clip(points[:, :2], 0, limit).astype(np.float32)


def delaunay(points: np.ndarray) -> np.ndarray:
    """Triangles [M, 3] over points [P, 2], all turned the same way."""
    from scipy.spatial import Delaunay

    found = Delaunay(points).simplices.astype(np.int32)
    a, b, c = (points[found[:, k]] for k in range(3))
    flip = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    found[flip] = found[flip][:, ::-1]
    return found
