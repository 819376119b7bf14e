"""The engine: fit, animate, render, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.engines.video_rewrite.fit import fit_avatar
from deployments.engines.video_rewrite.motion import animate
from deployments.engines.video_rewrite.render import render_patch
from deployments.retrieval.plan import PlanKey, plan_of

VERSION = 2


class VideoRewrite:
    """Bregler, Covell, Slaney 1997, with a modern tracker, warp and blend. Deterministic to the bit."""

    name = "video_rewrite"

    def __init__(self, config: VideoRewriteConfig | None = None) -> None:
        self.config = config or VideoRewriteConfig()

    def limits(self) -> EngineLimits:
        """Chunks are independent; the path through the bank is found over the whole job by each of them."""
        return EngineLimits(context_frames=0, sequential=False, options=("expression",))

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Store the template's lower faces into the folder `out`."""
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
        plan = plan_of(PlanKey(avatar, motion, track, self.config))
        for picture in pictures:
            yield render_patch(plan, picture, self.config)
