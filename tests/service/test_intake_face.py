"""The look for a face needs models: where there are none yet, a good clip is not the one to blame."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from skimage import data

from deployments.errors import NoFaceError, WeightsError
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


def test_a_face_that_comes_late_after_the_only_keyframe_is_found(tmp_path: Path) -> None:
    path = late_face(tmp_path / "late.mp4", before=60, after=30)
    assert check_media(path, "video", face=True).frames == 90
    with pytest.raises(NoFaceError, match="got none in 8 frames"):
        check_media(late_face(tmp_path / "never.mp4", before=60, after=0), "video", face=True)


def test_what_would_cost_too_much_to_see_is_left_to_the_job(tmp_path: Path) -> None:
    assert check_media(late_face(tmp_path / "long.mp4", before=700, after=0), "video", face=True).frames == 700


def late_face(path: Path, before: int, after: int) -> Path:
    """One keyframe; grey frames, then a face."""
    photo = data.astronaut()[:256, 90:346]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "9999", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(before + after):
            picture = photo if number >= before else np.full_like(photo, 128)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
