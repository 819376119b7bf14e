"""Measure a result: alone, or paired with the clip that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import MESH_POINTS, Clip, Picture, Progress, Span, Track, no_progress
from deployments.errors import InputError, NoFaceError
from deployments.quality import metrics
from deployments.quality.compare import PicturePass
from deployments.quality.mouth import aperture_statistics, track_measures
from deployments.quality.regions import EYES, LIPS
from deployments.quality.sync import LAGS, SyncModel, SyncScore, score, sound_bands
from deployments.records import pick_rows

VERSION = 1
VIEWS = 10
NO_LSE = "needs the published SyncNet weights, which this project does not carry; no figure is made up in their place"
NO_SYNC = "no sound, or fewer than 25 frames with a face and sound"

Aligned = NDArray[np.float64]
Map = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Side:
    """One clip as the report sees it, frame by frame of the result."""

    clip: Clip
    track: Track
    measures: Aligned  # [T, 6]
    sync: SyncScore | None


def evaluate(
    out: Path,
    reference: Path | None = None,
    job: dict[str, Any] | None = None,
    progress: Progress = no_progress,
    reference_track: Track | None = None,
    run: Map = map,
) -> dict[str, Any]:
    """Quality report of a result as a dictionary that JSON can hold (NaN becomes None).

    Parameters
    ----------
    out : the result.
    reference : the clip that it was made from. Paired metrics need the same size and number of frames.
    job : what the maker knows, all optional: `borders` (first frame of every chunk but the first), `order` (frame of the
        reference behind each frame of the result, for looped or remapped clips), `info` (facts to print: name -> value).
    reference_track : track of the reference where it is at hand; saves tracking it again, and says whose face it is.
    run : like the built-in `map`; tracks pieces of the result side by side.

    Raises MediaError for files that are not videos. A result without any face is reported, not refused.
    """
    job = job or {}
    order = job.get("order")
    who = _face_of(reference_track, order)
    result = _side(out, None, None, progress, "quality: result", who, run)
    source = None
    notes: list[str] = []
    if reference is not None:
        source = _side(reference, order, reference_track, progress, "quality: source", run=run)
        reason = _unpaired(result, source)
        if reason:
            notes.append(reason)
    paired = source is not None and not notes
    borders = sorted({int(b) for b in job.get("borders", ()) if 0 < int(b) < result.clip.frames})
    regions = source.track if paired and source is not None and source.track.usable.any() else result.track
    pictures = PicturePass(regions.landmarks, regions.usable, _shown(regions, result.measures, borders))
    _look(pictures, result, source if paired else None, order, progress)
    columns = pictures.columns
    report = {
        "version": VERSION,
        "clip": _facts(result.clip),
        "reference": _facts(source.clip) if source else None,
        "info": {str(k): str(v) for k, v in job.get("info", {}).items()},
        "notes": notes,
        "face": _faces(result, source),
        "sync": _sync(result, source),
        "aperture": _aperture(result, source, paired),
        "landmarks": _landmarks(result, source) if paired and source else None,
        "picture": _picture(columns) if paired else None,
        "chunks": _chunks(borders, result, source if paired else None, columns),
        "curves": _curves(result, source, paired, columns),
        "pictures": [{**v, "time": float(result.clip.times()[v["frame"]])} for v in pictures.views],
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _face_of(track: Track | None, order: Sequence[int] | None) -> str:
    """Where the face that was changed is first seen, for the tracker; another may be larger."""
    if track is None:
        return "largest"
    shown = np.arange(len(track.usable)) if order is None else np.asarray(order, np.int64)
    rows = shown[track.usable[shown]]
    if not len(rows):
        return "largest"
    points = track.landmarks[rows[0], :, :2]
    low, size = points.min(0), np.ptp(points, axis=0)
    return ",".join(f"{value:.1f}" for value in (*low, *size))


def _side(
    path: Path,
    order: Sequence[int] | None,
    track: Track | None,
    progress: Progress,
    stage: str,
    face: str = "largest",
    run: Map = map,
) -> Side:
    from deployments.face.track import track_clip
    from deployments.media.probe import probe

    clip = probe(path)
    if track is None:
        try:
            track = track_clip(clip, face, run=run, progress=lambda _, done, total: progress(stage, done, total))
        except NoFaceError:
            track = _empty_track(clip.frames)
    measures = track_measures(track)
    sync = _heard(clip, measures)
    if order is not None:
        rows = np.asarray(order, np.int64)
        track = pick_rows(track, rows)
        measures = measures[rows]
    return Side(clip, track, measures, sync)


def _heard(clip: Clip, measures: Aligned) -> SyncScore | None:
    from deployments.media.sound import read_sound

    if not clip.audio:
        return None
    try:
        samples = read_sound(clip.path, origin=int(clip.pts[0]) * clip.time_base)
    except InputError:
        return None
    return score(SyncModel.load(), measures, clip.times(), sound_bands(samples)) if len(samples) else None


def _look(pictures: PicturePass, result: Side, source: Side | None, order: Sequence[int] | None, progress: Progress) -> None:
    """Feed both clips, frame by frame, to the picture pass."""
    from deployments.media.decode import decode, decode_order

    total = result.clip.frames
    beside: Iterator[Picture | None] = repeat(None)
    if source is not None:
        whole = Span(0, source.clip.frames)
        beside = iter(decode(source.clip, whole) if order is None else decode_order(source.clip, order))
    for index, (picture, twin) in enumerate(zip(decode(result.clip, Span(0, total)), beside, strict=False)):
        pictures.step(index, picture.rgb(), None if twin is None else twin.rgb())
        progress("quality: pictures", index + 1, total)


def _unpaired(result: Side, source: Side) -> str:
    """Why two clips cannot be compared frame by frame, or an empty text."""
    a, b = result.clip, source.clip
    if (a.width, a.height) != (b.width, b.height):
        return f"not compared with the source: the result is {a.width}x{a.height}, the source {b.width}x{b.height}"
    if a.frames != len(source.track.usable):
        return f"not compared with the source: the result has {a.frames} frames, the source {len(source.track.usable)}"
    return ""


def _shown(track: Track, measures: Aligned, borders: Sequence[int]) -> list[int]:
    """Frames to look at: spread over the clip, the most open and most closed mouth, both sides of the first borders."""
    usable = np.flatnonzero(track.usable)
    if usable.size == 0:
        return []
    chosen = set(usable[np.linspace(0, len(usable) - 1, min(VIEWS, len(usable))).astype(int)].tolist())
    aperture = np.where(track.usable, measures[:, 0], np.nan)
    if np.isfinite(aperture).any():
        chosen |= {int(np.nanargmax(aperture)), int(np.nanargmin(aperture))}
    chosen |= {frame for border in borders[:2] for frame in (border - 1, border)}
    return sorted(chosen)


def _faces(result: Side, source: Side | None) -> dict[str, Any]:
    missing = int((~result.track.usable).sum())
    return {
        "frames": result.clip.frames,
        "without_face": missing,
        "reference_without_face": None if source is None else int((~source.track.usable).sum()),
    }


def _sync(result: Side, source: Side | None) -> dict[str, Any]:
    def told(sync: SyncScore | None) -> dict[str, Any] | None:
        if sync is None:
            return None
        names = ("lag_ms", "correlation", "correlation_at_zero", "confidence")
        return {name: getattr(sync, name) for name in names}

    return {
        "out": told(result.sync),
        "reference": told(source.sync) if source else None,
        "reason": None if result.sync else NO_SYNC,
        "lse_c": None,
        "lse_d": None,
        "lse_reason": NO_LSE,
    }


def _aperture(result: Side, source: Side | None, paired: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"out": aperture_statistics(result.measures[:, 0])}
    report["reference"] = aperture_statistics(source.measures[:, 0]) if source else None
    for name, column in (("correlation", 0), ("width_correlation", 2)):
        same_clock = paired and source is not None
        report[name] = (
            metrics.correlation(result.measures[:, column], source.measures[:, column]) if same_clock and source else None
        )
    return report


def _landmarks(result: Side, source: Side) -> dict[str, Any]:
    both = result.track.usable & source.track.usable
    if not both.any():
        return {"lmd_percent": float("nan"), "lmd_pixels": float("nan"), "lmd_percent_p95": float("nan")}
    a, b = result.track.landmarks[both], source.track.landmarks[both]
    percent, pixels = metrics.landmark_distance(a[:, LIPS, :2], b[:, LIPS, :2], b[:, EYES, :2])
    return {
        "lmd_percent": float(percent.mean()),
        "lmd_pixels": float(pixels.mean()),
        "lmd_percent_p95": float(np.percentile(percent, 95)),
    }


def _picture(columns: dict[str, Aligned]) -> dict[str, Any]:
    means = ("mask_psnr", "mask_ssim", "mouth_psnr", "mouth_ssim", "upper_psnr", "upper_agreement")
    report: dict[str, Any] = {name: _mean(columns[name]) for name in means}
    report["sharpness"] = _ratio(columns["sharp_out"], columns["sharp_reference"])
    report["flicker"] = _ratio(columns["flicker_out"], columns["flicker_reference"])
    report["outside_changed_mean"] = _mean(columns["outside_changed"])
    report["outside_changed_worst"] = float(np.nanmax(columns["outside_changed"], initial=0))
    report["outside_largest"] = float(np.nanmax(columns["outside_largest"], initial=0))
    report["outside_threshold"] = metrics.CODEC_NOISE
    return report


def _chunks(borders: list[int], result: Side, source: Side | None, columns: dict[str, Aligned]) -> dict[str, Any]:
    report: dict[str, Any] = {"borders": borders, "landmarks": None, "picture": None}
    report |= {"reference_landmarks": None, "reference_picture": None}
    if borders:
        report["landmarks"] = metrics.border_statistic(_jerk(result), borders)
        report["picture"] = metrics.border_statistic(columns["step_out"], borders, reach=0)
        if source is not None:
            report["reference_landmarks"] = metrics.border_statistic(_jerk(source), borders)
            report["reference_picture"] = metrics.border_statistic(columns["step_reference"], borders, reach=0)
    return report


def _jerk(side: Side) -> Aligned:
    lips = side.track.landmarks[:, LIPS, :2].astype(np.float64)
    lips[~side.track.usable] = np.nan
    return metrics.landmark_jerk(lips)


def _curves(result: Side, source: Side | None, paired: bool, columns: dict[str, Aligned]) -> dict[str, Any]:
    return {
        "times": result.clip.times(),
        "aperture_out": result.measures[:, 0],
        "aperture_reference": source.measures[:, 0] if paired and source else None,
        "mask_psnr": columns["mask_psnr"] if paired else None,
        "lags_ms": 1000 * LAGS,
        "sync_out": result.sync.curve if result.sync else None,
        "sync_reference": source.sync.curve if source and source.sync else None,
    }


def _facts(clip: Clip) -> dict[str, Any]:
    return {
        "file": clip.path.name,
        "width": clip.width,
        "height": clip.height,
        "frames": clip.frames,
        "seconds": float(clip.duration),
        "frames_per_second": float(clip.average_rate),
        "codec": clip.codec,
    }


def _empty_track(frames: int) -> Track:
    points = np.zeros((frames, MESH_POINTS, 3), np.float32)
    return Track(points, np.zeros(frames, np.float32), np.zeros(frames, bool), np.zeros(frames, np.int32))


def _mean(values: Aligned) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _ratio(top: Aligned, bottom: Aligned) -> float:
    known = np.isfinite(top) & np.isfinite(bottom)
    below = float(bottom[known].sum())
    return float(top[known].sum()) / below if below > 0 else float("nan")


def _plain(value: Any) -> Any:
    """Only what JSON holds: arrays as lists, numbers as Python's, NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if np.isfinite(value) else None
    return value
