"""The engine: fit, animate, render, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.vasa1.config import Vasa1Config
from deployments.engines.vasa1.fit import fit_avatar
from deployments.engines.vasa1.motion import animate
from deployments.engines.vasa1.render import render_patch, studio_of
from deployments.retrieval.plan import PlanKey

VERSION = 1


class Vasa1:
    """After Xu et al. 2024, *VASA-1*: generated motion, decoded onto the person's own warped pictures."""

    name = "vasa1"

    def __init__(self, config: Vasa1Config | None = None) -> None:
        self.config = config or Vasa1Config()

    def limits(self) -> EngineLimits:
        """Chunks are independent; motion is made once and every frame is decoded by itself."""
        return EngineLimits(context_frames=0, sequential=False, options=("expression", "guidance", "seed"))

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Learn the person of a clip into the folder `out`; a fit that was interrupted there is gone on with."""
        fit_avatar(clip, track, out, self.config, progress)
        key = json.dumps([self.name, VERSION, clip.digest, asdict(self.config)], sort_keys=True)
        return Avatar(self.name, out, hashlib.sha256(key.encode()).hexdigest())

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Lip motion of the avatar's person for all frames of the clip."""
        return animate(speech, clip, track, avatar, options)

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """Patches of the span's frames."""
        studio = studio_of(PlanKey(avatar, motion, track, self.config), self.config)
        for picture in pictures:
            yield render_patch(studio, picture, self.config)
