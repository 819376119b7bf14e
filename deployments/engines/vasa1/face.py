"""Latents of the transformer to poses of a photo's face.

A control is told to the transformer as far as it has seen such faces; what lies beyond is put on here. The transformer
answers a gaze with its head, too. It hardly answers an emotion, so that one is put on here alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion
from deployments.engines.vasa1.config import FaceConfig
from deployments.engines.vasa1.latents import BROW, DISTANCE, GAZE, HEAD, LID, RATE
from deployments.engines.vasa1.mood import Worn, head_life, steady
from deployments.engines.vasa1.motion import load_transformer
from deployments.portrait.controls import GAZE_LIMIT, Controls, Expression
from deployments.portrait.draw import STILL, Pose
from deployments.portrait.eyes import eyes_open
from deployments.portrait.model import PortraitModel
from deployments.portrait.move import displacements

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

FACE = FaceConfig()
MOOD_SCALE = 30.0  # of the emotion condition, as in training
BLINK = (0.35, 0.85, 1.0, 0.7, 0.35, 0.1)  # lid closure per frame
REACH = 5  # frames that smoothing looks ahead and back
MOST_OPEN = -0.12  # lids: eyes open no wider by themselves
LID_SHARE = 0.06  # closure of a spread
LID_MOST = 0.12


def asked_latents(controls: Controls, config: FaceConfig = FACE) -> dict[str, Floats]:
    """What the transformer is told of what was asked for: gaze [2], distance [1], emotion [2] in its own units."""
    spread, asked = load_transformer().latent_spread.numpy(), controls.expression
    told: dict[str, Floats] = {}
    if any(controls.gaze):
        told["gaze"] = np.clip(np.array(controls.gaze) / spread[GAZE], -config.told, config.told).astype(np.float32)
    if controls.distance != 1:
        told["distance"] = np.clip([-math.log(controls.distance) / spread[DISTANCE]], -config.told, config.told).astype(
            np.float32
        )
    if asked.corners or asked.brows:
        told["emotion"] = np.clip(MOOD_SCALE * np.array([asked.corners, asked.brows]), -1, 1).astype(np.float32)
    return told


def poses_of(
    model: PortraitModel,
    motion: Motion,
    latents: Floats,
    controls: Controls,
    head_motion: float = 1.0,
    config: FaceConfig = FACE,
    worn: Worn | None = None,
) -> list[Pose]:
    """Poses of a photo's face for lips [T, 8] and latents [T, 18]; the first one is the photo's own."""
    smooth = smoothed(latents.astype(np.float64), config.smooth)
    lids, _ = lids_of(latents[:, LID].astype(np.float64), smooth[:, LID], config)
    moving = Moving(np.arange(len(latents)), smooth, lids, worn or steady(len(latents)))
    return placed(model, motion, moving, controls, head_motion, config)


@dataclass(frozen=True)
class Moving:
    """What moves beside the lips in some frames of a video."""

    frames: NDArray[np.int64]  # [T] from the video's first
    smooth: Doubles  # [T, 18] latents
    lids: Doubles  # [T]
    worn: Worn  # how strongly the emotion is worn in them


def placed(
    model: PortraitModel, motion: Motion, moving: Moving, controls: Controls, head_motion: float, config: FaceConfig
) -> list[Pose]:
    """Poses with the controls put on: what was told is taken off the latents, what was asked is added."""
    spread = load_transformer().latent_spread.numpy().astype(np.float64)
    told, ease = asked_latents(controls, config), rise(moving.frames, config)
    far = float(told["distance"][0]) if "distance" in told else 0.0
    head, turns = head_of(moving.smooth, far, spread, ease[:, None] * head_motion * head_life(controls), config)
    beyond = (moving.smooth[:, GAZE] - told.get("gaze", np.zeros(2, np.float32))) * spread[GAZE]
    gaze = np.clip(controls.gaze + ease[:, None] * beyond, -GAZE_LIMIT, GAZE_LIMIT)
    lids = moving.lids * eyes_open(model.head)
    brows = ease * config.brow_gain * moving.smooth[:, BROW] * spread[BROW]
    moves, asked = displacements(motion), controls.expression
    return [
        Pose(
            moves[t],
            float(lids[t]),
            turns[t],
            head[t, :3],
            gaze[t],
            expression_at(asked, moving.worn, t, float(brows[t])),
            float(np.exp(head[t, 3]) / controls.distance),
        )
        for t in range(len(moves))
    ]


def expression_at(asked: Expression, worn: Worn, frame: int, brows: float) -> Expression:
    """The expression of one frame, with what the transformer's brows do."""
    now = asked.times(float(worn.face[frame]))
    return replace(now, brows=asked.brows * float(worn.brows[frame]) + brows)


def head_of(smooth: Doubles, told: float, spread: Doubles, amount: Doubles, config: FaceConfig) -> tuple[Doubles, Doubles]:
    """Shift [T, 3] and log size of the head about its pivot, as [T, 4], and rotations [T, 3, 3].

    A photo stands less than a film shows: values bend towards the limits of the config, beyond which hair and neck tear.
    """
    from scipy.spatial.transform import Rotation

    values = smooth[:, HEAD] * spread[HEAD]
    values[:, 5] -= told * spread[DISTANCE]
    limits = np.array([*config.turn, *config.shift, config.nearer])
    values = amount * limits * np.tanh(values / limits)
    turns = Rotation.from_euler("xyz", values[:, [1, 0, 2]]).as_matrix()
    if not values.any():
        turns = np.repeat(STILL[None], len(values), 0)
    shift = np.concatenate([values[:, 3:5], np.zeros((len(values), 1))], axis=1)
    return np.concatenate([shift, values[:, 5:]], axis=1), turns


def lids_of(raw: Doubles, smooth: Doubles, config: FaceConfig, last: int = -1000) -> tuple[Doubles, int]:
    """Lid closure [T], and the frame at which the last blink began; `last` is the one before, below 0.

    A blink comes wherever the transformer's lids fall low, and its depth is completed here: what the transformer learned
    is shallower than a blink, since it cannot tell from sound when one comes. Between them lids move slightly.
    """
    out = np.clip(-LID_SHARE * smooth, MOST_OPEN, LID_MOST)
    begun = [last]
    for t in np.flatnonzero(raw < config.blink):
        if t - begun[-1] >= config.blink_gap:
            begun.append(int(t))
    for start in begun:
        for frame, closure in enumerate(BLINK, start):
            if 0 <= frame < len(out):
                out[frame] = max(out[frame], closure)
    return out, begun[-1]


def smoothed(values: Doubles, deviation: float) -> Doubles:
    """Values [T, K] under a Gaussian of `REACH` frames to both sides; ends are held."""
    weights = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / deviation) ** 2)
    edge = np.concatenate([np.repeat(values[:1], REACH, 0), values, np.repeat(values[-1:], REACH, 0)])
    rows = [edge[k : k + len(values)] * w for k, w in enumerate(weights / weights.sum())]
    return np.asarray(np.sum(rows, axis=0), np.float64)


def rise(frames: NDArray[np.int64], config: FaceConfig) -> Doubles:
    """Share [T] of the generated pose: 0 at the first frame of the video, 1 soon after."""
    t = np.clip(frames / (config.ease * RATE), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float64)
