"""The engine: fit, animate, render, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.emotion import BOUNDS
from deployments.engines.emo.fit import fit_avatar
from deployments.engines.emo.motion import animate
from deployments.engines.emo.render import render_patch, studio_of

VERSION = 3


class Emo:
    """After Tian et al. 2024, *EMO*: latent diffusion that hears the speech, from the person's own pictures; compact."""

    name = "emo"

    def __init__(self, config: EmoConfig | None = None) -> None:
        self.config = config or EmoConfig()

    def limits(self) -> EngineLimits:
        """Windows of frames lie on an absolute grid: a chunk wants to know the motion of a window on both sides."""
        config = self.config.denoiser
        context = config.window + config.before
        own = ("expression", "guidance", "liveliness", "seed", "singing", "steps")
        return EngineLimits(context_frames=context, sequential=False, options=(*own, *BOUNDS), bounds=BOUNDS)

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Learn the person of a clip into the folder `out`; a fit that was interrupted there is gone on with."""
        fit_avatar(clip, track, out, self.config, progress)
        key = json.dumps([self.name, VERSION, clip.digest, asdict(self.config)], sort_keys=True)
        return Avatar(self.name, out, hashlib.sha256(key.encode()).hexdigest())

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Lip motion of the avatar's person for all frames of the clip, and what is heard in each of them."""
        return animate(speech, clip, track, avatar, options)

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """Patches of the span's frames."""
        studio = studio_of(avatar, motion, track, self.config)
        for picture in pictures:
            yield render_patch(studio, picture, self.config)
