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
from deployments.face.mesh import FACE_POINTS, smoothstep
from deployments.face.pose import CanonicalFaces
from deployments.portrait.eyes import lid_move
from deployments.retrieval.settle import MOVED
from deployments.retrieval.warp import STILL, Place, longest, smooth
from kernels.mesh_warp import rasterize

TILE = 16  # windows are whole tiles of the raster
RIM = 0.006  # eye distances: how softly the lids cut
LIMBUS = (1.05, 1.35)  # iris radii between which what was filmed takes over again
STRETCH = (1.1, 2.3)  # iris radii between which the filmed eye is stretched beside the iris
LID_DOWN, LID_UP = 0.7, 0.5  # how far an upper lid goes with an eye that looks down or up
LID_LIMITS = (-0.35, 0.6)  # share of a blink
SPARSE = 7  # every so manyth frame tells how open the eyes are
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


class LidMove:
    """Upper lids go along with eyes that look up or down: displacements [T] of a share of a blink."""

    def __init__(self, own: Floats, down: Floats, width: float) -> None:
        """`own` [T, U, 3] in the head frame; `down` [T] how far the eyes look down, in eye widths."""
        self.any = bool(down.any())
        if not self.any:
            return
        self.blink = lid_move(np.median(own[::SPARSE, :FACE_POINTS], axis=0).astype(np.float64)).astype(np.float32)
        self.right = np.median(own[::SPARSE, :FACE_POINTS, 0], axis=0) < 0  # the subject's right, on the picture's left
        heights = [np.mean([t[:, ring[12], 1] - t[:, ring[4], 1] for ring in LIDS], axis=0) for t in (own, own[::SPARSE])]
        usual = max(float(np.median(heights[1])), 1e-3)
        share = np.where(down > 0, LID_DOWN, LID_UP) * down * width / usual
        # lids that are half shut have half the way left
        self.share = np.clip(share, *LID_LIMITS) * np.clip(heights[0] / usual, 0, 1)

    def reached(self, ring: tuple[int, ...]) -> list[int]:
        """The vertices whose place an eye's window must hold."""
        if not self.any:
            return list(ring)
        near = np.flatnonzero((np.abs(self.blink[:, 1]) > 1e-3) & (self.right == (ring is LIDS[0])))
        return [*ring, *near.tolist()]

    def moved(self, target: Floats, row: int) -> Floats:
        """Vertices [U, 3] with the lids where they go."""
        if not self.any:
            return target
        out = target.copy()
        out[:FACE_POINTS] += self.share[row] * self.blink
        return out


class Looker:
    """The eyes of a job: `filmed` and `wanted` [T, 2, 2] are iris centres in the head frame, `lids` what moves with them."""

    def __init__(
        self, face: Face, faces: CanonicalFaces, codes: Floats, filmed: Floats, wanted: Floats, lids: LidMove, gain: float
    ) -> None:
        self.face, self.faces, self.codes, self.gain = face, faces, codes, gain
        self.centres, self.lids = (filmed, wanted), lids
        rig = face.rig
        around = np.isin(rig.triangles, [point for ring in LIDS for point in ring]).any(1)
        near = np.isin(rig.triangles, np.unique(rig.triangles[around])).any(1) | (rig.layer >= EYES)
        cut, tied = subset(face.gaussians, face.binding, torch.from_numpy(near)[face.binding.owner])
        self.gaussians, self.binding = cut.map(lambda value: value.to(DEVICE)), tied.to(DEVICE)

    def boxes(self, row: int, target: Floats) -> list[Box]:
        """Windows of both eyes, of one size in whole tiles; `target` [U, 3] in the head frame."""
        rings = [self.faces.to_pixels(target[self.lids.reached(ring)], row)[:, :2] for ring in LIDS]
        lows = [np.floor(ring.min(0) - 4).astype(int) for ring in rings]
        sides = np.max([np.ceil(ring.max(0) + 5) - low for ring, low in zip(rings, lows, strict=True)], axis=0)
        width, height = (int(-(-side // TILE) * TILE) for side in sides)
        return [Box(int(low[0]) // 2 * 2, int(low[1]) // 2 * 2, width, height) for low in lows]

    def eyes(self, row: int, target: Floats, boxes: list[Box], sources: list[Floats]) -> list[Eye]:
        """Both eyes, over what was filmed there (`sources`, windows [h, w, 3] of the boxes)."""
        rig, places = self.face.rig, (target, self.lids.moved(target, row))
        vertices = [
            self.faces.to_pixels(rig.whole(place[None], centre[row][None])[0], row)
            for place, centre in zip(places, self.centres, strict=True)
        ]
        pictures = self._draw(row, np.stack(vertices), boxes)
        found = []
        for k, (box, source) in enumerate(zip(boxes, sources, strict=True)):
            corner = np.array([box.x, box.y, 0], np.float32)
            lids = [v[list(LIDS[k])] - corner for v in vertices]
            discs = [self._disc(v, k) - corner for v in vertices]
            eye = self._eye(row, box, source, lids, discs, (pictures[k], pictures[2 + k]))
            found.append(self._with_lids(eye, source, *(v[:FACE_POINTS] - corner for v in vertices)) if self.lids.any else eye)
        return found

    def _with_lids(self, eye: Eye, source: Floats, filmed: Floats, wanted: Floats) -> Eye:
        """The eye, and around it the skin of the lids that go with it."""
        height, width = eye.alpha.shape
        raster = rasterize(self.face.rig.face, wanted[:, :2], height, width)
        way = smooth(raster, (filmed - wanted)[:, :2], wanted[:, :2])
        y, x = np.mgrid[:height, :width].astype(np.float32)
        skin = cv2.remap(source, x + way[..., 0], y + way[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        share = smoothstep((longest(way) - STILL) / (MOVED - STILL))
        total = 1 - (1 - eye.alpha) * (1 - share)
        mine = (eye.alpha / np.maximum(total, 1e-6))[..., None]
        return Eye(eye.x, eye.y, np.asarray(skin + mine * (eye.rgb - skin), np.float32), np.asarray(total, np.float32))

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

    def _eye(
        self, row: int, box: Box, source: Floats, lids: list[Floats], discs: list[Floats], pictures: tuple[Floats, Floats]
    ) -> Eye:
        """One eye from its picture as filmed and as wanted; the fine band is the filmed iris, where it was to be seen."""
        filmed, wanted = (opening(ring[:, :2], (box.height, box.width), float(self.faces.scale[row])) for ring in lids)
        y, x = np.mgrid[: box.height, : box.width].astype(np.float32)
        away = [np.hypot(x - disc[0], y - disc[1]) / max(float(disc[2]), 1.0) for disc in discs]
        light = (source - pictures[0])[filmed > BARE]
        drawn = pictures[1] + (light.mean(0) if len(light) else 0)
        shift = (discs[1] - discs[0])[:2]
        pull = fade(away[1], *STRETCH)
        there = (x - shift[0] * pull, y - shift[1] * pull)
        bent = cv2.remap(source, *there, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        seen = np.asarray(cv2.remap(filmed, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
        apart = np.asarray(drawn - bent, np.float32)
        rgb = drawn + (self.gain * seen[..., None]) * (blur(apart) - apart)
        alpha = wanted * fade(np.minimum(*away), *LIMBUS)
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
