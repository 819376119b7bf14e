"""Which remembered frames to show: the nearest mouths, along a path that does not flicker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.retrieval.bank import Bank
from deployments.retrieval.config import RetrievalConfig
from deployments.retrieval.sounds import Sounds

BLOCK = 512  # frames whose distances to the whole bank are held at once
STEADY = 0.15  # natural logarithm: skin that changes by less is in the same light
FAR = np.float32(1e3)  # eye distances: farther than any mouth


@dataclass(frozen=True)
class Choice:
    """For every frame the bank rows to blend and their weights; the first row is the nearest on the path."""

    rows: NDArray[np.int32]  # [T, n]
    weights: NDArray[np.float32]  # [T, n], sum 1


def select(
    bank: Bank,
    wanted: NDArray[np.float32],
    angles: NDArray[np.float32],
    config: RetrievalConfig,
    light: NDArray[np.float32] | None = None,
    sounds: Sounds | None = None,
) -> Choice:
    """Choose for wanted coefficients [T, K] under head angles [T, 3] in the light [T, 3] of the frames, and for sounds
    (None: any).

    A Viterbi path over the nearest candidates trades the distance of the shape against a jump of the mouth's look
    (teeth, tongue), so neighbouring frames take neighbouring pictures. It runs over the whole job: chunks agree.
    """
    parts = [slice(start, start + BLOCK) for start in range(0, len(wanted), BLOCK)]
    far = ((distances(bank, wanted[part], angles[part], config) + apart(sounds, part, config), part) for part in parts)
    found = [nearest(gap if light is None else gap + gloom(bank, light[part], config), config) for gap, part in far]
    near, cost = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return choose(bank, near, cost, config)


def select_without_self(
    bank: Bank, radius: int, hidden: NDArray[np.bool_], config: RetrievalConfig, sounds: Sounds | None = None
) -> Choice:
    """Choose for every row's own mouth, none within `radius` frames of it and none that is `hidden` [F]: to learn from."""
    distance = distances(bank, bank.coefficients, bank.angles, config) + gloom(bank, bank.light, config)
    distance = distance + apart(sounds, slice(None), config)
    distance[np.abs(bank.frames[:, None] - bank.frames[None]) <= radius] = FAR
    distance[:, hidden] = FAR
    return choose(bank, *nearest(distance, config), config)


def nearest(distance: NDArray[np.float32], config: RetrievalConfig) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The candidates' rows [T, C], nearest first, of retrieval distances [T, F], and their distances."""
    count = min(config.candidates, distance.shape[1])
    near = np.argpartition(distance, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(near, np.argsort(np.take_along_axis(distance, near, 1), axis=1, kind="stable"), 1)
    return near, np.take_along_axis(distance, near, 1)


def choose(bank: Bank, near: NDArray[np.int64], cost: NDArray[np.float32], config: RetrievalConfig) -> Choice:
    """The cheapest path through candidates [T, C] with their retrieval distances, and what is blended into it."""
    path = near[np.arange(len(near)), viterbi(bank, near, cost, config)]
    return blend_rows(bank, near, cost, path, config)


def distances(
    bank: Bank, wanted: NDArray[np.float32], angles: NDArray[np.float32], config: RetrievalConfig
) -> NDArray[np.float32]:
    """Retrieval distance [T, F] in eye distances: lip shape and head turn."""
    here = np.concatenate([wanted, config.pose_weight * angles], axis=1)
    there = np.concatenate([bank.coefficients, config.pose_weight * bank.angles], axis=1)
    square = (here**2).sum(1)[:, None] + (there**2).sum(1)[None] - 2 * here @ there.T
    return np.sqrt(np.maximum(square, 0)).astype(np.float32)


def gloom(bank: Bank, light: NDArray[np.float32], config: RetrievalConfig) -> NDArray[np.float32] | np.float32:
    """What is added to the distance [T, F] of mouths filmed in another light than the frames' [T, 3], in eye distances.

    Light that hardly changes in a clip, as a head turns, changes nothing here.
    """
    if not (bank.light > 0).any():
        return np.float32(0)
    here, there = (np.log(np.maximum(rows, 1)) for rows in (light, bank.light))
    both = np.concatenate([here, there])
    if (np.ptp(both, axis=0) < STEADY).all():
        return np.float32(0)
    apart = np.max([np.abs(here[:, None, c] - there[None, :, c]) for c in range(3)], axis=0)
    return np.asarray(config.light_weight * np.maximum(apart - STEADY, 0), np.float32)


def apart(sounds: Sounds | None, part: slice, config: RetrievalConfig) -> NDArray[np.float32] | np.float32:
    """What sounds that differ add to the retrieval distance of wanted frames `part` [t, F]; 0 where nothing is heard."""
    if sounds is None or config.sound_weight == 0:
        return np.float32(0)
    return np.float32(config.sound_weight) * sounds.distances(part)


def viterbi(bank: Bank, near: NDArray[np.int64], cost: NDArray[np.float32], config: RetrievalConfig) -> NDArray[np.int64]:
    """Index [T] into the candidates of each frame of the cheapest path."""
    follower = successors(bank)
    total = cost[0].astype(np.float64)
    back = np.zeros(near.shape, np.int64)
    for t in range(1, len(near)):
        expected = bank.code[follower[near[t - 1]]]
        jump = np.linalg.norm(expected[:, None] - bank.code[near[t]][None], axis=2)
        step = total[:, None] + config.appearance_weight * jump
        back[t] = step.argmin(0)
        total = step[back[t], np.arange(near.shape[1])] + cost[t]
    best = np.empty(len(near), np.int64)
    best[-1] = total.argmin()
    for t in range(len(near) - 1, 0, -1):
        best[t - 1] = back[t, best[t]]
    return best


def successors(bank: Bank) -> NDArray[np.int64]:
    """Row [F] that followed each row in the template (itself where the next frame is not in the bank)."""
    follower = np.arange(len(bank.frames))
    adjacent = np.flatnonzero(np.diff(bank.frames) == 1)
    follower[adjacent] = adjacent + 1
    return follower


def blend_rows(
    bank: Bank, near: NDArray[np.int64], cost: NDArray[np.float32], path: NDArray[np.int64], config: RetrievalConfig
) -> Choice:
    """The path's picture and the neighbours that look like it, weighted by distance."""
    count = min(config.neighbours, near.shape[1])
    look = np.linalg.norm(bank.code[near] - bank.code[path][:, None], axis=2)
    merit = cost + config.appearance_weight * look
    merit[near == path[:, None]] = -1  # the path's own picture comes first
    order = np.argsort(merit, axis=1, kind="stable")[:, :count]
    rows = np.take_along_axis(near, order, 1)
    gap = np.take_along_axis(cost, order, 1) + config.appearance_weight * np.take_along_axis(look, order, 1)
    scale = config.spread * np.maximum(gap[:, :1], 0.01)
    weights = np.exp2(-(gap - gap[:, :1]) / scale)
    weights = np.minimum(weights, 1.0)
    return Choice(rows.astype(np.int32), (weights / weights.sum(1, keepdims=True)).astype(np.float32))
