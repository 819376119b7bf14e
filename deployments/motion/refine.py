"""Lips laid on the picture itself: the mesh model puts inner lips a few pixels off, and elsewhere in the next frame.

The frames of a clip are registered to one another. Each mouth is drawn from the frames whose lips are shaped most like its
own; then its lip points move, in the ways in which lips move, until the drawing lies on what was filmed (Gauss-Newton
on a robust difference; Lucas, Kanade 1981, with the clip itself in the place of an appearance model). After that, lips of
like shape look alike, which is all that a search among remembered mouths and a warp from one to the other can ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Track
from deployments.face.mesh import FaceMesh, build_mesh, skin_of
from deployments.face.pose import canonical, stable_mean
from deployments.face.view import LIPS, VIEW_HEIGHT, VIEW_WIDTH, view_matrix
from deployments.motion.lip_space import LipSpace
from kernels.lucas_kanade import normal_equations
from kernels.mesh_warp import MeshRaster, rasterize

LEAST = 25  # frames: fewer are no appearance model
REFERENCES = 400  # frames, evenly spread, that others are drawn from: bounds time and memory for long clips
APART = 8  # frames: those nearer are the same moment
NEIGHBOURS = 5
TURN = 0.25  # eye distances per radian of head turn, among the coefficients
NEAR = 0.005  # eye distances: less is no difference of shape
STEPS = 3
COARSE = 4.7  # pixels, sigma: slower changes of brightness are light
TOLERANCE = 12.0  # levels from which on a pixel shows something else
SKIN = 0.2  # weight of the skin around the lips
NOISE = 2200.0  # squared levels, times pixels that err together: how little one pixel says against the next line
WAYS = (0.04, 0.03, 0.03, 0.02, 0.02, 0.02, 0.02, 0.02)  # eye distances: how far off the mesh model is, by coefficient
INNER = 0.06  # and how far the inner edge of either lip, by itself
SPREAD = np.array((*WAYS, INNER, INNER), np.float32)
FARTHEST = 3.0  # of those
UPPER, LOWER = (191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324)
BLOCK, PAGE = 500, 125  # frames held at once, and of one piece of work

Floats = NDArray[np.float32]
Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Sheet:
    """Some frames of the clip, in the pixels of their views."""

    frames: NDArray[np.int64]  # [T] of the clip
    views: NDArray[np.uint8]  # [T, VIEW_HEIGHT, VIEW_WIDTH]
    vertices: Floats  # [T, U, 2]
    ways: Floats  # [T, 40, K, 2] where each lip point goes, per eye distance of each way
    code: Floats  # [T, C] shape of the lips and turn of the head, eye distances

    def part(self, rows: slice) -> Sheet:
        """Some of them."""
        return Sheet(self.frames[rows], self.views[rows], self.vertices[rows], self.ways[rows], self.code[rows])


@dataclass(frozen=True)
class Page:
    """A piece of work: frames, and those that they are drawn from."""

    mesh: FaceMesh
    skin: Floats  # [U] 0 at the lips, 1 away from them
    frames: Sheet
    others: Sheet


def refine_lips(track: Track, views: NDArray[np.uint8], run: Run = map) -> Track:
    """The track with its lip points laid on the pictures.

    `views` [T, VIEW_HEIGHT, VIEW_WIDTH] are `face.view.mouth_view` of every usable frame and its landmarks; `run` is like
    the built-in `map`. The clip's mean lips stay where they are. Under 25 usable frames the track comes back as it is.
    """
    usable = np.flatnonzero(track.usable)
    if len(usable) < LEAST:
        return track
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(len(usable), REFERENCES)).astype(int))]
    stable = stable_mean(track.landmarks, chosen).astype(np.float32)
    mesh = build_mesh(canonical(track.landmarks, stable, chosen).points)
    landmarks = track.landmarks.copy()
    for whose in (chosen, usable):  # the references first, among themselves
        others = sheet_of(track, views, landmarks, mesh, stable, chosen)
        blocks = (whose[start : start + BLOCK] for start in range(0, len(whose), BLOCK))
        sheets = (sheet_of(track, views, landmarks, mesh, stable, block) for block in blocks)
        found = np.concatenate([move for sheet in sheets for move in run(register_page, list(pages_of(mesh, sheet, others)))])
        found -= found[np.isin(whose, chosen)].mean(0)
        move_lips(landmarks, stable, whose, found)
    return replace(track, landmarks=landmarks)


def sheet_of(
    track: Track, views: NDArray[np.uint8], landmarks: Floats, mesh: FaceMesh, stable: Floats, frames: NDArray[np.int64]
) -> Sheet:
    """Some frames with the landmarks [N, 478, 3] that they have by now; their views were cut by those of the track."""
    faces, ways, corners = canonical(landmarks, stable, frames), ways_of_lips(), []
    vertices, moves = mesh.vertices(faces.points), []
    for k, frame in enumerate(frames):
        into = np.asarray(cv2.invertAffineTransform(view_matrix(track.landmarks[frame])), np.float32)
        corners.append(faces.to_pixels(vertices[k], k)[:, :2] @ into[:, :2].T + into[:, 2])
        moves.append((faces.scale[k] * ways @ faces.rotation[k].T)[..., :2] @ into[:, :2].T)
    code = np.concatenate([LipSpace.load().encode(faces.points), TURN * faces.angles()], axis=1)
    moved = np.stack(moves).transpose(0, 2, 1, 3)
    return Sheet(frames, views[frames], np.stack(corners).astype(np.float32), moved.astype(np.float32), code)


def ways_of_lips() -> Floats:
    """Displacements [K, 40, 3] of the lip points, eye distances: the lip space's, and the inner edge of either lip."""
    edges = np.zeros((2, len(LIPS), 3), np.float32)
    for edge, lip in zip(edges, (UPPER, LOWER), strict=True):
        edge[np.isin(LIPS, lip), 1] = 1 / np.sqrt(len(lip))
    return np.concatenate([LipSpace.load().basis[:, : len(LIPS)], edges])


