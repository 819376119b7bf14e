"""Fit the audio-visual measure on clips of talking people whose rights are clear.

    python -m deployments.quality.train_sync --clips DIR [--clips DIR ...] [--anchor NAME ...] [--out FILE]

Clips need not be in sync: each clip's offset is estimated and removed in turn with the fit. That leaves one common shift
undetermined; `--anchor` names clips (stems) that are known to be in sync, and their median offset is made zero.
Every folder weighs the same per second up to a minute, so one long-winded speaker does not drown the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import FRAME_RATE
from deployments.contracts import Clip
from deployments.errors import InputError, OptionError
from deployments.quality.mouth import track_measures
from deployments.quality.sync import (
    WEIGHTS,
    SyncModel,
    fit_cca,
    mouth_features,
    score,
    sound_bands,
    sound_features,
)

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".mpg", ".avi"}
ROUNDS = 4
GROUP_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """One clip, measured."""

    name: str
    group: str
    measures: NDArray[np.float64]  # [T, 6]
    times: NDArray[np.float64]  # [T] s
    bands: NDArray[np.float64]  # [F, 20]

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.bands) / FRAME_RATE


def measure(path: Path) -> Sample | None:
    """Track and hear one clip; None where there is no face or no sound."""
    from deployments.face.track import track_clip
    from deployments.media.probe import probe

    try:
        clip = probe(path)
        if not clip.audio:
            return None
        return Sample(path.stem, path.parent.name, track_measures(track_clip(clip)), clip.times(), clip_bands(clip))
    except InputError:
        return None


def clip_bands(clip: Clip) -> NDArray[np.float64]:
    """Bands of a clip's first sound stream whose sample 0 is the first frame's time."""
    from deployments.media.sound import read_sound

    return sound_bands(read_sound(clip.path, origin=int(clip.pts[0]) * clip.time_base))


def fit(samples: Sequence[Sample], anchors: Sequence[str] = (), rounds: int = ROUNDS) -> tuple[SyncModel, dict[str, float]]:
    """Model and offset in ms of every clip, by turns: fit on shifted sound, then look for each clip's best lag."""
    lags = np.zeros(len(samples))
    weights = sample_weights(samples)
    for _ in range(rounds):
        model = _fit_at(samples, lags, weights)
        scores = [score(model, s.measures, s.times, s.bands) for s in samples]
        lags = np.array([0.0 if r is None else np.clip(r.lag_ms, -240, 240) / 1000 for r in scores])
        known = [lag for s, lag in zip(samples, lags, strict=True) if s.name in anchors]
        lags -= np.median(known) if known else np.median(lags)
    return _fit_at(samples, lags, weights), {s.name: round(1000 * float(x), 1) for s, x in zip(samples, lags, strict=True)}


def sample_weights(samples: Sequence[Sample]) -> list[float]:
    """Weight per second of each clip: 1, less for folders that hold more than a minute."""
    total = {s.group: 0.0 for s in samples}
    for s in samples:
        total[s.group] += s.seconds
    return [min(1.0, GROUP_SECONDS / max(total[s.group], 1e-6)) for s in samples]


def _fit_at(samples: Sequence[Sample], lags: NDArray[np.float64], weights: Sequence[float]) -> SyncModel:
    mouth, sound, row_weight = [], [], []
    for sample, lag, weight in zip(samples, lags, weights, strict=True):
        mouth.append(mouth_features(sample.measures, sample.times))
        sound.append(sound_features(sample.bands, sample.times + lag))
        row_weight.append(np.full(len(sample.times), weight * sample.seconds / max(1, len(sample.times))))
    return fit_cca(np.concatenate(mouth), np.concatenate(sound), np.concatenate(row_weight))


def find_clips(folders: Sequence[Path], limit: int) -> list[Path]:
    """At most `limit` clips of each folder, evenly taken from the sorted names. Raises OptionError."""
    found: list[Path] = []
    for folder in folders:
        paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise OptionError(f"expected clips in {folder}, got none; give folders with {', '.join(sorted(SUFFIXES))} files")
        step = max(1, len(paths) // limit)
        found += paths[::step][:limit]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train_sync", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clips", type=Path, action="append", required=True, help="folder of clips (repeat)")
    parser.add_argument("--anchor", action="append", default=[], help="stem of a clip known to be in sync (repeat)")
    parser.add_argument("--limit", type=int, default=40, help="clips per folder")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    chosen = parser.parse_args(arguments)
    paths = find_clips(chosen.clips, chosen.limit)
    samples = [s for s in map(measure, paths) if s is not None]
    if not samples:
        raise OptionError(f"expected talking people with sound, got {len(paths)} clips without a usable face or sound")
    model, lags = fit(samples, chosen.anchor)
    seconds = sum(s.seconds for s in samples)
    model.save(chosen.out, {"clips": str(len(samples)), "seconds": f"{seconds:.0f}", "offsets_ms": json.dumps(lags)})
    print(
        json.dumps({"clips": len(samples), "seconds": round(seconds), "pair_weight": model.weight.tolist(), "offsets_ms": lags})
    )


if __name__ == "__main__":
    main()
