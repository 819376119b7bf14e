"""Teeth and tongue: drawn, or taken from a photo whose smile shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.landmarks import LIPS_INNER

if TYPE_CHECKING:
    from deployments.portrait.mouth import MouthFrame

# widths and heights of half an arch from the middle outwards, in eye distances (90 mm); after Wheeler's tables
UPPER_WIDTHS = (0.094, 0.073, 0.084, 0.078, 0.078)
UPPER_HEIGHTS = (0.116, 0.102, 0.112, 0.094, 0.086)
LOWER_WIDTHS = (0.059, 0.065, 0.076, 0.078, 0.08)
LOWER_HEIGHTS = (0.098, 0.1, 0.11, 0.09, 0.085)
ARCH_RADIUS = 0.29  # eye distances
UPPER_EDGE = 0.028  # the upper incisors end a little below the line where closed lips meet
LOWER_EDGE = 0.03
MIN_OWN_GAP = 0.055  # inner-lip gap in eye distances from which a photo's own teeth can be used
MIN_OWN_SHARE = 0.42  # of the opening must be teeth
MIN_OWN_WIDTH = 0.55  # of the opening's width
MIN_OWN_HEIGHT = 0.045  # eye distances
MIN_OWN_SOLID = 0.75  # of the closed row must be tooth pixels


def teeth_color(skin: NDArray[np.float64], own: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Tooth colour [3]: the photo's own, or a warm white under the light that the skin shows."""
    if own is not None:
        solid = own[..., 3] > 0.9
        return np.asarray(np.percentile(own[solid][:, :3], 60, axis=0), np.float64)
    light = float(skin @ [0.299, 0.587, 0.114])
    cast = skin / max(light, 1.0) / np.array([1.25, 0.93, 0.72])
    return np.asarray(np.clip(min(1.22 * light, 215.0) * np.array([1.0, 0.94, 0.85]) * cast**0.3, 0, 235), np.float64)