def pages_of(mesh: FaceMesh, sheet: Sheet, others: Sheet) -> Iterator[Page]:
    """A sheet as pieces of work."""
    skin = skin_of(mesh)
    return (Page(mesh, skin, sheet.part(slice(at, at + PAGE)), others) for at in range(0, len(sheet.frames), PAGE))


def move_lips(landmarks: Floats, stable: Floats, frames: NDArray[np.int64], along: Floats) -> None:
    """Move the lip points of `frames` [T] `along` [T, K] the ways, in place."""
    faces = canonical(landmarks, stable, frames)
    moved = np.einsum("tk,kpc->tpc", along, ways_of_lips()) @ faces.rotation.transpose(0, 2, 1)
    landmarks[frames[:, None], LIPS] += faces.scale[:, None, None] * moved


def register_page(page: Page) -> Floats:
    """How far each frame of a page goes along each way [T, K], eye distances."""
    others = [without_light(view) for view in page.others.views]
    return np.stack([register(page, k, others) for k in range(len(page.frames.frames))])


def register(page: Page, k: int, others: Sequence[Floats]) -> Floats:
    """The same for one of its frames [K]; zeros where no other frame is like it."""
    delta: Floats = np.zeros(len(SPREAD), np.float32)
    rows, weights = alike(page, k)
    if len(rows) == 0:
        return delta
    raster = rasterize(page.mesh.triangles, page.frames.vertices[k], VIEW_HEIGHT, VIEW_WIDTH)
    wanted = drawn(raster, others, page.others.vertices, rows, weights)
    modes, weight = fields_of(raster, page, k)
    view = without_light(page.frames.views[k])
    slopes = np.stack([cv2.Sobel(view, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1))], -1).astype(np.float32)
    stiff = np.float32(NOISE) / SPREAD**2
    for _ in range(STEPS):
        left, right = normal_equations(view, slopes, wanted, modes, weight, delta, TOLERANCE)
        delta = np.asarray(delta + np.linalg.solve(left + np.diag(stiff), right - stiff * delta), np.float32)
    return np.asarray(np.clip(delta, -FARTHEST * SPREAD, FARTHEST * SPREAD), np.float32)


def alike(page: Page, k: int) -> tuple[NDArray[np.int64], Floats]:
    """The others [n] that are most like frame k and another moment, and their weights [n], sum 1."""
    gap = np.linalg.norm(page.others.code - page.frames.code[k], axis=1)
    gap[np.abs(page.others.frames - page.frames.frames[k]) <= APART] = np.inf
    near = np.argsort(gap, kind="stable")[:NEIGHBOURS]
    near = near[np.isfinite(gap[near])]
    weights = np.exp2(-(gap[near] - gap[near].min(initial=np.inf)) / max(0.5 * gap[near].min(initial=np.inf), NEAR))
    return near, (weights / max(weights.sum(), NEAR)).astype(np.float32)


def without_light(view: NDArray[np.uint8]) -> Floats:
    """A view [VIEW_HEIGHT, VIEW_WIDTH] without what changes slowly over it."""
    bright = view.astype(np.float32)
    return np.asarray(bright - cv2.GaussianBlur(bright, (0, 0), COARSE), np.float32)


def drawn(raster: MeshRaster, others: Sequence[Floats], vertices: Floats, rows: NDArray[np.int64], weights: Floats) -> Floats:
    """A mouth as the others `rows` have it [VIEW_HEIGHT, VIEW_WIDTH]."""
    out = np.zeros((VIEW_HEIGHT, VIEW_WIDTH), np.float32)
    source = raster.values(np.concatenate(vertices[rows], axis=1), fill=0.0)
    for n, (row, weight) in enumerate(zip(rows, weights, strict=True)):
        way = np.ascontiguousarray(source[..., 2 * n : 2 * n + 2])
        # the stubs want a second map; an empty one makes OpenCV 5 read what is not there
        seen = cv2.remap(others[row], way, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        cv2.scaleAdd(seen, float(weight), out, out)
    return out


def fields_of(raster: MeshRaster, page: Page, k: int) -> tuple[Floats, Floats]:
    """The ways over the view [VIEW_HEIGHT, VIEW_WIDTH, K, 2], and how much each pixel says [VIEW_HEIGHT, VIEW_WIDTH]."""
    corners = np.zeros((len(page.skin), 2 * len(SPREAD) + 1), np.float32)
    corners[LIPS, :-1] = page.frames.ways[k].reshape(len(LIPS), -1)
    corners[:, -1] = page.skin
    fields = raster.values(corners, fill=0.0)
    modes = np.ascontiguousarray(fields[..., :-1]).reshape(VIEW_HEIGHT, VIEW_WIDTH, len(SPREAD), 2)
    # skin that goes no way says nothing
    weight = np.where(modes.any(axis=(2, 3)), 1 - (1 - SKIN) * fields[..., -1], 0).astype(np.float32)
    return modes, weight
