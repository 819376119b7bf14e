"""One frame: the training-free picture, on it what memory and networks say that it lacks, and brows that rise with the speech."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from deployments.contracts import Avatar, Motion, Patch, Picture, Track
from deployments.engines.emo.brows import LIFT, with_brows
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.emotion import BROWS
from deployments.engines.emo.fit import load_learned
from deployments.engines.emo.memory import load_memory
from deployments.engines.emo.motion import told_wishes
from deployments.engines.emo.recall import Recall, Starts
from deployments.engines.emo.scene import Scene
from deployments.face.composite import two_band
from deployments.retrieval.plan import Plan, PlanKey, plan_of
from deployments.retrieval.settle import settle
from deployments.retrieval.warp import Place, blend
from deployments.retrieval.window import Floats, onto

if TYPE_CHECKING:
    from deployments.engines.emo.generate import Generator


class Studio:
    """What the frames of a job share: the plan, and the generator where the networks are of use."""

    def __init__(self, key: StudioKey, config: EmoConfig) -> None:
        self.plan: Plan = plan_of(key.plan)
        self.points = key.plan.track.landmarks
        self._motion = key.plan.motion
        folder = key.plan.avatar.path
        learned, used = load_learned(folder), bool((self.plan.row >= 0).any())
        self.starts = Starts(self.plan, Scene(self.plan.bank, learned.small, learned.window))
        self._added: list[tuple[float, Recall | Generator]] = []
        if used and learned.remembered > 0:
            recall = Recall(self.plan, key.plan, self.starts, load_memory(folder), config)
            self._added.append((learned.remembered, recall))
        if used and learned.share > 0:
            from deployments.engines.emo.generate import Generator  # brings torch

            self._added.append((learned.share, Generator(self.plan, key.plan, self.starts, config)))

    def correction(self, row: int, here: Place) -> Floats | None:
        """What memory and networks add to the training-free picture of a row; None where they are of no use."""
        if not self._added:
            return None
        added = sum(share * part.added(row) for share, part in self._added)
        back = cv2.invertAffineTransform(self.starts.matrix(row) - np.array([[0, 0, here.x], [0, 0, here.y]]))
        return onto(np.asarray(added, np.float32), back, here.alpha.shape, cv2.BORDER_CONSTANT)

    def lifts(self, frame: int) -> tuple[float, float]:
        """How far the brows of a frame rise with stress and emotion, and their inner ends beyond that, in eye distances."""
        stress, mood = self._motion.extra.get(LIFT), self._motion.extra.get(BROWS)
        lift = 0.0 if stress is None else float(stress[frame] * self._motion.weight[frame])
        return (lift, 0.0) if mood is None else (lift + float(mood[frame, 0]), float(mood[frame, 1]))


class StudioKey:
    """A plan's key and what else a motion carries."""

    def __init__(self, plan: PlanKey) -> None:
        self.plan = plan
        content = hashlib.sha256()
        for name in sorted(plan.motion.extra):
            content.update(name.encode() + np.ascontiguousarray(plan.motion.extra[name]).tobytes())
        self._digest = content.digest()

    def __hash__(self) -> int:
        return hash((self.plan, self._digest))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StudioKey) and (self.plan, self._digest) == (other.plan, other._digest)


def studio_of(avatar: Avatar, motion: Motion, track: Track, config: EmoConfig) -> Studio:
    """The studio of a job; a worker keeps the last one, since it renders many chunks of the same job."""
    # what the sound says more or less in the picture, it says in the choice of mouths, too
    heard = replace(config, sound_weight=max(0.0, config.sound_weight * (1 + told_wishes(motion).guidance)))
    return _studio(StudioKey(PlanKey(avatar, motion, track, heard)), config)


@lru_cache(maxsize=1)
def _studio(key: StudioKey, config: EmoConfig) -> Studio:
    return Studio(key, config)


def render_patch(studio: Studio, picture: Picture, config: EmoConfig) -> Patch | None:
    """The patch of one frame; None where nothing is to change or the face is off screen."""
    plan = studio.plan
    found = plan.place(picture)
    if found is None:
        return None
    row, here = found
    frame = picture.window(here.x, here.y, here.alpha.shape[1], here.alpha.shape[0]).astype(np.float32)
    coarse, nearest = blend(plan.bank, here.raster, plan.choice.rows[row], plan.choice.weights[row])
    mouth = settle(here, frame, two_band(coarse, nearest, config.texture_gain), studio.correction(row, here))
    return with_brows(mouth, picture, studio.points[picture.index], *studio.lifts(picture.index))
