"""On real people: mouths that the avatar has not seen, told by their true landmarks, against the training-free baseline.

The bars are the retrieval, warp, two-band baseline measured on the same clips and frames (within 0.3 dB), and the
natural range of sharpness and flicker.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engines.self_reconstruction import SPLITS, reconstruct
from deployments.face.track import track_clip
from deployments.media.probe import probe

BARS = {
    "closeup_512_podium_8s": {"mask": 25.8, "mouth": 22.5, "lmd": 0.66},
    "closeup_512_woman_8s": {"mask": 22.1, "mouth": 18.1, "lmd": 1.38},
}


@pytest.mark.clips
@pytest.mark.slow
@pytest.mark.parametrize("stem", BARS)
def test_unseen_mouths_look_like_the_truth(clips_dir: Path, stem: str) -> None:
    split = next(split for split in SPLITS if split.stem == stem)
    path = clips_dir / "evaluation_only" / f"{stem}.mp4"
    found = reconstruct(path, split, "video_rewrite", track_clip(probe(path), passes=3))
    bar = BARS[stem]
    assert found["mask"] >= bar["mask"] - 0.3
    assert found["mouth"] >= bar["mouth"] - 0.3
    assert found["lmd"] <= bar["lmd"] + 0.1
    assert 0.85 <= found["sharp"] <= 1.15
    assert 0.85 <= found["flicker"] <= 1.15
