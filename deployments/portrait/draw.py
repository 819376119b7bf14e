"""Frames of a portrait: the photo through the mesh, the mouth's layers under the lips, the lids over the eyes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.crop import Window
from deployments.face.landmarks import FACE_OVAL, LIPS_INNER
from deployments.portrait.brows import brow_moves
from deployments.portrait.controls import Expression
from deployments.portrait.eyes import lid_move
from deployments.portrait.iris import look
from deployments.portrait.mesh import FACE_POINTS, LEFT_EYE, RIGHT_EYE
from deployments.portrait.model import PortraitModel
from deployments.portrait.mouth import MouthLayers
from deployments.portrait.move import face_move
from kernels.mesh_warp import rasterize

PIVOT = np.array([0.0, 0.75, 0.55])  # head frame: inside the head below the ears, so that the silhouette hardly moves
LASH = 0.006  # eye distances, half the width of the closed lashes
EYE_SHADE = 0.2  # the lid's shadow on the eye
SOFT = 0.004  # eye distances, softness of lip edges and lashes
CONTACT = 0.0045  # eye distances, half the width of the dark line between closed lips
TEETH_PLANE = (2, 94, 164, 0, 205, 425)  # skull points around the mouth: their head motion carries the upper teeth
POLYGON_FINE = 4
LIDS_STILL = 0.04  # lids that move less are drawn by the mesh alone
LID_FOLLOWS = 0.8  # closure per eye width that the eyes look down
CORNERS_OUTER = (61, 291)
SMILE_APART = 0.45  # of the rise
NEUTRAL = Expression()
STILL = np.eye(3)
STILL_PIXELS = 0.004  # moves below this are no moves: the picture stays as it is to the bit


@dataclass(frozen=True)
class Pose:
    """One frame's controls."""

    displacement: NDArray[np.float64]  # [P, 3] of the moved points, from lips at rest
    lids: float  # 0 open .. 1 closed
    rotation: NDArray[np.float64]  # [3, 3] of the head about its pivot
    shift: NDArray[np.float64]  # [3] eye distances
    gaze: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))  # eye widths from the photo's: right, down
    expression: Expression = NEUTRAL
    size: float = 1.0  # of the head, about its pivot


