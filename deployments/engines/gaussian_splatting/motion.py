"""Speech to the lips of this avatar's person: the shared regression, adapted to the template; pose and gaze besides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deployments.contracts import Avatar, Clip, Motion, Speech, Track
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.options import read_turn
from deployments.media.probe import probe
from deployments.motion.dubbing import speech_motion
from deployments.retrieval.bank import load_bank


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any], config: GaussianConfig) -> Motion:
    """Motion for all frames of the clip. A pose or a gaze has the whole face learned into the avatar, once.

    Raises OptionError for one out of range, before any work.
    """
    turn = read_turn(options)
    motion = speech_motion(speech, clip, track, load_bank(avatar.path).stable, options)
    if not turn:
        return motion
    from deployments.engines.gaussian_splatting.face import fit_face

    # the clip may be shown in another order than it was filmed in
    fit_face(avatar.path, probe(clip.path), config)
    return replace(motion, extra={**motion.extra, **turn.carried()})
