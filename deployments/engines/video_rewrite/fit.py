"""Fit: fill the bank. Nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

from deployments.contracts import Clip, Progress, Track
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.retrieval.fill import fill_bank

META = "avatar.json"


def fit_avatar(clip: Clip, track: Track, out: Path, config: VideoRewriteConfig, progress: Progress) -> None:
    """Store the template's lower faces into the folder `out`. Raises NoFaceError under 5 usable frames."""
    out.mkdir(parents=True, exist_ok=True)
    bank = fill_bank(clip, track, out, config, progress)
    (out / META).write_text(json.dumps({"engine": "video_rewrite", "clip": clip.digest, "frames": len(bank.frames)}, indent=1))
