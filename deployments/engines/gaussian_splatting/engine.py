"""The engine: fit, animate, render, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.gaussian_splatting.config import GaussianConfig
from deployments.engines.gaussian_splatting.fit import fit_avatar
from deployments.engines.gaussian_splatting.motion import animate
from deployments.engines.gaussian_splatting.options import BOUNDS, turn_of
from deployments.engines.gaussian_splatting.render import render

VERSION = 1


class GaussianSplatting:
    """3-D Gaussians bound to the face mesh (Kerbl et al. 2023; Qian et al. 2024). Deterministic to the bit on a CPU."""

    name = "gaussian_splatting"

    def __init__(self, config: GaussianConfig | None = None) -> None:
        self.config = config or GaussianConfig()

    def limits(self) -> EngineLimits:
        """Chunks are independent: where everything goes is decided over the whole job by each of them."""
        turns = tuple(BOUNDS)
        return EngineLimits(context_frames=0, sequential=False, options=("expression", *turns), bounds=BOUNDS, deeper=turns)

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Learn the template's lower face into the folder `out`."""
        fit_avatar(clip, track, out, self.config, progress)
        key = json.dumps([self.name, VERSION, clip.digest, asdict(self.config)], sort_keys=True)
        return Avatar(self.name, out, hashlib.sha256(key.encode()).hexdigest())

    def deepen(self, avatar: Avatar, clip: Clip, progress: Progress = no_progress) -> None:
        """Learn the whole face, which turns and looks, into the avatar."""
        from deployments.engines.gaussian_splatting.face import fit_face

        fit_face(avatar.path, clip, self.config, progress)

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Lip motion of the avatar's person for all frames of the clip, with a pose and a gaze; they need `deepen`."""
        return animate(speech, clip, track, avatar, options)

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """Patches of the span's frames."""
        turn = turn_of(motion)
        if not turn:
            return render(avatar, motion, pictures, track, self.config)
        from deployments.engines.gaussian_splatting.whole import render_face

        return render_face(avatar, motion, pictures, track, turn, self.config)
