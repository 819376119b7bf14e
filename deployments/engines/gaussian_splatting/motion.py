"""Speech to the lips of this avatar's person: the shared regression, adapted to the template."""

from __future__ import annotations

from typing import Any

from deployments.contracts import Avatar, Clip, Motion, Speech, Track
from deployments.motion.dubbing import speech_motion
from deployments.retrieval.bank import load_bank


def animate(speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
    """Motion for all frames of the clip."""
    return speech_motion(speech, clip, track, load_bank(avatar.path).stable, options)
