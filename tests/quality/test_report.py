"""The report's files: self-contained page, JSON that comes back as it went."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.errors import OutputError
from deployments.quality.charts import Line, chart, ticks
from deployments.quality.compare import COLUMNS, PicturePass
from deployments.quality.report import write_report

FRAMES = 12
POINTS = 478


def face_points() -> NDArray[np.float32]:
    """A flat face of mesh points around (100, 90): eyes 60 px apart, lips, jaw and brow where a face has them."""
    from deployments.face.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER

    points = np.tile(np.float32([100, 90, 0]), (POINTS, 1))
    for k, index in enumerate(FACE_OVAL):
        angle = 2 * np.pi * k / len(FACE_OVAL)
        points[index, :2] = (100 + 45 * np.sin(angle), 95 - 60 * np.cos(angle))
    for ring, (rx, ry) in ((LIPS_OUTER, (18, 8)), (LIPS_INNER, (12, 3))):
        for k, index in enumerate(ring):
            angle = 2 * np.pi * k / len(ring)
            points[index, :2] = (100 - rx * np.cos(angle), 125 - ry * np.sin(angle))
    points[33, :2], points[263, :2] = (70, 75), (130, 75)
    points[[98, 2, 327], :2] = [(92, 108), (100, 110), (108, 108)]
    points[6, :2] = (100, 78)
    return points


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    """A textured clip [T, 180, 200, 3] that moves a little."""
    rng = np.random.default_rng(5)
    base = rng.integers(40, 200, (180, 200, 3))
    return np.stack([np.clip(base + 3 * np.sin(k), 0, 255) for k in range(FRAMES)]).astype(np.uint8)


def passed(out: NDArray[np.uint8], reference: NDArray[np.uint8] | None, faceless: tuple[int, ...] = ()) -> PicturePass:
    usable = np.ones(FRAMES, bool)
    usable[list(faceless)] = False
    seen = PicturePass(np.tile(face_points(), (FRAMES, 1, 1)), usable, shown=[0, 5, 7])
    for index in range(FRAMES):
        seen.step(index, out[index], None if reference is None else reference[index])
    return seen


def sample_report(seen: PicturePass) -> dict[str, Any]:
    side = {"lag_ms": 40.0, "correlation": 0.5, "correlation_at_zero": 0.4, "confidence": 0.3}
    opening = {"mean": 0.05, "deviation": 0.03, "p01": 0.0, "p99": 0.2, "closed_share": 0.3}
    facts = {
        "file": "a <b>.mp4",
        "width": 200,
        "height": 180,
        "frames": FRAMES,
        "seconds": 0.48,
        "frames_per_second": 25.0,
        "codec": "h264",
    }
    names = ("mask_psnr", "mask_ssim", "mouth_psnr", "mouth_ssim", "upper_psnr", "upper_agreement", "sharpness", "flicker")
    return {
        "version": 1, "clip": facts, "reference": facts, "info": {"engine": "x"}, "notes": ["a note"],
        "face": {"frames": FRAMES, "without_face": 1, "reference_without_face": 0},
        "sync": {"out": side, "reference": None, "reason": None, "lse_c": None, "lse_d": None, "lse_reason": "no weights"},
        "aperture": {"out": opening, "reference": opening, "correlation": None, "width_correlation": 0.9},
        "landmarks": {"lmd_percent": 1.0, "lmd_pixels": 2.0, "lmd_percent_p95": None},
        "picture": dict.fromkeys(names, 1.0) | {
            "outside_changed_mean": 0.0, "outside_changed_worst": 0.0, "outside_largest": 2.0, "outside_threshold": 24,
        },
        "chunks": {"borders": [6], "landmarks": 0.9, "picture": None, "reference_landmarks": 0.8, "reference_picture": None},
        "curves": {
            "times": [k / 25 for k in range(FRAMES)], "aperture_out": [0.1, None, *[0.2] * (FRAMES - 2)], "aperture_reference": None,
            "mask_psnr": [30.0] * FRAMES, "lags_ms": [-20.0, 0.0, 20.0], "sync_out": [0.1, 0.5, 0.2], "sync_reference": None,
        },
        "pictures": [{**v, "time": v["frame"] / 25} for v in seen.views],
    }  # fmt: skip


def test_the_page_needs_nothing_from_outside(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    page = write_report(sample_report(passed(pictures, pictures)), tmp_path / "deep" / "report").read_text()
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:|//|/|file:)", page)
    assert "<script" not in page and "<link" not in page
    assert page.count("data:image/jpeg;base64,") == 9
    assert "a &lt;b&gt;.mp4" in page and "<b>.mp4" not in page
    assert page.count("<svg") == 3
    parser = HTMLParser()
    parser.feed(page)
    parser.close()


def test_json_comes_back_equal(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    report = sample_report(passed(pictures, None))
    write_report(report, tmp_path)
    again = json.loads((tmp_path / "report.json").read_text())
    assert again == {key: value for key, value in report.items() if key != "pictures"}


def test_an_unwritable_folder_is_told(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="writable folder"):
        write_report(sample_report(passed(pictures, None)), tmp_path / "taken")


def test_equal_clips_measure_as_equal(pictures: NDArray[np.uint8]) -> None:
    columns = passed(pictures, pictures).columns
    assert (columns["mask_psnr"] == 100).all() and (columns["mouth_psnr"] == 100).all()
    np.testing.assert_allclose(columns["mask_ssim"], 1, atol=1e-5)
    np.testing.assert_allclose(columns["upper_agreement"], 1)
    np.testing.assert_array_equal(columns["sharp_out"], columns["sharp_reference"])
    assert not columns["outside_changed"].any()
    assert np.isfinite(columns["flicker_out"][1:-1]).all() and np.isnan(columns["flicker_out"][[0, -1]]).all()


def test_a_change_at_the_mouth_is_a_change_in_the_mask_only(pictures: NDArray[np.uint8]) -> None:
    out = pictures.copy()
    out[:, 120:130, 90:110] = 0
    columns = passed(out, pictures).columns
    assert (columns["mouth_psnr"] < columns["mask_psnr"]).all() and (columns["mask_psnr"] < 30).all()
    assert (columns["upper_psnr"] == 100).all() and not columns["outside_changed"].any()


def test_a_change_in_the_background_is_found_outside(pictures: NDArray[np.uint8]) -> None:
    out = pictures.copy()
    out[3, :8, :10] ^= 128
    columns = passed(out, pictures).columns
    assert columns["outside_changed"][3] == 80 and columns["outside_changed"].sum() == 80
    assert (columns["mask_psnr"] == 100).all()


def test_frames_without_a_face_are_not_measured(pictures: NDArray[np.uint8]) -> None:
    seen = passed(pictures, pictures, faceless=(4, 5))
    for name in COLUMNS:
        assert np.isnan(seen.columns[name][[4, 5]]).all(), name
    assert [view["frame"] for view in seen.views] == [0, 7]


def test_chart_gaps_marks_and_round_ticks() -> None:
    svg = chart([0.0, 1, 2, 3, 4], [Line("r", "out", [1.0, 2.0, None, 3.0, 4.0])], "s", "y", marks=[2.0])
    assert svg.count("<polyline") == 2 and svg.count('class="mark"') == 1
    assert chart([0.0, 1.0], [Line("r", "out", [None, None])], "s", "y") == ""
    assert ticks(-0.1, 1.02, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
