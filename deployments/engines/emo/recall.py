"""The pictures that a job's rows start from, and what the memory adds to them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import numpy as np

from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.memory import Memory
from deployments.engines.emo.motion import HEARD, told_wishes
from deployments.engines.emo.scene import Scene, Start, rim, told_of
from deployments.retrieval.plan import Plan, PlanKey
from deployments.retrieval.window import Floats, Matrix, to_window

Key = TypeVar("Key")
Value = TypeVar("Value")
KEPT = 24  # rows: a window and its motion frames reach 12 rows ahead of the one that is shown


class Starts:
    """Training-free pictures of a job's rows; one at a time, so that no row depends on others."""

    def __init__(self, plan: Plan, scene: Scene) -> None:
        self.scene = scene
        self._plan = plan
        self._kept: OrderedDict[int, Start] = OrderedDict()

    def start(self, row: int) -> Start:
        """The picture of a row."""
        if row not in self._kept:
            plan = self._plan
            target = to_window(self.matrix(row), plan.pixels(row))
            remember(self._kept, row, self.scene.start(target, plan.choice.rows[row], plan.choice.weights[row]), KEPT)
        return self._kept[row]

    def matrix(self, row: int) -> Matrix:
        """T_frame_window of a row."""
        return self.scene.window.matrix(self._plan.bank.stable, self._plan.pixels(row))


class Recall:
    """The memory at work on a job."""

    def __init__(self, plan: Plan, key: PlanKey, starts: Starts, memory: Memory, config: EmoConfig) -> None:
        frames = np.flatnonzero(key.track.usable)
        heard = key.motion.extra.get(HEARD)
        self._starts, self._memory, self._config = starts, memory, config
        self._told = told_of(plan.bank, plan.wanted, plan.faces.angles(), frames)
        self._heard = None if heard is None else np.asarray(heard[frames], np.float32)
        self._says = 1 + told_wishes(key.motion).guidance
        self._fade = rim(starts.scene.window)[..., None]

    def added(self, row: int) -> Floats:
        """What is to be added [H, W, 3], -255..255, to the training-free picture of a row."""
        config, heard = self._config, None if self._heard is None else self._heard[row]
        texture = self._memory.texture(self._told[row], heard, self._says, config.memory)
        lacks = self._memory.added(self._starts.scene, self._starts.start(row), texture, config.window)
        return np.asarray(255 * self._fade * lacks, np.float32)


def remember(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Keep a value, and only the last `most`."""
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)
