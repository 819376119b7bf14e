"""Settings of the engine: those of the retrieval, which is all that it does."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.retrieval.config import RetrievalConfig


@dataclass(frozen=True)
class VideoRewriteConfig(RetrievalConfig):
    """Frozen settings; part of the avatar's digest."""

    texture_gain: float = 1.0  # share of the nearest frame's fine texture; less of it is softer and flickers less
