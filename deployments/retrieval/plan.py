"""All that is decided before the first pixel: where every vertex goes, and which pictures are shown."""

from __future__ import annotations

import hashlib
import weakref
from bisect import bisect_right
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Motion, Picture, Track
from deployments.face.mesh import skin_of, smoothstep
from deployments.face.pose import CanonicalFaces, canonical
from deployments.face.retarget import blocks, retarget, retarget_block, surroundings
from deployments.memory import let_go
from deployments.motion.dubbing import lip_coefficients
from deployments.retrieval import corners
from deployments.retrieval.bank import Bank, load_bank
from deployments.retrieval.config import RetrievalConfig
from deployments.retrieval.select import Choice, select
from deployments.retrieval.sounds import EXTRA, load_sounds, sounds_of
from deployments.retrieval.warp import Place, place, unseen, veiled

TURNED = 0.2  # radians from which on a head shows much less of one cheek
TURNED_MORE = 0.1  # and as many more until that counts in full: no frame may jump
AWAY = 3  # frames without a face after which it may have come back otherwise
SHOWN = 64  # rows after which the bank's pages are let go: all pictures that were ever shown are 600 MB


class PlanKey:
    """What a plan is made of; equal keys have equal plans."""

    def __init__(self, avatar: Avatar, motion: Motion, track: Track, config: RetrievalConfig) -> None:
        self.avatar, self.motion, self.track, self.config = avatar, motion, track, config
        content = hashlib.sha256(repr((avatar.digest, str(avatar.path), config)).encode())
        heard = motion.extra.get(EXTRA) if config.sound_weight else None
        lifted = motion.extra.get(corners.EXTRA)
        for array in (motion.coefficients, motion.weight, track.landmarks, track.usable, track.light, heard, lifted):
            content.update(b"" if array is None else digest_of(array))
        self._digest = content.digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanKey) and self._digest == other._digest


_digests: dict[int, tuple[weakref.ref[NDArray[Any]], bytes]] = {}


def digest_of(array: NDArray[Any]) -> bytes:
    """Digest of an array's numbers; remembered where nobody can write to it: every chunk asks for that of a long track."""
    known = _digests.get(id(array))
    if known is not None and known[0]() is array:
        return known[1]
    digest = hashlib.sha256(np.ascontiguousarray(array).data).digest()
    if not array.flags.writeable:
        key = id(array)
        _digests[key] = weakref.ref(array, lambda _: _digests.pop(key, None)), digest
    return digest


@lru_cache(maxsize=1)
def plan_of(key: PlanKey) -> Plan:
    """The plan of a job; a worker keeps the last one, since it renders many chunks of the same job."""
    bank = load_bank(key.avatar.path)
    sounds = load_sounds(key.avatar.path, len(bank.frames)) if key.config.sound_weight else None
    return Plan(bank, key.motion, key.track, key.config, sounds)


class Plan:
    """All that is decided before the first pixel: targets and pictures of every frame of the job."""

    def __init__(
        self, bank: Bank, motion: Motion, track: Track, config: RetrievalConfig, sounds: NDArray[np.float32] | None = None
    ) -> None:
        self.bank = bank
        self._near = slice(0, 0), np.empty(0, np.float32), np.empty(0, np.float32)
        self.row = np.full(len(track.usable), -1)
        active = track.usable & (motion.weight > 0)
        if not active.any():
            return
        # runs of usable frames keep their neighbours, so that the residual is smoothed over what was filmed
        kept = np.flatnonzero(track.usable)
        self.row[kept] = np.arange(len(kept))
        self.row[~active] = -1
        self.faces: CanonicalFaces = canonical(track.landmarks, bank.stable, kept)
        self._lips = lip_coefficients(self.faces)
        weight = motion.weight[kept, None]
        self.wanted = ((1 - weight) * self._lips + weight * motion.coefficients[kept]).astype(np.float32)
        apart = (np.diff(track.shot[kept]) != 0) | (np.diff(kept) > AWAY)
        self._breaks: list[int] = (np.flatnonzero(apart) + 1).tolist()
        self._blocks = list(blocks(len(kept), self._breaks))
        light, heard = None if track.light is None else track.light[kept], sounds_of(motion, kept, sounds)
        self.angles = self.faces.angles()
        self._lifts, shapes = corners.lifts_of(motion, kept), self.wanted
        if self._lifts is not None:
            self._move = corners.corner_move(bank)
            shapes = self.wanted + self._lifts[:, None] * corners.as_lips(self._move)
        self.choice: Choice = select(bank, shapes, self.angles, config, light, heard)
        self.skin = skin_of(bank.mesh)

    @cached_property
    def own(self) -> NDArray[np.float32]:
        """Vertices [T, U, 3] in the head frame as filmed, of all rows: 110 MB for ten minutes."""
        return self.bank.mesh.vertices(self.faces.points)

    @cached_property
    def target(self) -> NDArray[np.float32]:
        """Where they go, of all rows."""
        target = retarget(self.bank.shape, self.bank.mesh, self.own, self._lips, self.wanted, self._breaks)
        return self._lifted(target, slice(None))

    def vertices(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices [U, 3] of a row in the head frame, as filmed and where they go. A chunk asks for row after row: a block of
        them is at hand."""
        if row % SHOWN == 0:
            let_go(self.bank.pictures)
        if "target" in vars(self):
            return self.own[row], self.target[row]
        if not self._near[0].start <= row < self._near[0].stop:
            self._near = self._block(row)
        kept, own, target = self._near
        return own[row - kept.start], target[row - kept.start]

    def _block(self, row: int) -> tuple[slice, NDArray[np.float32], NDArray[np.float32]]:
        kept, run = self._blocks[bisect_right(self._blocks, row, key=lambda block: block[0].start) - 1]
        around = surroundings(kept, run)
        own = self.bank.mesh.vertices(self.faces.points_of(around))
        first = kept.start - around.start
        target = retarget_block(self.bank.shape, self.bank.mesh, own, self._lips[around], self.wanted[kept], first)
        return kept, own[first : first + len(target)], self._lifted(target, kept)

    def _lifted(self, target: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
        """Targets [t, U, 3] of rows with the corners of the mouth where an emotion wants them."""
        return target if self._lifts is None else target + self._lifts[rows, None, None] * self._move

    def pixels(self, row: int) -> NDArray[np.float32]:
        """Target vertices [U, 2] in pixels."""
        return self.faces.to_pixels(self.vertices(row)[1], row)[:, :2]

    def place(self, picture: Picture) -> tuple[int, Place] | None:
        """The row of a picture and where its new lower face goes; None where nothing is to change or it is off screen."""
        row = int(self.row[picture.index])
        if row < 0:
            return None
        filmed, target = (self.faces.to_pixels(vertices, row)[:, :2] for vertices in self.vertices(row))
        here = place(self.bank, target, filmed, picture.size(), self.skin)
        if here is None:
            return None
        rows, weights = self.choice.rows[row], self.choice.weights[row]
        turned = smoothstep((np.abs(self.bank.angles[rows, 0] - self.angles[row, 0]) - TURNED) / TURNED_MORE)
        if turned.any():
            here = veiled(here, unseen(self.bank, target, rows, weights * turned, self.skin), target)
        return row, here
