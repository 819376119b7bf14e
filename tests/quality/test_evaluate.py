"""`evaluate` on whole files: a clip against itself, against a damaged copy, and a video without a face."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.contracts import Span
from deployments.errors import MediaError
from deployments.face.track import track_clip
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.probe import probe
from deployments.quality.report import evaluate, write_report

FRAMES = 20


def write(out: Path, frames: Iterator[NDArray[np.uint8]], width: int, height: int) -> Path:
    encode_new(width, height, Fraction(25), frames, None, EncodeOptions(), out)
    return out


def noise() -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    return (rng.integers(0, 60, (96, 128, 3)).astype(np.uint8) for _ in range(FRAMES))


def test_a_video_without_a_face_is_reported_not_refused(tmp_path: Path) -> None:
    clip = write(tmp_path / "noise.mp4", noise(), 128, 96)
    stages = []
    report = evaluate(clip, clip, {"borders": [10]}, progress=lambda stage, done, total: stages.append(stage))
    assert report["face"] == {"frames": FRAMES, "without_face": FRAMES, "reference_without_face": FRAMES}
    assert report["sync"]["out"] is None and report["picture"]["mask_psnr"] is None
    assert report["pictures"] == [] and stages
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "No frame holds a usable face" in write_report(report, tmp_path / "report").read_text()


def test_clips_of_different_length_are_not_compared_but_measured(tmp_path: Path) -> None:
    long, short = write(tmp_path / "a.mp4", noise(), 128, 96), tmp_path / "b.mp4"
    write(short, (frame for frame, _ in zip(noise(), range(7), strict=False)), 128, 96)
    report = evaluate(short, long)
    assert report["picture"] is None and "7 frames, the source 20" in report["notes"][0]
    assert evaluate(short, long, {"order": [0, 1, 2, 3, 4, 3, 2]})["notes"] == []


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(MediaError):
        evaluate(tmp_path / "x.mp4")


def test_the_face_that_was_changed_is_measured_not_the_largest(tmp_path: Path) -> None:
    wall = np.full((280, 400, 3), 110, np.uint8)
    for x, scale in ((10, 0.3), (190, 0.4)):
        small = cv2.resize(data.astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        wall[20 : 20 + len(small), x : x + small.shape[1]] = small
    path = write(tmp_path / "two.mkv", (wall for _ in range(4)), 400, 280)
    left = track_clip(probe(path), "0")
    report = evaluate(path, path, reference_track=left)
    assert left.landmarks[0, :, 0].mean() < 190
    assert report["landmarks"]["lmd_percent"] < 3


@pytest.mark.clips
def test_a_clip_against_itself_and_against_a_blurred_copy(clips_dir: Path, tmp_path: Path) -> None:
    path = clips_dir / "public_domain" / "address_d1.mp4"
    clip = probe(path)
    same = evaluate(path, path, {"borders": [30]})
    assert same["picture"]["mask_psnr"] == 100 and same["picture"]["outside_largest"] == 0
    assert same["picture"]["sharpness"] == 1 and same["picture"]["flicker"] == 1
    assert same["landmarks"]["lmd_percent"] == 0 and same["aperture"]["correlation"] == pytest.approx(1)
    assert abs(same["sync"]["out"]["lag_ms"]) <= 60 and same["sync"]["out"]["correlation"] > 0.25

    blurred = (cv2.GaussianBlur(p.rgb(), (0, 0), 2.0) for p in decode(clip, Span(0, clip.frames)))
    copy = tmp_path / "blurred.mp4"
    encode_new(clip.width, clip.height, clip.average_rate, blurred, None, EncodeOptions(), copy)
    worse = evaluate(copy, path)
    assert worse["picture"]["sharpness"] < 0.6 and worse["picture"]["mask_psnr"] < 40
    assert worse["sync"]["out"] is None and worse["sync"]["reference"] is not None
