"""The inside of the mouth in layers: cavity, tongue and lower teeth with the jaw, upper teeth with the skull.

Layers are pictures with premultiplied alpha in a box around the photo's mouth, in the photo's own geometry with the
jaw closed. Rendering moves them and clips them by the inner lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LIPS_INNER, LIPS_OUTER
from deployments.portrait.teeth import draw_lower, draw_tongue, draw_upper, own_teeth, teeth_color

SPRITE_PIXELS = 190.0  # sprite pixels per eye distance at least; small photos are drawn finer and averaged down
LIP_MARGIN = 0.05  # eye distances in which teeth may hide under misplaced inner-lip points
INSET = 0.012  # eye distances


@dataclass(frozen=True)
class MouthLayers:
    """Mouth layers of one photo. Sprite pixel = fine * (photo pixel - origin), pixel centres considered."""

    origin: tuple[int, int]  # photo pixel of the box's corner
    fine: int  # sprite pixels per photo pixel
    upper: NDArray[np.float32]  # [h, w, 4] premultiplied RGB 0..255 and alpha 0..1
    lower: NDArray[np.float32]  # [h, w, 4]
    tongue: NDArray[np.float32]  # [h, w, 4]
    cavity: NDArray[np.float32]  # [3] RGB
    seam: NDArray[np.float32]  # [3] RGB of the line where lips touch, and of the lips' inner shadow
    skin: NDArray[np.uint8]  # [H, W, 3] the photo with lips continued over the mouth's opening
    own_teeth: bool  # the upper teeth are the photo's own


@dataclass(frozen=True)
class MouthFrame:
    """Head-frame anchors of the mouth for drawing, and the way to sprite pixels."""

    center: NDArray[np.float64]  # [3] where closed lips meet
    half_width: float  # eye distances
    linear: NDArray[np.float64]  # [2, 3] sprite pixels <- head
    offset: NDArray[np.float64]  # [2]
    shape: tuple[int, int]  # sprite height, width

    def to_sprite(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [P, 3] relative to the centre, head axes -> sprite pixels [P, 2]."""
        return (self.center + points) @ self.linear.T + self.offset

    @property
    def unit(self) -> float:
        """Sprite pixels per eye distance."""
        return float(np.linalg.norm(self.linear[:, 0]))


def mouth_layers(
    rgb: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    head: NDArray[np.float64],
    linear: NDArray[np.float64],
    translation: NDArray[np.float64],
) -> MouthLayers:
    """Layers for a photo [H, W, 3] with landmarks [478, 3] in pixels and their head-frame points [478, 3]."""
    scale = float(np.cbrt(np.linalg.det(linear)))
    fine = int(np.clip(np.ceil(SPRITE_PIXELS / scale), 1, 6))
    low = np.floor(landmarks[list(LIPS_OUTER), :2].min(0) - 0.25 * scale).astype(int)
    high = np.ceil(landmarks[list(LIPS_OUTER), :2].max(0) + 0.45 * scale).astype(int)
    center = (head[[13, 14]].mean(0) + head[[78, 308]].mean(0) * [1, 0, 0]) / [2, 1, 1]
    frame = MouthFrame(
        center=center + np.array([0, 0, 0.05]),
        half_width=float(np.linalg.norm(head[308] - head[78]) / 2),
        linear=fine * linear[:2],
        offset=fine * (translation[:2] - low) + (fine - 1) / 2,
        shape=(int(fine * (high[1] - low[1])), int(fine * (high[0] - low[0]))),
    )
    skin_tone = sample(rgb, landmarks, (50, 280, 205, 425, 101, 330))
    lip_tone = sample(rgb, landmarks, (0, 17, 37, 267, 84, 314))
    opening = opening_mask(rgb, landmarks, scale)
    own = own_teeth(rgb, landmarks, skin_tone, tuple(low), frame.shape, fine, scale)
    color = teeth_color(skin_tone, own)
    return MouthLayers(
        origin=(int(low[0]), int(low[1])),
        fine=fine,
        upper=own if own is not None else draw_upper(frame, color),
        lower=draw_lower(frame, 0.8 * color),
        tongue=draw_tongue(frame, lip_tone, skin_tone),
        seam=(0.5 * lip_tone * [0.9, 0.72, 0.72]).astype(np.float32),
        cavity=(0.2 * skin_tone * [1.0, 0.55, 0.5]).astype(np.float32),
        skin=np.asarray(cv2.inpaint(rgb, opening, 3, cv2.INPAINT_TELEA), np.uint8) if opening.any() else rgb,
        own_teeth=own is not None,
    )


def sample(rgb: NDArray[np.uint8], landmarks: NDArray[np.float32], points: tuple[int, ...]) -> NDArray[np.float64]:
    """Median colour [3] of small patches around landmarks."""
    height, width = rgb.shape[:2]
    patches = []
    for k in points:
        x, y = int(np.clip(landmarks[k, 0], 1, width - 2)), int(np.clip(landmarks[k, 1], 1, height - 2))
        patches.append(rgb[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3))
    return np.asarray(np.median(np.concatenate(patches), axis=0), np.float64)


def opening_mask(rgb: NDArray[np.uint8], landmarks: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Mask [H, W] (255 inside) of what is teeth or cavity in the photo, also where it peeps past the inner-lip points."""
    mask = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(landmarks[list(LIPS_INNER), :2] * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    if not mask.any() or np.linalg.norm(landmarks[13, :2] - landmarks[14, :2]) < 0.03 * scale:
        return np.zeros_like(mask)
    lips = np.zeros_like(mask)
    cv2.fillPoly(lips, [np.round(landmarks[list(LIPS_OUTER), :2] * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    size = 2 * max(1, round(LIP_MARGIN * scale)) + 1
    near = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    lip_red = np.median(lab[(lips > 0) & ~near, 1]) if ((lips > 0) & ~near).any() else np.median(lab[near, 1]) + 10
    inner_red = np.median(lab[mask > 0, 1])
    toothy = lab[..., 1] < (lip_red + inner_red) / 2
    mask[near & toothy & (lips > 0)] = 255
    return np.asarray(cv2.dilate(mask, np.ones((3, 3), np.uint8)), np.uint8)
