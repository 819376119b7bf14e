"""What every test may use: a cache of its own, and real clips where there are some."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ONE_CLUSTER = ("test_ray_pool", "test_serve", "test_serve_scaling", "test_ray_autoscaler", "test_wiring")  # one Ray at a time


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in two processes (`make test`), those of one file stay together: they share what takes long to make."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if Path(file).stem in ONE_CLUSTER else file

    return Together(config, log)


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


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole run: the machine's own one if it is set, so that models are fetched once."""
    asked = os.environ.get("LIPSYNC_CACHE")
    return Path(asked) if asked else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a real face: 45 frames of 256x256 at 25 fps that drift over a public-domain portrait, with a tone."""
    import numpy as np
    from skimage import data

    from deployments.media.encode import EncodeOptions, encode_new
    from deployments.media.sound import SoundPlan

    photo = data.astronaut()
    frames = [np.ascontiguousarray(photo[k % 20 : k % 20 + 256, 90 + k : 346 + k]) for k in range(45)]
    tone = (0.1 * np.sin(np.arange(round(1.8 * 48000)) / 30)).astype(np.float32)
    path = tmp_path_factory.mktemp("clip") / "face.mp4"
    encode_new(256, 256, Fraction(25), frames, SoundPlan(tone, 48000), EncodeOptions("high"), path)
    return path


@pytest.fixture(scope="session")
def speech_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a tone that swells every half second: a WAV file, 16 kHz, 16 bits."""
    import wave

    import numpy as np

    time = np.arange(3 * 16000) / 16000
    samples = 0.9 * np.abs(np.sin(2 * np.pi * time)) * np.sin(2 * np.pi * 220 * time)
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return path
