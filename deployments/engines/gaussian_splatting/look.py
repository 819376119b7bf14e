"""Eyes that look elsewhere: the iris moves behind the lids, and what it leaves is the painted white."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.gaussian_splatting.eyes import LIDS
from deployments.engines.gaussian_splatting.face import Face, subset
from deployments.engines.gaussian_splatting.network import DEVICE, Pose, Posed, draw, pose
from deployments.engines.gaussian_splatting.rig import EYES, IRIS_REACH
from deployments.face.composite import blur
from deployments.face.pose import CanonicalFaces
from deployments.retrieval.warp import Place

TILE = 16  # windows are whole tiles of the raster
RIM = 0.006  # eye distances: how softly the lids cut
LIMBUS = (1.05, 1.35)  # iris radii between which what was filmed takes over again
STRETCH = (1.1, 2.3)  # iris radii between which the filmed eye is stretched beside the iris
BARE = 0.5  # share of an eye that must be open for its light to be measured

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Eye:
    """One eye of one frame: a window at (x, y), its picture [h, w, 3] and where it shows [h, w]."""

    x: int
    y: int
    rgb: Floats
    alpha: Floats


@dataclass(frozen=True)
class Box:
    """A window of the picture."""

    x: int
    y: int
    width: int
    height: int

    def inside(self, here: Place) -> tuple[slice, slice]:
        """Its rows and columns in the window of a place."""
        x, y = self.x - here.x, self.y - here.y
        return slice(y, y + self.height), slice(x, x + self.width)

    def read(self, picture: Floats, corner: tuple[int, int]) -> Floats:
        """The part of a picture whose first pixel lies at `corner`; beyond its border the border goes on."""
        rows = np.clip(np.arange(self.y, self.y + self.height) - corner[1], 0, picture.shape[0] - 1)
        columns = np.clip(np.arange(self.x, self.x + self.width) - corner[0], 0, picture.shape[1] - 1)
        return picture[rows[:, None], columns[None]]


class Looker:
    """The eyes of a job: `filmed` and `wanted` [T, 2, 2] are iris centres in the head frame."""

    def __init__(self, face: Face, faces: CanonicalFaces, codes: Floats, filmed: Floats, wanted: Floats, gain: float) -> None:
        self.face, self.faces, self.codes, self.gain = face, faces, codes, gain
        self.centres = (filmed, wanted)
        rig = face.rig
        around = np.isin(rig.triangles, [point for ring in LIDS for point in ring]).any(1)
        near = np.isin(rig.triangles, np.unique(rig.triangles[around])).any(1) | (rig.layer >= EYES)
        cut, tied = subset(face.gaussians, face.binding, torch.from_numpy(near)[face.binding.owner])
        self.gaussians, self.binding = cut.map(lambda value: value.to(DEVICE)), tied.to(DEVICE)

    def boxes(self, row: int, target: Floats) -> list[Box]:
        """Windows of both eyes, of one size in whole tiles; `target` [U, 3] in the head frame."""
        rings = [self.faces.to_pixels(target[list(ring)], row)[:, :2] for ring in LIDS]
        lows = [np.floor(ring.min(0) - 4).astype(int) for ring in rings]
        sides = np.max([np.ceil(ring.max(0) + 5) - low for ring, low in zip(rings, lows, strict=True)], axis=0)
        width, height = (int(-(-side // TILE) * TILE) for side in sides)
        return [Box(int(low[0]) // 2 * 2, int(low[1]) // 2 * 2, width, height) for low in lows]

    def eyes(self, row: int, target: Floats, boxes: list[Box], sources: list[Floats]) -> list[Eye]:
        """Both eyes, over what was filmed there (`sources`, windows [h, w, 3] of the boxes)."""
        vertices = [self.faces.to_pixels(self.face.rig.whole(target[None], c[row][None])[0], row) for c in self.centres]
        pictures = self._draw(row, np.stack(vertices), boxes)
        found = []
        for k, (box, source) in enumerate(zip(boxes, sources, strict=True)):
            lids = vertices[0][list(LIDS[k]), :2] - (box.x, box.y)
            discs = [self._disc(v, k) - np.array([box.x, box.y, 0], np.float32) for v in vertices]
            found.append(self._eye(row, box, source, lids, discs, pictures[k], pictures[2 + k]))
        return found

    def _disc(self, vertices: Floats, eye: int) -> Floats:
        """Centre and radius [3] of an iris in pixels."""
        rig = self.face.rig
        corners = np.unique(rig.triangles[rig.layer == EYES + 2 * eye + 1])
        middle, height = vertices[corners, :2].mean(0), np.ptp(vertices[corners, 1])
        width = np.ptp(vertices[corners, 0])
        return np.array([*middle, max(width, height) / 2 / IRIS_REACH], np.float32)

    def _draw(self, row: int, vertices: Floats, boxes: list[Box]) -> Floats:
        """Windows [4, h, w, 3]: both eyes as filmed, then as wanted."""
        scale, code = np.repeat(self.faces.scale[[row]], 2), np.repeat(self.codes[[row]], 2, 0)
        at = Pose(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(DEVICE) for a in (vertices, scale, code)))
        corner = torch.tensor([(box.x, box.y) for box in boxes] * 2, dtype=torch.float32, device=DEVICE)
        with torch.inference_mode():
            posed = pose(self.gaussians, self.binding, at)
            twice = Posed(*(value.repeat_interleave(2, 0) for value in vars(posed).values()))
            picture = draw(twice, corner, boxes[0].height, boxes[0].width)
        return np.asarray((picture.colours / picture.alpha[..., None].clamp_min(0.5)).cpu().numpy() * 255, np.float32)

    def _eye(self, row: int, box: Box, source: Floats, lids: Floats, discs: list[Floats], before: Floats, after: Floats) -> Eye:
        open_ = opening(lids, (box.height, box.width), float(self.faces.scale[row]))
        y, x = np.mgrid[: box.height, : box.width].astype(np.float32)
        away = [np.hypot(x - disc[0], y - disc[1]) / max(float(disc[2]), 1.0) for disc in discs]
        close = np.minimum(*away)
        alpha = open_ * fade(close, *LIMBUS)
        light = (source - before)[open_ > BARE]
        drawn = after + (light.mean(0) if len(light) else 0)
        shift = (discs[1] - discs[0])[:2]
        pull = fade(away[1], *STRETCH)
        there = np.stack([x - shift[0] * pull, y - shift[1] * pull], -1)
        bent = cv2.remap(source, there, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        was = cv2.remap(open_, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        apart = drawn - bent
        rgb = drawn + (self.gain * was[..., None]) * (blur(apart) - apart)
        return Eye(box.x, box.y, np.asarray(rgb, np.float32), np.asarray(alpha, np.float32))


def opening(lids: Floats, shape: tuple[int, int], scale: float) -> Floats:
    """How much [h, w] of an eye lies open between its lids [16, 2], with a soft border."""
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.rint(lids * 16).astype(np.int32)], 1.0, shift=4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(0.6, RIM * scale)), np.float32)


def fade(value: Floats, near: float, far: float) -> Floats:
    """1 up to `near`, 0 from `far` on, smooth between."""
    t = np.clip((far - value) / (far - near), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
