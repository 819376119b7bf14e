"""What every test may use: a cache of its own, and real clips where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clips_dir() -> Path:
    """Folder of real clips: LIPSYNC_CLIPS, or `../shared/clips` beside the checkout; else the test is skipped."""
    folder = Path(os.environ.get("LIPSYNC_CLIPS", ROOT.parent / "shared" / "clips"))
    if not folder.is_dir():
        pytest.skip("no real clips here; set LIPSYNC_CLIPS to a folder of them")
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that only this test uses."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIPSYNC_CACHE", str(folder))
    return folder
