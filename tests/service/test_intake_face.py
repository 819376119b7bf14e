"""The look for a face needs models: where there are none yet, a good clip is not the one to blame."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments.errors import WeightsError
from deployments.face import detect
from deployments.weights import weights_path
from serve_app.intake import check_media
from serve_app.intake.check import FACE_MODELS


def test_a_fresh_server_fetches_the_models_before_it_looks(
    face_clip: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*FACE_MODELS} == {detect.LANDMARKER, detect.FULL_RANGE}
    mirror, fresh = tmp_path / "mirror", tmp_path / "fresh"
    mirror.mkdir()
    monkeypatch.setenv("LIPSYNC_CACHE", str(shared_cache))
    for name in FACE_MODELS:
        shutil.copy(weights_path(name), mirror / name)
    monkeypatch.setenv("LIPSYNC_CACHE", str(fresh))
    monkeypatch.setenv("LIPSYNC_WEIGHTS_MIRROR", str(mirror))
    assert check_media(face_clip, "video", face=True).frames == 45
    assert len(list((fresh / "weights").iterdir())) == len(FACE_MODELS)


def test_models_that_cannot_be_kept_are_the_servers_trouble(
    face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="LIPSYNC_CACHE"):
        check_media(face_clip, "video", face=True)
    assert check_media(face_clip, "video").frames == 45