class PortraitRenderer:
    """Draws frames of one model."""

    def __init__(self, model: PortraitModel) -> None:
        self._model = model
        self._lids = lid_move(model.head)
        self._brows, self._inner = brow_moves(model.head)
        self._smile = corner_move(model)
        self._source = np.concatenate([model.project(model.head[:FACE_POINTS]), model.project(model.rings), model.border])
        self.window = moving_window(model)

    def frame(self, pose: Pose) -> NDArray[np.uint8]:
        """The window's pixels [h, w, 3] for one pose."""
        asked = pose.expression
        move, jaw = face_move(self._model, pose.displacement + asked.corners * self._smile)
        upper = closure_of(pose) * self._lids + asked.brows * self._brows + asked.inner * self._inner
        target = self._targets(move + upper, pose)
        window = self.window
        raster = rasterize(self._model.triangles, target.astype(np.float32), window.height, window.width, (window.x, window.y))
        source = raster.values(self._source.astype(np.float32))
        out = read(self._model.layers.skin, source)
        self._draw_eyes(out, source, target, pose)
        self._draw_mouth(out, target, jaw, pose)
        return out

    def _targets(self, move: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
        """Pixels [V, 2] of all mesh corners."""
        model = self._model
        face = model.head[:FACE_POINTS] + move
        turned = self._turn(face, pose)
        ring_turn = (self._turn(model.rings, pose) - model.rings) * model.ring_head[:, None]
        oval = list(FACE_OVAL)
        ring_jaw = np.tile(move[oval], (len(model.rings) // len(oval), 1)) * model.ring_lips[:, None]
        points = np.concatenate([model.project(turned), model.project(model.rings + ring_turn + ring_jaw), model.border])
        moved = np.abs(points - self._source).max(axis=1) > STILL_PIXELS
        return np.where(moved[:, None], points, self._source)

    def _turn(self, points: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
        return np.asarray(pose.size * ((points - PIVOT) @ pose.rotation.T) + PIVOT + pose.shift, np.float64)

    def _draw_eyes(self, out: NDArray[np.uint8], source: NDArray[np.float32], target: NDArray[np.float64], pose: Pose) -> None:
        """Where lids or irises move: skin over the eye, the eye in what is open, lashes along the lid."""
        lids = closure_of(pose)
        if lids == 0 and not pose.gaze.any():
            return
        origin = (self.window.x, self.window.y)
        for ring in (RIGHT_EYE, LEFT_EYE):
            points = list(ring)
            still = self._model.project(self._turn(self._model.head[points], pose)) - origin
            pad = int(0.16 * self._model.scale) + 3
            low, high = np.floor(still.min(0)).astype(int) - pad, np.ceil(still.max(0)).astype(int) + pad
            box = clip_box(low[0], low[1], high[0] - low[0], high[1] - low[1], out.shape)
            if box is None:
                continue
            x, y, w, h = box
            eye = self._eye(ring, fit_affine(self._source[points], still - (x, y)), pose, w, h)
            polygon = target[points] - origin - (x, y)
            open_part = polygon_alpha(polygon, w, h)
            if lids <= LIDS_STILL:
                blend(out, eye, soft(open_part, max(0.3, SOFT * self._model.scale)), box)
                continue
            part = source[y : y + h, x : x + w]
            lid = read(self._model.eyes.skin, part)
            lashes = line_alpha(polygon[:9], w, h, LASH * self._model.scale)
            lashes = cv2.GaussianBlur(lashes, (0, 0), max(0.3, SOFT * self._model.scale))[..., None] * 0.7
            view = lid * (1 - open_part[..., None]) + eye * (1 - EYE_SHADE * lids) * open_part[..., None]
            view += (self._model.eyes.lash - view) * lashes
            reach = 2 * round(0.09 * self._model.scale) + 1
            around = cv2.dilate(polygon_alpha(still - (x, y), w, h), np.ones((reach, reach), np.uint8))
            around = cv2.GaussianBlur(around, (0, 0), 0.02 * self._model.scale) * min(1.0, 3 * lids)
            blend(out, view.astype(np.float32), around, box)

    def _eye(
        self, ring: tuple[int, ...], matrix: NDArray[np.float64], pose: Pose, width: int, height: int
    ) -> NDArray[np.float32]:
        """What lies between the lids [h, w, 3]: the photo's own eye, looking where it is told."""
        ball = self._model.balls.get(ring)
        if ball is None or not pose.gaze.any():
            flags, border = cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101
            return np.asarray(
                cv2.warpAffine(self._model.photo, matrix, (width, height), flags=flags, borderMode=border), np.float32
            )
        return look(ball, matrix, pose.gaze, width, height)

    def _draw_mouth(self, out: NDArray[np.uint8], target: NDArray[np.float64], jaw: NDArray[np.float64], pose: Pose) -> None:
        """The layers behind the lips, clipped by the inner-lip polygon."""
        model, layers = self._model, self._model.layers
        polygon = target[list(LIPS_INNER)] - (self.window.x, self.window.y)
        pad = 3 + int(0.04 * model.scale)
        low, high = np.floor(polygon.min(0)).astype(int) - pad, np.ceil(polygon.max(0)).astype(int) + pad
        box = clip_box(low[0], low[1], high[0] - low[0] + 1, high[1] - low[1] + 1, out.shape)
        if box is None:
            return
        corner = np.array([self.window.x + box[0], self.window.y + box[1]])
        skull = fit_affine(
            self._source[list(TEETH_PLANE)], model.project(self._turn(model.head[list(TEETH_PLANE)], pose)) - corner
        )
        jaw_pixels = (pose.rotation @ jaw) @ model.pixels_from_head[:2].T
        alpha = polygon_alpha(seamed(polygon, CONTACT * model.scale) - (box[0], box[1]), box[2], box[3])
        alpha = soft(alpha, max(0.3, SOFT * model.scale))
        inside = mouth_inside(layers, skull, jaw_pixels, box[2], box[3], alpha, model.scale)
        blend(out, inside, alpha, box)


def mouth_inside(
    layers: MouthLayers,
    skull: NDArray[np.float64],
    jaw: NDArray[np.float64],
    width: int,
    height: int,
    alpha: NDArray[np.float32],
    scale: float,
) -> NDArray[np.float32]:
    """Cavity, tongue, lower and upper teeth over each other [h, w, 3], shadowed by the lips."""
    rgb = np.broadcast_to(layers.cavity, (height, width, 3)).copy()
    fall = jaw.copy()
    for layer, move in ((layers.tongue, 0.8 * fall), (layers.lower, fall), (layers.upper, 0 * fall)):
        sheet = warp_sprite(layer, layers, skull, move, width, height)
        rgb = rgb * (1 - sheet[..., 3:]) + sheet[..., :3]
    light = lip_shadow(alpha, scale)[..., None]
    dark = layers.seam * (1 - light) * (0.45 + 0.55 * seam_share(alpha, scale)[..., None])
    return np.asarray(dark + rgb * light, np.float32)


def warp_sprite(
    layer: NDArray[np.float32],
    layers: MouthLayers,
    skull: NDArray[np.float64],
    move: NDArray[np.float64],
    width: int,
    height: int,
) -> NDArray[np.float32]:
    """A layer in output pixels [h, w, 4]; drawn `fine` times larger and averaged, so thin gaps do not shimmer."""
    fine = layers.fine
    x, y = np.array(layers.origin) - (fine - 1) / (2 * fine)
    to_photo = np.array([[1 / fine, 0, x], [0, 1 / fine, y], [0, 0, 1]])
    matrix = np.vstack([skull, [0, 0, 1]]) @ to_photo
    matrix[:2, 2] += move
    up = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1]])
    large = cv2.warpAffine(layer, (up @ matrix)[:2], (width * fine, height * fine), flags=cv2.INTER_LINEAR)
    return np.asarray(large if fine == 1 else cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def lip_shadow(alpha: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Light [h, w] inside the mouth: dark at the lips and in the corners, darker under the upper lip."""
    near = cv2.GaussianBlur(alpha, (0, 0), 0.018 * scale)
    wide = cv2.GaussianBlur(alpha, (0, 0), sigmaX=0.06 * scale, sigmaY=0.03 * scale)
    down = cv2.warpAffine(near, np.array([[1, 0, 0], [0, 1, 0.015 * scale]]), alpha.shape[::-1])
    light = np.clip((down - 0.15) / 0.55, 0, 1) * (0.45 + 0.55 * np.clip((wide - 0.15) / 0.5, 0, 1))
    return np.asarray(light, np.float32)


def seam_share(alpha: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """1 where lips nearly touch, 0 where the mouth is open: a thin seam is lit through the lips, a deep one is not."""
    return np.asarray(np.clip(1.3 - 2.2 * cv2.GaussianBlur(alpha, (0, 0), 0.03 * scale), 0, 1), np.float32)


def line_alpha(points: NDArray[np.float64], width: int, height: int, half: float) -> NDArray[np.float32]:
    """Anti-aliased coverage [h, w] of an open line of `half` pixels on both sides."""
    fine = POLYGON_FINE
    mask = np.zeros((height * fine, width * fine), np.uint8)
    line = np.round((points * fine + (fine - 1) / 2) * 16).astype(np.int32)
    cv2.polylines(mask, [line], False, 255, max(1, round(2 * half * fine)), cv2.LINE_AA, 4)
    return coverage(mask, width, height)


def seamed(polygon: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """The inner-lip polygon [20, 2] opened by `half` pixels, tapering to the corners: touching lips keep a dark seam."""
    out = polygon.copy()
    across = polygon[10] - polygon[0]
    down = np.array([-across[1], across[0]]) / max(float(np.hypot(*across)), 1e-6)
    taper = np.sqrt(np.sin(np.pi * np.arange(1, 10) / 10))[:, None] * half * down
    out[1:10] -= taper
    out[11:20] += taper[::-1]
    return out


def polygon_alpha(polygon: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    """Anti-aliased coverage [h, w] of a polygon."""
    fine = POLYGON_FINE
    mask = np.zeros((height * fine, width * fine), np.uint8)
    cv2.fillPoly(mask, [np.round((polygon * fine + (fine - 1) / 2) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return coverage(mask, width, height)


def coverage(mask: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Share [h, w] of a finer mask (255 inside) that covers each pixel."""
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)


def soft(alpha: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of an alpha map."""
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), sigma), np.float32)


def read(picture: NDArray[np.uint8], where: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels of a picture at the places [h, w, 2] of a backward map, bicubic."""
    x, y = np.ascontiguousarray(where[..., 0]), np.ascontiguousarray(where[..., 1])
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def blend(out: NDArray[np.uint8], over: NDArray[np.float32], alpha: NDArray[np.float32], box: tuple[int, int, int, int]) -> None:
    """Blend `over` [h, w, 3] into a box (x, y, w, h) of `out`, in place."""
    x, y, w, h = box
    part = out[y : y + h, x : x + w].astype(np.float32)
    part += (over - part) * alpha[..., None]
    out[y : y + h, x : x + w] = np.clip(np.round(part), 0, 255).astype(np.uint8)


def fit_affine(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares affine map [2, 3] of points [P, 2]."""
    return np.asarray(np.linalg.lstsq(np.column_stack([source, np.ones(len(source))]), target, rcond=None)[0].T, np.float64)


def clip_box(x: int, y: int, w: int, h: int, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """A box cut to a picture of this shape, or None where nothing is left."""
    x1, y1 = min(x + w, shape[1]), min(y + h, shape[0])
    x0, y0 = max(x, 0), max(y, 0)
    return (int(x0), int(y0), int(x1 - x0), int(y1 - y0)) if x1 > x0 and y1 > y0 else None


def closure_of(pose: Pose) -> float:
    """How far the lids go: a blink closes whatever an emotion or the gaze does; lids follow eyes that look up or down."""
    held = pose.expression.lids + LID_FOLLOWS * float(pose.gaze[1])
    return pose.lids + held * (1 - min(1.0, max(0.0, pose.lids)))


def corner_move(model: PortraitModel) -> NDArray[np.float64]:
    """Displacement [P, 3] of the moved points that lifts the mouth's corners by 1 eye distance, and draws them apart a little.

    The lips' middle stays; the share grows with the square of the way to the corner, as the muscle pulls there.
    """
    points = model.head[model.moved]
    middle = model.head[list(CORNERS_OUTER)].mean(0)
    half = np.linalg.norm(model.head[CORNERS_OUTER[0]] - model.head[CORNERS_OUTER[1]]) / 2
    side = (points[:, 0] - middle[0]) / half
    near = np.clip(1.35 - np.abs(points[:, 1] - middle[1]) / (1.1 * half), 0, 1)
    share = np.clip(side**2, 0, 1) * near
    return np.stack([SMILE_APART * share * np.sign(side), -share, np.zeros(len(points))], axis=1)


def moving_window(model: PortraitModel) -> Window:
    """The part of the picture that can move: bounds of the rings, within the picture."""
    points = model.project(model.rings)
    height, width = model.photo.shape[:2]
    low = np.maximum(np.floor(points.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + 3, (width, height))
    return Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))


def render_frames(renderer: PortraitRenderer, poses: Iterator[Pose], photo: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Whole frames [H, W, 3], one for each pose."""
    window = renderer.window
    for pose in poses:
        out = photo.copy()
        out[window.slices] = renderer.frame(pose)
        yield out
