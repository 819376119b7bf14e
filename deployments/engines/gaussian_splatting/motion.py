"""Speech to the lips of this avatar's person: the shared regression, adapted to the template; pose and gaze besides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deployments.contracts import Avatar, Clip, Motion, Speech, Track
from deployments.engines.gaussian_splatting.options import read_turn
from deployments.motion.dubbing import speech_motion
from deployments.retrieval.bank import load_bank


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip, with the pose and the gaze asked for. Raises OptionError for one out of range."""
    turn = read_turn(options)
    motion = speech_motion(speech, clip, track, load_bank(avatar.path).stable, options)
    return replace(motion, extra={**motion.extra, **turn.carried()}) if turn else motion
