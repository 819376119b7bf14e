"""One chunk with a turned head or another look: Gaussians of the whole face over the frame's own pixels, which go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Motion, Patch, Picture, Track
from deployments.engines.gaussian_splatting.avatar import Head, load_head
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.face import Face, load_face
from deployments.engines.gaussian_splatting.face_shots import irises
from deployments.engines.gaussian_splatting.filmed import IRISES
from deployments.engines.gaussian_splatting.look import Box, Eye, LidMove, Looker
from deployments.engines.gaussian_splatting.network import DEVICE
from deployments.engines.gaussian_splatting.options import Turn
from deployments.engines.gaussian_splatting.render import SURE, TILE, Drawn, Stage, drawn, filmed_mouths
from deployments.engines.gaussian_splatting.turn import HeadPlace, around, head_mesh, head_place, turned
from deployments.errors import RenderError
from deployments.face.composite import blur, rim_of
from deployments.face.landmarks import FACE_OVAL
from deployments.face.mesh import FACE_POINTS
from deployments.motion.ease import eased
from deployments.retrieval.bank import Bank
from deployments.retrieval.plan import TURNED, PlanKey
from deployments.retrieval.select import select
from deployments.retrieval.settle import follow, settle
from deployments.retrieval.warp import FEATHER, FINE, LEAST_SIGMA, SMALLEST, eye_distance, shown, smooth, soft_mask, unseen
from kernels.checks import KernelError
from kernels.gaussian_mix import Mouth, add_fine, draw_over, mix_face
from kernels.mesh_warp import rasterize

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadPiece:
    """One frame whose head turns."""

    picture: Picture
    row: int
    where: HeadPlace
    box: Box  # around what shows of the drawn face

    def drawn(self, window: Drawn, followed: Floats) -> tuple[Floats, Floats]:
        """The drawn face [h, w, 3], `followed` where there are hardly any Gaussians, and the plane [3, 3] that gives it the
        colours of the frame around it."""
        rgb = draw_over(*window, followed, SURE)
        rim = rim_of(self.where.here.alpha[self.box.inside(self.where.here)])
        return rgb, rim.shift(followed[rim.at] - rgb[rim.at])


class FaceStage(Stage):
    """A job's plan with the whole face."""

    def __init__(self, head: Head, face: Face, motion: Motion, track: Track, turn: Turn, config: GaussianConfig) -> None:
        super().__init__(head, motion, track, config)
        self.face, self.turn = face, turn
        self.drawn, self.tied = face.gaussians.map(lambda value: value.to(DEVICE)), face.binding.to(DEVICE)
        self.mesh = head_mesh(face.rig)
        if not (self.plan.row >= 0).any():
            return
        kept = np.flatnonzero(track.usable)
        self.share = eased(motion.weight, track.usable)[kept]
        faces = self.plan.faces
        self.filmed_faces, self.posed = faces, turned(faces, turn.radians(), self.share)
        self.held = self.posed.angles()
        seen = irises(track.landmarks[kept][:, IRISES, :2], face.rig, faces.rotation, faces.scale, faces.translation)
        gaze = self.share[:, None, None] * turn.gaze()[None, None] * face.rig.width[None, :, None]
        self.iris = (seen + gaze).astype(np.float32)
        lids = LidMove(self.plan.own, self.share * turn.gaze_y, float(face.rig.width.mean()))
        self.looker = Looker(face, self.posed, self.codes, seen, self.iris, lids, config.texture_gain)
        if turn.posed:
            light = None if track.light is None else track.light[kept]
            self.plan.choice = select(head.bank, self.plan.wanted, self.held, config.retrieval, light)

    def _batch(self, batch: list[Picture]) -> Iterator[Patch | None]:
        if not self.turn.posed:
            for picture, patch in zip(batch, super()._batch(batch), strict=True):
                yield patch if patch is None else self._with_eyes(picture, patch)
            return
        found = [self.piece(picture) for picture in batch]
        pieces = [piece for piece in found if piece is not None]
        windows = iter(self.windows(pieces) if pieces else ())
        for piece in found:
            yield None if piece is None else self._compose(piece, next(windows))

    def piece(self, picture: Picture) -> HeadPiece | None:
        """Where the turned head goes; None where nothing is to change or it is off screen."""
        row = int(self.plan.row[picture.index])
        if row < 0:
            return None
        filmed, target = self._vertices(row)
        where = head_place(self.mesh, filmed, target, picture.size())
        if where is None:
            return None
        rows, columns = shown(where.here.alpha)
        box = Box(where.here.x + columns.start, where.here.y + rows.start, columns.stop - columns.start, rows.stop - rows.start)
        return None if min(box.width, box.height) < SMALLEST else HeadPiece(picture, row, where, box)

    def _vertices(self, row: int) -> tuple[Floats, Floats]:
        """Vertices [V, 3] of the head's mesh in pixels, filmed and wanted."""
        faces, posed, own = self.filmed_faces, self.posed, self.plan.own[row]
        seen = faces.to_pixels(own, row)[:FACE_POINTS]
        wanted = posed.to_pixels(self.plan.target[row], row)[:FACE_POINTS]
        shift = (faces.translation[row], posed.translation[row])
        heights = own[list(FACE_OVAL), 1]
        rings = around(seen, faces.rotation[row], posed.rotation[row], shift, heights)
        return np.concatenate([seen, rings[0]]), np.concatenate([wanted, rings[1]])

    def windows(self, pieces: list[HeadPiece]) -> list[Drawn]:
        """Windows around the faces, as large as the largest: colours weighted by alpha, and alpha."""
        height, width = (-(-max(p.box.height if k else p.box.width for p in pieces) // TILE) * TILE for k in (1, 0))
        rows = [piece.row for piece in pieces]
        rig = self.face.rig.whole(self.plan.target[rows], self.iris[rows])
        vertices = np.stack([self.posed.to_pixels(v, row) for v, row in zip(rig, rows, strict=True)])
        arrays = (vertices, self.posed.scale[rows], self.codes[rows])
        try:
            return drawn(self.drawn, self.tied, arrays, [(p.box.x, p.box.y) for p in pieces], (height, width))
        except KernelError as error:
            raise RenderError(f"gaussian_splatting could not draw {len(pieces)} faces of {width}x{height}: {error}") from error

    def _compose(self, piece: HeadPiece, window: Drawn) -> Patch:
        """The frame's own pixels moved with the head, and on them the face: Gaussians, the moved frame, filmed mouths."""
        here, box = piece.where.here, piece.box
        frame = piece.picture.window(here.x, here.y, here.alpha.shape[1], here.alpha.shape[0]).astype(np.float32)
        followed = follow(here, frame)
        part = box.inside(here)
        textured = followed.copy()
        textured[part] = self._face(piece, followed[part], *piece.drawn(window, followed[part]))
        if self.turn.looking:
            for eye in self._eyes(piece.row, textured, (here.x, here.y)):
                lay_on(textured, eye, (here.x, here.y))
        return settle(here, frame, textured, followed=followed)

    def _face(self, piece: HeadPiece, followed: Floats, drawn: Floats, shift: Floats) -> Floats:
        """The face [h, w, 3] in its box. Where skin was filmed from the side, Gaussians show alone."""
        trust = piece.where.trust[piece.box.inside(piece.where.here)]
        mouth = self._mouth(piece, followed)
        base, apart, trust = mix_face(drawn, shift, followed, self.config.face.share, trust, mouth)
        return add_fine(base, apart, blur(apart), self.config.texture_gain, trust)

    def _mouth(self, piece: HeadPiece, followed: Floats) -> Mouth:
        """Filmed mouths in the colours of the frame, in the part of the box where they may show."""
        box, bank, row = piece.box, self.head.bank, piece.row
        target = self.posed.to_pixels(self.plan.target[row], row)[:, :2]
        part = mouth_part(bank, target, box)
        raster = rasterize(bank.mesh.triangles, target, part.height, part.width, (part.x, part.y))
        mask = soft_mask(bank, raster, target - np.array([part.x, part.y], np.float32))
        rows, weights = self.plan.choice.rows[row], self.plan.choice.weights[row]
        apart = np.abs(bank.angles[rows, 0] - self.held[row, 0]) > TURNED
        if apart.any():  # a cheek that those pictures hardly saw is the frame's
            hidden = unseen(bank, target, rows[apart], weights[apart], self.plan.skin)
            mask = mask * (1 - np.clip(smooth(raster, hidden[:, None], target), 0, 1))
        nearest, others, first = filmed_mouths(bank, raster, rows, weights)
        x, y = part.x - box.x, part.y - box.y
        rim = rim_of(mask)
        seen = followed[rim.at[0] + y, rim.at[1] + x]
        shift = replace(rim, at=(rim.at[0] + y, rim.at[1] + x), shape=followed.shape[:2]).shift(seen - nearest[rim.at])
        return Mouth(x, y, mask, nearest, others, first, shift)

    def _eyes(self, row: int, picture: Floats, corner: tuple[int, int]) -> list[Eye]:
        target = self.plan.target[row]
        boxes = self.looker.boxes(row, target)
        return self.looker.eyes(row, target, boxes, [box.read(picture, corner) for box in boxes])

    def _with_eyes(self, picture: Picture, patch: Patch) -> Patch:
        """The patch of the mouth and both eyes as one; between them nothing changes."""
        row, (height, width) = int(self.plan.row[picture.index]), picture.size()
        target = self.plan.target[row]
        boxes = self.looker.boxes(row, target)
        low = (max(0, min(box.x for box in boxes)), max(0, min(box.y for box in boxes)))
        high = (min(width, max(b.x + b.width for b in boxes)), min(height, max(b.y + b.height for b in boxes)))
        if min(high[0] - low[0], high[1] - low[1]) < 2:
            return patch
        frame = picture.window(*low, high[0] - low[0], high[1] - low[1]).astype(np.float32)
        eyes = self.looker.eyes(row, target, boxes, [box.read(frame, low) for box in boxes])
        return joined(patch, eyes, (height, width))


def mouth_part(bank: Bank, target: Floats, box: Box) -> Box:
    """The part of a box that the lower face at `target` [U, 2] may show in; it starts on the grid that fields are sampled on."""
    unit = eye_distance(target)
    step, room = 2 * max(1, int(max(LEAST_SIGMA, FEATHER * unit) / FINE)), int(4 * FEATHER * unit) + 2
    used = target[np.unique(bank.mesh.triangles)] - (box.x, box.y)
    low, high = np.floor(used.min(0)).astype(int) - room, np.ceil(used.max(0)).astype(int) + room
    x0, y0 = (
        min(max(0, int(edge) // step * step), (side - 1) // step * step)
        for edge, side in zip(low, (box.width, box.height), strict=True)
    )
    x1, y1 = min(box.width, max(int(high[0]), x0 + 1)), min(box.height, max(int(high[1]), y0 + 1))
    return Box(box.x + x0, box.y + y0, x1 - x0, y1 - y0)


@lru_cache(maxsize=1)
def face_stage_of(key: PlanKey, turn: Turn, config: GaussianConfig) -> FaceStage:
    """The stage of a job."""
    folder = key.avatar.path
    return FaceStage(load_head(folder), load_face(folder), key.motion, key.track, turn, config)


def render_face(
    avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, turn: Turn, config: GaussianConfig
) -> Iterator[Patch | None]:
    """Patches of a span's frames with the head turned, or the eyes."""
    yield from face_stage_of(PlanKey(avatar, motion, track, config.retrieval), turn, config).patches(pictures)


def lay_on(picture: Floats, eye: Eye, corner: tuple[int, int]) -> None:
    """Lay an eye on a picture whose first pixel lies at `corner`."""
    part, (y, x) = clipped(eye, corner, picture.shape[:2])
    picture[y, x] += eye.alpha[part][..., None] * (eye.rgb[part] - picture[y, x])


def clipped(eye: Eye, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of an eye that lies in a picture of `shape` at `corner`, and where it lies there: rows and columns."""
    parts, places = [], []
    for start, side, limit in zip((eye.y - corner[1], eye.x - corner[0]), eye.alpha.shape, shape, strict=True):
        first, last = max(0, start), max(0, min(limit, start + side))
        parts.append(slice(first - start, max(first, last) - start))
        places.append(slice(first, max(first, last)))
    return (parts[0], parts[1]), (places[0], places[1])


def joined(patch: Patch, eyes: list[Eye], size: tuple[int, int]) -> Patch:
    """One patch of a mouth and eyes in a picture of `size`; where no eye shows, the mouth's patch is as it was."""
    height, width = patch.alpha.shape
    x0, y0 = (max(0, min(*edges)) // 2 * 2 for edges in ((patch.x, *(e.x for e in eyes)), (patch.y, *(e.y for e in eyes))))
    x1 = min(size[1], max(patch.x + width, *(eye.x + eye.alpha.shape[1] for eye in eyes)))
    y1 = min(size[0], max(patch.y + height, *(eye.y + eye.alpha.shape[0] for eye in eyes)))
    rgb, alpha = np.zeros((y1 - y0, x1 - x0, 3), np.uint8), np.zeros((y1 - y0, x1 - x0), np.float32)
    here = np.s_[patch.y - y0 : patch.y - y0 + height, patch.x - x0 : patch.x - x0 + width]
    rgb[here], alpha[here] = patch.rgb, patch.alpha
    for eye in eyes:
        part, place = clipped(eye, (x0, y0), alpha.shape)
        top, below = eye.alpha[part], alpha[place]
        total = 1 - (1 - top) * (1 - below)
        share = (top / np.maximum(total, 1e-6))[..., None]
        over = np.rint(np.clip(share * eye.rgb[part] + (1 - share) * rgb[place], 0, 255)).astype(np.uint8)
        rgb[place] = np.where((top > 0)[..., None], over, rgb[place])
        alpha[place] = np.where(top > 0, total, below)
    return Patch(x0, y0, rgb, alpha)
