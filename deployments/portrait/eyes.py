"""The eyes of a photo: skin behind the lids, and how far the lids go."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.portrait.mesh import FACE_POINTS, LEFT_EYE, RIGHT_EYE

LID_LIGHT = 0.9  # lids lie a little in the brow's shade
LASH_REACH = 0.062  # eye distances around the eye in which lashes and the lid's crease lie
MIN_OPEN = 0.14  # eye height over width below which a photo's eyes count as closed
LOWER_SHARE = 0.12  # of the way that the lower lid makes


@dataclass(frozen=True)
class EyeLayers:
    """The photo with skin drawn over the eyes, and what the lashes look like."""

    skin: NDArray[np.uint8]  # [H, W, 3]
    lash: NDArray[np.float32]  # [3] RGB


def eye_layers(photo: NDArray[np.uint8], landmarks: NDArray[np.float32], scale: float) -> EyeLayers:
    """Continue the lids' skin over both eyes of a photo [H, W, 3]; `scale` is pixels per eye distance."""
    mask = np.zeros(photo.shape[:2], np.uint8)
    for ring in (RIGHT_EYE, LEFT_EYE):
        cv2.fillPoly(mask, [np.round(landmarks[list(ring), :2] * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    dark = photo[mask > 0]
    lash = np.percentile(dark, 10, axis=0) if len(dark) else np.zeros(3)
    size = 2 * max(1, round(LASH_REACH * scale)) + 1
    grown = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
    return EyeLayers(skin_over(photo, grown, landmarks, scale), lash.astype(np.float32))


def skin_over(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], landmarks: NDArray[np.float32], scale: float
) -> NDArray[np.uint8]:
    """The photo with smooth skin in `hole` [H, W]: an average of the bright skin around it, without brows and lashes."""
    out = photo.copy()
    for ring in (RIGHT_EYE, LEFT_EYE):
        pad = int(0.35 * scale) + 2
        low = np.maximum(np.floor(landmarks[list(ring), :2].min(0)).astype(int) - pad, 0)
        high = np.ceil(landmarks[list(ring), :2].max(0)).astype(int) + pad
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        view, gap = photo[part].astype(np.float32), hole[part]
        light = view.mean(axis=2)
        if gap.all() or not gap.any():
            continue
        weight = (~gap & (light > 0.5 * np.percentile(light[~gap], 70))).astype(np.float32)
        sigma = 0.05 * scale
        amount = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
        mean = cv2.GaussianBlur(view * weight[..., None], (0, 0), sigma) / np.maximum(amount, 1e-4)
        cheek = np.median(view[weight > 0], axis=0) if weight.any() else view.mean(axis=(0, 1))
        warm = cheek * (mean.mean(axis=2, keepdims=True) / max(float(cheek.mean()), 1.0))
        mean = (mean + warm) / 2  # light from the place, tint from the skin: lashes and whites leak grey
        soft = cv2.GaussianBlur(gap.astype(np.float32), (0, 0), 0.02 * scale)[..., None]
        soft = soft * np.clip(amount / 0.01, 0, 1)
        out[part] = np.clip(view + (LID_LIGHT * mean - view) * soft, 0, 255).astype(np.uint8)
    return out


def eyes_open(head: NDArray[np.float64]) -> bool:
    """False for a photo with (nearly) closed eyes, whose lids have nowhere to go."""
    ratios = []
    for ring in (RIGHT_EYE, LEFT_EYE):
        height, width = head[ring[4]] - head[ring[12]], head[ring[0]] - head[ring[8]]
        ratios.append(np.linalg.norm(height) / np.linalg.norm(width))
    return float(np.mean(ratios)) > MIN_OPEN


def lid_move(head: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displacement [468, 3] of a full blink: upper lids meet the lower, the skin above is drawn along."""
    move = np.zeros((FACE_POINTS, 3))
    flat = head[:FACE_POINTS, :2]
    for ring in (RIGHT_EYE, LEFT_EYE):
        upper, lower = ring[1:8], ring[:8:-1]
        gap = head[list(lower)] - head[list(upper)]
        gap[:, 0] = 0.0
        width = np.linalg.norm(flat[ring[8]] - flat[ring[0]])
        order = np.argsort(flat[list(upper), 0])
        xs, gaps = flat[list(upper), 0][order], gap[order]
        for k in range(FACE_POINTS):
            x, y = flat[k]
            rim = np.interp(x, xs, flat[list(upper), 1][order])
            side = np.clip(1.6 - abs(x - flat[list(ring), 0].mean()) / (0.45 * width), 0, 1)
            fade = np.clip(1 - (rim - y) / (0.55 * width), 0, 1) ** 1.5
            if y <= rim + 1e-6 and k not in lower and fade * side > 0:
                share = np.array([np.interp(x, xs, gaps[:, axis]) for axis in range(3)])
                move[k] = share * fade * side * (1 - LOWER_SHARE)
        move[list(upper)] = gap * (1 - LOWER_SHARE)
        move[list(lower)] = -gap * LOWER_SHARE
        move[[ring[0], ring[8]]] = 0.0
    return move
