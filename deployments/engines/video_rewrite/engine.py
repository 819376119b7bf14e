"""The engine: fit, animate, render, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, EngineLimits, Motion, Patch, Picture, Progress, Span, Speech, Track, no_progress
from deployments.engines.video_rewrite.bank import Bank, load_bank
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.engines.video_rewrite.fit import fit_bank
from deployments.engines.video_rewrite.motion import speech_motion, track_coefficients
from deployments.engines.video_rewrite.render import render_patch
from deployments.engines.video_rewrite.select import Choice, select
from deployments.face.pose import CanonicalFaces, canonical
from deployments.face.retarget import retarget

VERSION = 1


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
        out.mkdir(parents=True, exist_ok=True)
        fit_bank(clip, track, out, self.config, progress)
        key = json.dumps([self.name, VERSION, clip.digest, asdict(self.config)], sort_keys=True)
        return Avatar(self.name, out, hashlib.sha256(key.encode()).hexdigest())

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Lip motion of the avatar's person for all frames of the clip."""
        return speech_motion(speech, clip, track, load_bank(avatar.path).stable, options)

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """Patches of the span's frames."""
        plan = Plan(load_bank(avatar.path), motion, track, self.config)
        for picture in pictures:
            yield plan.patch(picture.index, picture.rgb())


class Plan:
    """All that is decided before the first pixel: targets and pictures of every frame of the job."""

    def __init__(self, bank: Bank, motion: Motion, track: Track, config: VideoRewriteConfig) -> None:
        self.bank, self.config = bank, config
        self.row = np.full(len(track.usable), -1)
        active = track.usable & (motion.weight > 0)
        if not active.any():
            return
        # runs of usable frames keep their neighbours, so that the residual is smoothed over what was filmed
        kept = np.flatnonzero(track.usable)
        self.row[kept] = np.arange(len(kept))
        self.row[~active] = -1
        self.faces: CanonicalFaces = canonical(track.landmarks[kept], bank.stable)
        own = track_coefficients(track, bank.stable)[kept]
        weight = motion.weight[kept, None]
        wanted = ((1 - weight) * own + weight * motion.coefficients[kept]).astype(np.float32)
        self.target = retarget(bank.shape, bank.mesh, bank.mesh.vertices(self.faces.points), own, wanted)
        self.choice: Choice = select(bank, wanted, self.faces.angles(), config)

    def patch(self, frame: int, rgb: NDArray[np.uint8]) -> Patch | None:
        """The patch of one frame; None where nothing is to change."""
        row = int(self.row[frame])
        if row < 0:
            return None
        pixels = self.faces.to_pixels(self.target[row], row)[:, :2]
        return render_patch(self.bank, rgb, pixels, self.choice.rows[row], self.choice.weights[row], self.config)
