"""The quality report as files: `report.json` and one self-contained page, `report.html`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import OutputError
from deployments.quality.charts import Line, chart
from deployments.quality.evaluate import evaluate

__all__ = ["evaluate", "write_report"]

TEMPLATE = "report.html.j2"
DASH = "–"


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    out: str
    reference: str
    meaning: str


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Write `report.json` (all numbers and curves, no pictures) and `report.html`; returns the page's path.

    `report` is what `evaluate` returned. Raises OutputError if the folder cannot be written.
    """
    numbers = {key: value for key, value in report.items() if key != "pictures"}
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        page.write_text(render_page(report), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"expected a writable folder for the quality report, got {folder}: {error.strerror}") from error
    return page


def render_page(report: dict[str, Any]) -> str:
    """HTML of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("deployments.quality", "data"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    charts = [(title, note, both, Markup(svg)) for title, note, both, svg in curves(report) if svg]
    return environment.get_template(TEMPLATE).render(
        report=report, tiles=tiles(report), charts=charts, tables=tables(report), number=number
    )


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number for people; a dash where it was not measured."""
    return DASH if value is None else f"{value:.{digits}f}{unit and ' ' + unit}"


def tiles(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The few numbers on top: (name, value, note)."""
    sync, source = report["sync"]["out"], report["sync"]["reference"]
    face = report["face"]
    found = [("frames without a face", str(face["without_face"]), f"of {face['frames']}")]
    if sync:
        beside = f"source: {number(source['lag_ms'], 0)} ms" if source else "no source given"
        found.append(("sound after picture", number(sync["lag_ms"], 0, "ms"), beside))
        beside = f"source: {number(source['correlation'])}" if source else "no source given"
        found.append(("lips with sound, r", number(sync["correlation"]), beside))
    if report["picture"]:
        picture = report["picture"]
        found.append(("mouth sharpness", number(picture["sharpness"]), "1 = as the source"))
        found.append(("mouth flicker", number(picture["flicker"]), "1 = natural"))
        found.append(("mask PSNR", number(picture["mask_psnr"], 1, "dB"), "against the source's own frames"))
    if report["chunks"]["landmarks"] is not None:
        found.append(("worst chunk border", number(report["chunks"]["landmarks"]), "up to 1: does not stand out"))
    return found


def curves(report: dict[str, Any]) -> list[tuple[str, str, bool, str]]:
    """Charts: (title, note, whether the source's curve is in it, SVG or empty)."""
    data = report["curves"]
    times = data["times"]
    marks = [times[b] for b in report["chunks"]["borders"]]
    aperture = [Line("source", "source", data["aperture_reference"])] if data["aperture_reference"] else []
    aperture.append(Line("result", "out", data["aperture_out"]))
    sync = [Line("source", "source", data["sync_reference"])] if data["sync_reference"] else []
    sync += [Line("result", "out", data["sync_out"])] if data["sync_out"] else []
    opening = chart(times, aperture, "s", "mouth opening", marks)
    lags = chart(data["lags_ms"], sync, "ms that the sound comes after the picture", "correlation", [0.0])
    found = [
        ("Mouth opening", "Inner-lip gap in outer-eye distances over time.", len(aperture) > 1, opening),
        ("Lips and sound over the lag", "Correlation after shifting the sound; it should peak at 0 ms.", len(sync) > 1, lags),
    ]
    if data["mask_psnr"]:
        psnr = chart(times, [Line("result", "out", data["mask_psnr"])], "s", "mask PSNR", marks)
        note = "Result against the source, inside the lower face, dB. Means quality only where the words are the same."
        found.append(("Likeness of the lower face over time", note, False, psnr))
    return found


def tables(report: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """Titled tables of every measured number with a one-line meaning."""
    found = [("Lips and sound", sync_rows(report["sync"])), ("Mouth movement", mouth_rows(report))]
    if report["picture"]:
        found.append(("Picture, beside the source", picture_rows(report["picture"])))
    if report["chunks"]["borders"]:
        found.append(("Chunk borders", chunk_rows(report["chunks"])))
    return found


def sync_rows(sync: dict[str, Any]) -> list[Row]:
    """Offset, correlation, confidence, and what was not computed."""
    rows = []
    for key, name, digits, unit, meaning in (
        ("lag_ms", "offset", 0, "ms", "where the correlation peaks; above 0: the sound comes after the picture"),
        (
            "correlation",
            "correlation",
            2,
            "",
            "of mouth distances with log-mel (canonical), at that offset; read it beside the source's",
        ),
        ("correlation_at_zero", "correlation at 0 ms", 2, "", "the same, sound unshifted"),
        ("confidence", "confidence", 2, "", "peak minus median over lags of ±500 ms; near 0: no lag fits better than another"),
    ):
        out, source = ((number(side[key], digits, unit) if side else DASH) for side in (sync["out"], sync["reference"]))
        rows.append(Row(name, out, source, meaning))
    if sync["reason"]:
        rows.append(Row("not measured", DASH, DASH, sync["reason"]))
    rows.append(Row("LSE-C, LSE-D", "not computed", "not computed", sync["lse_reason"]))
    return rows


def mouth_rows(report: dict[str, Any]) -> list[Row]:
    """Aperture statistics, correlation with the source, landmark distance."""
    aperture, marks = report["aperture"], report["landmarks"]
    rows = []
    for key, meaning in (
        ("mean", "mean inner-lip gap, in outer-eye distances"),
        ("deviation", "its standard deviation: how lively the mouth is"),
        ("p99", "99th percentile: the widest opening"),
        ("closed_share", "share of frames with a gap below 0.02: closed lips"),
    ):
        source = aperture["reference"]
        rows.append(
            Row(
                f"opening, {key.replace('_', ' ')}",
                number(aperture["out"][key], 3),
                number(source[key], 3) if source else DASH,
                meaning,
            )
        )
    if marks:
        same = "1 for the same words, about 0 for new words"
        rows.append(Row("opening, r with source", number(aperture["correlation"]), "1", f"Pearson over time; {same}"))
        rows.append(Row("width, r with source", number(aperture["width_correlation"]), "1", f"Pearson over time; {same}"))
        meaning = "mean distance of the lip points from the source's; an error only for the same words"
        rows.append(Row("LMD", number(marks["lmd_percent"], 2, "%"), "0 %", f"{meaning}, in % of the outer-eye distance"))
        rows.append(
            Row("LMD, 95th percentile", number(marks["lmd_percent_p95"], 2, "%"), "0 %", "the worst twentieth of the frames")
        )
        rows.append(Row("LMD in pixels", number(marks["lmd_pixels"], 2, "px"), "0 px", meaning))
    return rows


def picture_rows(picture: dict[str, Any]) -> list[Row]:
    """Likeness to the source, sharpness, flicker, identity, what changed outside."""
    limit = picture["outside_threshold"]
    return [
        Row("PSNR, lower face", number(picture["mask_psnr"], 1, "dB"), DASH, "10 log10(255² / mean squared error) in the lower face"),
        Row("PSNR, mouth", number(picture["mouth_psnr"], 1, "dB"), DASH, "the same in the lip box + 4 px"),
        Row("SSIM, lower face", number(picture["mask_ssim"], 3), "1", "structural similarity of luma, Gaussian window of 1.5 px"),
        Row("SSIM, mouth", number(picture["mouth_ssim"], 3), "1", "the same in the lip box + 4 px"),
        Row("sharpness", number(picture["sharpness"]), "1", "deviation of the mouth's Laplacian, result / source; below 0.6 teeth are gone, above 1 is noise"),
        Row("flicker", number(picture["flicker"]), "1", "energy of the mouth's second temporal difference, result / source"),
        Row("upper face, PSNR", number(picture["upper_psnr"], 1, "dB"), DASH, "identity by picture: forehead to nose bridge; no face-recognition network is used"),
        Row("upper face, agreement", number(picture["upper_agreement"], 4), "1", "normalised cross-correlation of the same region"),
        Row(
            "changed outside, mean", number(picture["outside_changed_mean"], 1, "px"), "0 px",
            f"pixels per frame away from the lower face that differ by more than {limit} of 255 after decoding (codec noise)",
        ),
        Row("changed outside, worst frame", number(picture["outside_changed_worst"], 0, "px"), "0 px", "the same, largest over frames"),
        Row("largest difference outside", number(picture["outside_largest"], 0), "0", "of 255, codec noise included"),
    ]  # fmt: skip


def chunk_rows(chunks: dict[str, Any]) -> list[Row]:
    """Whether a border between two chunks shows."""
    where = ", ".join(str(b) for b in chunks["borders"][:12]) + (" …" if len(chunks["borders"]) > 12 else "")
    rule = "largest at a border / 99th percentile elsewhere; up to about 1 no border stands out"
    return [
        Row("borders", str(len(chunks["borders"])), DASH, f"first frames of the later chunks: {where}"),
        Row(
            "lip movement", number(chunks["landmarks"]), number(chunks["reference_landmarks"]), f"change of lip velocity, {rule}"
        ),
        Row(
            "picture",
            number(chunks["picture"]),
            number(chunks["reference_picture"]),
            f"frame difference in the lower face, {rule}",
        ),
    ]
