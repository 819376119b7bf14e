"""What the networks are told of a portrait: its square, and where face and lips lie in it. Boxes as in Hallo2 (MIT)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from deployments.face.landmarks import FACE_OVAL, LIPS_OUTER

Floats = NDArray[np.float32]
FACE_SHARE = 0.6  # of the square's side that the face's height takes: the checkpoint learned 50 to 70 %
FACE_GROWTH, LIP_GROWTH = 1.2, 2.0
COARSE = 64  # side of the masks
FACE_BLUR, LIP_BLUR = 51, 31
FAINT = 1 / 255  # the public masks of what is not the face hold 0 and 1 where 255 was meant; the checkpoint saw those


@dataclass(frozen=True)
class Square:
    """The part of a picture that is generated, in pixels."""

    x: int
    y: int
    side: int


@dataclass(frozen=True)
class Sitter:
    """One portrait, ready for the networks."""

    picture: NDArray[np.uint8]  # [S, S, 3]
    region: Floats  # [S, S] 1 in the face's box
    parts: Floats  # [3, 64, 64] what is not the face, the face without its lips, the lips
    embedding: Floats  # [512] of the face; zeros where nobody computed one


def square_of(points: Floats, size: tuple[int, int]) -> Square:
    """The square around landmarks [478, >=2] in a picture of `size` (height, width); as large as fits at most."""
    low, high = points[list(FACE_OVAL), :2].min(0), points[list(FACE_OVAL), :2].max(0)
    side = min(*size, round(float((high - low).max()) / FACE_SHARE))
    left, top = np.round((low + high) / 2 - side / 2).astype(int)
    return Square(int(np.clip(left, 0, size[1] - side)), int(np.clip(top, 0, size[0] - side)), side)


def sit(picture: NDArray[np.uint8], points: Floats, square: Square, side: int, embedding: Floats) -> Sitter:
    """What is known of the face with landmarks [478, >=2] in a picture [H, W, 3], in its square scaled to `side`."""
    cut = picture[square.y : square.y + square.side, square.x : square.x + square.side]
    shrinks = side < square.side
    scaled = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    local = (points[:, :2] - (square.x, square.y)) * (side / square.side)
    face = box_mask(local[list(FACE_OVAL)], side, FACE_GROWTH)
    lips = box_mask(local[list(LIPS_OUTER)], side, LIP_GROWTH)
    blurred, soft = blurred_mask(face, FACE_BLUR), blurred_mask(lips, LIP_BLUR)
    parts = np.stack([FAINT * np.round(1 - blurred), np.maximum(blurred - soft, 0), soft]).astype(np.float32)
    return Sitter(np.ascontiguousarray(scaled), face, parts, embedding)


def box_mask(points: Floats, side: int, growth: float) -> Floats:
    """1 in the grown box of points [P, 2], in a picture of `side`."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, growth * (high - low) / 2
    first = np.clip(np.round(middle - half), 0, side - 1).astype(int)
    last = np.clip(np.round(middle + half), 1, side).astype(int)
    mask = np.zeros((side, side), np.float32)
    mask[first[1] : last[1], first[0] : last[0]] = 1
    return mask


def blurred_mask(mask: Floats, kernel: int) -> Floats:
    """A mask [S, S] at 64 x 64, softened, from 0 to 1."""
    small = cv2.GaussianBlur(cv2.resize(mask, (COARSE, COARSE)), (kernel, kernel), 0)
    return np.asarray((small - small.min()) / max(float(np.ptp(small)), 1e-6), np.float32)


def levels_of(parts: Floats, place: int, levels: int) -> list[torch.Tensor]:
    """Masks [3, L] for levels whose pictures have sides `place`, `place`/2, …"""
    masks = torch.from_numpy(parts)[None]
    sides = [max(1, place >> level) for level in range(levels)]
    return [functional.interpolate(masks, size=(s, s), mode="bilinear", antialias=True)[0].flatten(1) for s in sides]
