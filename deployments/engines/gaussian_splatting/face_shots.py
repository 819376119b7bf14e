"""Windows of the whole face, cut from the clip, and where the rig was in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Clip
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.eyes import BALL, IN_FRONT, LIDS, FaceRig, iris_places
from deployments.engines.gaussian_splatting.filmed import Filmed
from deployments.engines.gaussian_splatting.network import Pose
from deployments.engines.gaussian_splatting.shots import FAINT, TILE, Shots, fitted
from deployments.errors import NoFaceError
from deployments.face.landmarks import FACE_OVAL, LIPS_OUTER
from deployments.face.mesh import FACE_POINTS
from deployments.media.decode import decode_order

MARGIN = 0.06  # eye distances around the oval that are learned, too, so that the border is not ragged
LEAST = 8  # windows
PLAIN = 100  # weight of a pixel of the cheek, of 255

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Views:
    """What is learned from: windows, and the iris centres in the head frame that belong to them."""

    shots: Shots
    iris: Floats  # [S, 2, 2]


def irises(filmed_iris: Floats, rig: FaceRig, rotation: Floats, scale: Floats, translation: Floats) -> Floats:
    """Iris centres [T, 2, 2] in the head frame, from their pixels [T, 2, 2]."""
    depth = rig.ball[:, 2] - BALL * rig.width - IN_FRONT
    places = [iris_places(filmed_iris[:, k], rotation, scale, translation, float(depth[k])) for k in range(2)]
    return np.stack(places, 1)


def face_shots(clip: Clip, filmed: Filmed, rig: FaceRig, config: GaussianConfig) -> Views:
    """Cut and shrink the windows around the face."""
    count = min(config.face.frames, len(filmed.frames))
    pick = np.unique(np.linspace(0, len(filmed.frames) - 1, count).astype(int))
    iris = irises(filmed.iris, rig, filmed.rotation, filmed.scale, filmed.translation)
    pixels = filmed.pixels(rig.whole(filmed.vertices, iris))[pick]
    boxes = np.array([_box(points, clip) for points in pixels])
    whole = (np.minimum(boxes[:, 2], clip.width) - np.maximum(boxes[:, 0], 0)) > 8
    whole &= (np.minimum(boxes[:, 3], clip.height) - np.maximum(boxes[:, 1], 0)) > 8
    pick, pixels, boxes = pick[whole], pixels[whole], boxes[whole]
    if len(pick) < LEAST:
        raise NoFaceError(f"a whole face needs {LEAST} frames with it in the picture, found {len(pick)}; leave pose and gaze out")
    sizes = (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    shrink = min(1.0, config.face.fit.side / float(sizes.max()))
    size = tuple(-(-int(np.ceil(edge * shrink)) // TILE) * TILE for edge in sizes.max(0))
    rgb: list[NDArray[np.uint8]] = []
    weight: list[NDArray[np.uint8]] = []
    mouths: list[tuple[float, ...]] = []
    for picture, points, box in zip(decode_order(clip, filmed.frames[pick].tolist()), pixels, boxes, strict=True):
        rgb.append(fitted(_cut(picture.rgb(), box), shrink, size))
        points[:, :2] = (points[:, :2] - box[:2] + 0.5) * shrink - 0.5
        points[:, 2] *= shrink
        inside = _cut(np.ones(picture.size(), np.uint8), box, fill=0)
        weight.append(
            _weight(points, size, config.face.eye_weight, float(filmed.scale[pick[len(mouths)]] * shrink))
            * (fitted(inside, shrink, size) > 0)
        )
        lips = points[list(LIPS_OUTER), :2]
        mouths.append((*np.floor(lips.min(0) - 4).clip(0), *np.ceil(lips.max(0) + 4).clip(0)))
    arrays = (pixels, filmed.scale[pick] * shrink, filmed.codes[pick])
    where = Pose(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays))
    taught = len(pick) - max(1, round(len(pick) * config.face.fit.held_out))
    seen, weighed = (torch.from_numpy(np.stack(stack)) for stack in (rgb, weight))
    return Views(Shots(seen, weighed, torch.from_numpy(np.array(mouths, np.int64)), where, taught), iris[pick])


def _box(points: Floats, clip: Clip) -> NDArray[np.int64]:
    """x0, y0, x1, y1 around a face; may leave the picture."""
    used = points[:FACE_POINTS, :2]
    pad = MARGIN * float(np.hypot(*(points[263, :2] - points[33, :2]))) + 2
    return np.concatenate([np.floor(used.min(0) - pad), np.ceil(used.max(0) + pad) + 1]).astype(np.int64)


def _cut(picture: NDArray[np.uint8], box: NDArray[np.int64], fill: int | None = None) -> NDArray[np.uint8]:
    """A window of a picture; beyond its border the border goes on, or `fill`."""
    x0, y0, x1, y1 = (int(edge) for edge in box)
    height, width = picture.shape[:2]
    part = picture[max(0, y0) : y1, max(0, x0) : x1]
    pad = (max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width))
    if not any(pad):
        return part
    kind = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
    return np.asarray(cv2.copyMakeBorder(part, *pad, kind, value=fill or 0), np.uint8)


def _weight(points: Floats, size: tuple[int, ...], eye_weight: float, unit: float) -> NDArray[np.uint8]:
    """Weight [h, w] of each pixel: the face and a margin, faint at the border, more of the eyes."""
    face = np.zeros(size, np.float32)
    hull = cv2.convexHull(points[list(FACE_OVAL), :2])
    cv2.fillConvexPoly(face, np.rint(hull * 16).astype(np.int32), 1.0, shift=4)
    face = np.asarray(cv2.GaussianBlur(face, (0, 0), max(0.8, MARGIN / 2 * unit)), np.float32)
    weight = PLAIN * np.where(face > 0.02, np.clip(face, FAINT, 1), 0)
    eyes = np.zeros(size, np.uint8)
    for ring in LIDS:
        cv2.fillPoly(eyes, [np.rint(points[list(ring), :2] * 16).astype(np.int32)], 1, shift=4)
    grown = cv2.dilate(eyes, np.ones((5, 5), np.uint8)) > 0
    return np.asarray(np.where(grown, np.minimum(weight * eye_weight, 255), weight), np.uint8)
