"""What a face does in one frame, as 18 numbers: the space that the diffusion transformer works in.

    0..7   lips and jaw (deployments.motion.lip_space)      8..10  yaw, pitch, roll
    11..13 place of the head in the picture, x, y, log size  14     how open the eyes are
    15     how high the brows are                            16, 17 where the eyes look, x, y
All are taken around the person's own mean; the spread they are divided by is a table that travels with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import LIP_COEFFICIENTS
from deployments.face.pose import canonical, stable_mean
from deployments.motion.lip_space import LipSpace

Floats = NDArray[np.float32]

LIPS = slice(0, LIP_COEFFICIENTS)
HEAD = slice(8, 14)
LID, BROW = 14, 15
GAZE = slice(16, 18)
LATENT = 18
DISTANCE = 13
EMOTION = 2  # corners of the mouth, brows: mean height over a window
RATE = 25.0  # latents per second

EYES = ((33, 133, 159, 145, 468), (263, 362, 386, 374, 473))  # outer, inner, upper lid, lower lid, iris
BROWS = ((105, 66, 63), (334, 296, 293))
CORNERS, LIP_CENTRE = (61, 291), (0, 17)


@dataclass(frozen=True)
class Face:
    """Latents [T, 18] as measured, neither centred nor divided by a spread; mood [T, 2]."""

    latents: Floats
    mood: Floats


def measure(landmarks: Floats) -> Face:
    """Latents of usable landmarks [T, 478, 3] of one person, in pixels."""
    faces = canonical(landmarks, stable_mean(landmarks).astype(np.float32))
    points, size = faces.points, faces.scale
    out = np.empty((len(points), LATENT), np.float32)
    out[:, LIPS] = LipSpace.load().encode(points)
    out[:, 8:11] = faces.angles()
    out[:, 11:13] = faces.translation[:, :2] / np.median(size)
    out[:, DISTANCE] = np.log(size)
    out[:, LID] = lid_opening(points)
    out[:, BROW] = brow_height(points)
    out[:, GAZE] = gaze(points)
    mood = np.stack([corner_height(points), out[:, BROW]], axis=1)
    return Face(out, mood.astype(np.float32))


def lid_opening(points: Floats) -> Floats:
    """Height over width of the eyes [T]."""
    ratios = [np.linalg.norm(points[:, u] - points[:, d], axis=1) / _width(points, o, i) for o, i, u, d, _ in EYES]
    return np.asarray(np.mean(ratios, axis=0), np.float32)


def brow_height(points: Floats) -> Floats:
    """Height of the brows over the eyes' corners [T], eye distances."""
    sides = zip(EYES, BROWS, strict=True)
    heights = [points[:, [o, i], 1].mean(1) - points[:, list(brow), 1].mean(1) for (o, i, *_), brow in sides]
    return np.asarray(np.mean(heights, axis=0), np.float32)


def gaze(points: Floats) -> Floats:
    """Iris from the middle between the eye's corners [T, 2], in eye widths: to the picture's right, and down."""
    offsets = [(points[:, k, :2] - points[:, [o, i], :2].mean(1)) / _width(points, o, i)[:, None] for o, i, _, _, k in EYES]
    return np.asarray(np.mean(offsets, axis=0), np.float32)


def corner_height(points: Floats) -> Floats:
    """Height of the mouth's corners over the middle of the lips [T], eye distances: a smile lifts them."""
    return np.asarray(points[:, list(LIP_CENTRE), 1].mean(1) - points[:, list(CORNERS), 1].mean(1), np.float32)


def _width(points: Floats, outer: int, inner: int) -> Floats:
    return np.asarray(np.linalg.norm(points[:, outer] - points[:, inner], axis=1), np.float32)