def tooth(width: float, height: float, down: bool, round_off: float) -> NDArray[np.float64]:
    """Outline [P, 2] of one tooth, biting edge at y = 0, root towards -y (`down`, upper jaw) or +y."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = 2 / round_off
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power * width / 2
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power * height / 2
    x = x * (1 - 0.1 * (y / height + 0.5) * (-1 if down else 1))
    return np.stack([x, (y - height / 2) if down else (y + height / 2)], axis=1)


def draw_arch(
    frame: MouthFrame, color: NDArray[np.float64], widths: tuple[float, ...], heights: tuple[float, ...], edge: float, down: bool
) -> NDArray[np.float32]:
    """One row of teeth [h, w, 4], premultiplied, with gaps, rounding and shading of each tooth."""
    layer = gum(frame, color, widths, heights, edge, down)
    for side in (-1, 1):
        arc = 0.0
        for n, (width, height) in enumerate(zip(widths, heights, strict=True)):
            middle = (arc + width / 2) / ARCH_RADIUS
            arc += width
            lift = (-1 if down else 1) * 0.012 * n * (0.6 if n == 1 else 1.0) * 0.6
            outline = tooth(width * 0.985, height, down, 3.2 if n < 2 else 2.7)
            place = np.zeros((len(outline), 3))
            place[:, 0] = side * (ARCH_RADIUS * np.sin(middle) + outline[:, 0] * np.cos(middle))
            place[:, 1] = edge + lift + outline[:, 1]
            place[:, 2] = ARCH_RADIUS * (1 - np.cos(middle))
            light = (1.0, 0.95, 0.88, 0.72, 0.52)[n]
            paint(layer, frame, place, color * light, down)
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), max(0.35, 0.0045 * frame.unit)), np.float32)


def paint(
    layer: NDArray[np.float32], frame: MouthFrame, place: NDArray[np.float64], color: NDArray[np.float64], down: bool
) -> None:
    """Paint one tooth over the layer, brightest in its middle, translucent and darker at the biting edge."""
    spots = frame.to_sprite(place)
    mask = np.zeros(frame.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(spots * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    body = cv2.GaussianBlur(alpha, (0, 0), 0.016 * frame.unit)
    shade = 0.62 + 0.38 * np.clip((body - 0.45) / 0.5, 0, 1)
    rows = np.arange(frame.shape[0], dtype=np.float32)[:, None]
    low, high = spots[:, 1].min(), spots[:, 1].max()
    from_edge = (high - rows) / (high - low) if down else (rows - low) / (high - low)
    shade = shade * (0.9 + 0.1 * np.clip(from_edge / 0.35, 0, 1))
    warm = np.stack([np.ones_like(from_edge), 1 - 0.03 * np.clip(from_edge, 0, 1), 1 - 0.08 * np.clip(from_edge, 0, 1)], axis=2)
    rgb = shade[..., None] * warm * color
    layer[..., :3] = layer[..., :3] * (1 - alpha[..., None]) + rgb * alpha[..., None]
    layer[..., 3] = layer[..., 3] * (1 - alpha) + alpha


def gum(
    frame: MouthFrame, color: NDArray[np.float64], widths: tuple[float, ...], heights: tuple[float, ...], edge: float, down: bool
) -> NDArray[np.float32]:
    """The dark ground between the teeth and the gum above them [h, w, 4], premultiplied."""
    angles = np.linspace(-1, 1, 31) * sum(widths) / ARCH_RADIUS
    sign = -1 if down else 1
    near, far = edge + sign * 0.2 * heights[0], edge + sign * 1.6 * heights[0]
    rim = [(ARCH_RADIUS * np.sin(a), near, ARCH_RADIUS * (1 - np.cos(a))) for a in angles]
    rim += [(ARCH_RADIUS * np.sin(a), far, ARCH_RADIUS * (1 - np.cos(a))) for a in angles[::-1]]
    mask = np.zeros(frame.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(frame.to_sprite(np.array(rim)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32)[..., None] / 255
    tone = color * [0.5, 0.26, 0.24]
    return np.concatenate([alpha * tone, alpha], axis=2).astype(np.float32)


def draw_upper(frame: MouthFrame, color: NDArray[np.float64]) -> NDArray[np.float32]:
    """Upper teeth, rigid to the skull."""
    return draw_arch(frame, color, UPPER_WIDTHS, UPPER_HEIGHTS, UPPER_EDGE, True)


def draw_lower(frame: MouthFrame, color: NDArray[np.float64]) -> NDArray[np.float32]:
    """Lower teeth with the jaw closed; a little behind the upper ones."""
    return draw_arch(frame, color, LOWER_WIDTHS, LOWER_HEIGHTS, LOWER_EDGE, False)


def draw_tongue(frame: MouthFrame, lips: NDArray[np.float64], skin: NDArray[np.float64]) -> NDArray[np.float32]:
    """Tongue behind the lower teeth: a soft ellipse with a lit ridge, [h, w, 4] premultiplied."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    center, half, tall = 0.075, 0.8 * frame.half_width, 0.085
    outline = np.stack([half * np.cos(t), center + tall * np.sin(t), np.full(60, 0.1)], axis=1)
    mask = np.zeros(frame.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(frame.to_sprite(outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.02 * frame.unit)
    ridge = cv2.GaussianBlur(alpha, (0, 0), 0.05 * frame.unit)
    light = float(skin @ [0.299, 0.587, 0.114])
    tone = 0.45 * lips * [0.95, 0.8, 0.8] + 0.3 * light * np.array([0.95, 0.5, 0.5])
    rgb = (0.45 + 0.5 * ridge)[..., None] * tone
    return np.concatenate([rgb * alpha[..., None], alpha[..., None]], axis=2).astype(np.float32)


def own_teeth(
    rgb: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    skin: NDArray[np.float64],
    origin: tuple[int, ...],
    shape: tuple[int, int],
    fine: int,
    scale: float,
) -> NDArray[np.float32] | None:
    """The photo's own upper teeth [h, w, 4] premultiplied, or None where the photo shows too little of them."""
    if np.linalg.norm(landmarks[14, :2] - landmarks[13, :2]) < MIN_OWN_GAP * scale:
        return None
    x, y = origin
    h, w = shape[0] // fine, shape[1] // fine
    if x < 0 or y < 0 or y + h > rgb.shape[0] or x + w > rgb.shape[1]:
        return None
    crop = rgb[y : y + h, x : x + w]
    fine_rgb = np.asarray(cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    mask = np.zeros(shape, np.uint8)
    outline = (landmarks[list(LIPS_INNER), :2] - origin) * fine + (fine - 1) / 2
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    toothy = first_row(tooth_pixels(fine_rgb, mask > 0, skin), round(0.008 * scale * fine))
    solid = tooth_row(toothy, max(3, round(0.03 * scale * fine)))
    columns, wide = np.flatnonzero(solid.any(axis=0)), np.ptp(np.flatnonzero((mask > 0).any(axis=0)))
    if toothy.sum() < MIN_OWN_SHARE * (mask > 0).sum() or len(columns) < MIN_OWN_WIDTH * wide:
        return None
    if toothy.sum() < MIN_OWN_SOLID * solid.sum():
        return None
    if np.median(solid.sum(axis=0)[columns]) < MIN_OWN_HEIGHT * scale * fine:
        return None
    return grown(fine_rgb, toothy, solid, 0.045 * scale * fine, fine)


def tooth_pixels(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], skin: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Bright, hardly red pixels [h, w] of the opening `inside`; none where its brightest part is dark or red as `skin`."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    around = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8), iterations=2) > 0
    lip_red = float(np.median(lab[around & ~inside, 1]))
    bright = float(np.percentile(lab[inside, 0], 85))
    red = float(np.median(lab[inside & (lab[..., 0] > 0.9 * bright), 1]))
    skin_red = float(cv2.cvtColor(skin.astype(np.uint8)[None, None], cv2.COLOR_RGB2LAB)[0, 0, 1])
    if bright < 110 or red > min(lip_red - 5, skin_red - 3):
        return np.zeros_like(inside)
    return inside & (lab[..., 0] > 0.62 * bright) & (lab[..., 1] < red + 0.5 * (lip_red - red))


def first_row(toothy: NDArray[np.bool_], tolerance: int) -> NDArray[np.bool_]:
    """The teeth [h, w] above the first dark gap of each column: the lower row belongs to the jaw.

    Gaps of up to `tolerance` pixels do not count.
    """
    kernel = np.ones((tolerance + 1, 1), np.uint8)
    closed = np.asarray(cv2.morphologyEx(toothy.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.int32)
    starts = np.diff(closed, axis=0, prepend=0) > 0
    return toothy & (np.cumsum(starts, axis=0) <= 1)


def tooth_row(toothy: NDArray[np.bool_], reach: int) -> NDArray[np.uint8]:
    """The largest connected row of teeth [h, w] with gaps up to `reach` pixels closed."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(toothy.astype(np.uint8), cv2.MORPH_CLOSE, kernel))
    if count < 2:
        return np.zeros(toothy.shape, np.uint8)
    row = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(row, cv2.MORPH_OPEN, kernel), np.uint8)


def grown(
    rgb: NDArray[np.uint8], toothy: NDArray[np.bool_], solid: NDArray[np.uint8], reach: float, fine: int
) -> NDArray[np.float32]:
    """Teeth continued upwards under the lip by `reach` pixels: colours of the nearest tooth pixel, softly bounded."""
    size = max(1, round(reach))
    up = np.maximum(cv2.dilate(solid, np.ones((size + 1, 1), np.uint8), anchor=(0, 0)), solid)
    source = cv2.erode((toothy & (solid > 0)).astype(np.uint8), np.ones((fine, fine), np.uint8))
    labels = cv2.distanceTransformWithLabels(1 - source, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    index = np.zeros(labels.max() + 1, np.int64)
    index[labels[source > 0]] = np.flatnonzero(source)
    filled = rgb.reshape(-1, 3)[index[labels]].astype(np.float32)
    keep = (solid > 0)[..., None]
    filled = np.where(keep, rgb.astype(np.float32), cv2.GaussianBlur(filled, (0, 0), 1.0 * fine))
    alpha = cv2.GaussianBlur(up.astype(np.float32), (0, 0), 0.5 * fine)
    return np.concatenate([filled * alpha[..., None], alpha[..., None]], axis=2).astype(np.float32)
