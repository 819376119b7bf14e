"""Mouths driven by sound, before a pixel is drawn: the shared regression beside vasa1's motion.

Per clip, the clip's own sound animates its own mouth; the delay of the sound comes from the first 60 % of the clip. What is
measured is the finished motion, with closures, pauses and limits:

    aperture     correlation of the mouth's opening with the tracked one
    pc2          correlation of the second lip coefficient: width and rounding
    range        the opening's standard deviation over the tracked one's
    velocity     its mean absolute change per second over the tracked one's
    lag_ms       delay that is left between motion and tracked mouth
    closed       share of p, b and m at which the mouth is in the tracked mouth's lowest quarter within 80 ms
    swapped      correlation of the opening with one made from the next clip's sound

Rows `… corrected` have the template's own correction; each fifth of a clip is moved by one that learned from the others.

    python -m benchmarks.engines.driven FOLDER_OF_CLIPS [--only MAKER] [--cache FOLDER] [--json FILE]

With `--only`, the other makers' rows stay as the file has them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Motion, Speech
from deployments.engines.vasa1.evaluate_motion import speed
from deployments.engines.vasa1.motion import generate, guidance_of
from deployments.motion.animate import make_motion
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip
from deployments.motion.evaluate_motion import closures, motion_columns
from deployments.motion.head import Prediction, predict
from deployments.motion.lip_space import LipSpace, aperture_of
from deployments.motion.offset import correlation, estimate_offset
from deployments.motion.residual import OFFSET_WEIGHTS, fit_residual, folds, frame_seconds
from deployments.motion.template import TemplateMouth, measure_template, standardised

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Row = dict[str, float]
Maker = Callable[[Speech, Doubles, TemplateMouth], Motion]

OPENING = (0,) * 8 + (1.0,)
BARS = {"range": (0.8, 1.2), "velocity": (0.8, 1.2)}


@dataclass(frozen=True)
class Filmed:
    """What was tracked in a clip, on the clock of its sound."""

    sound: Floats
    prediction: Prediction
    template: TemplateMouth  # without a correction
    heard: Doubles  # [T]
    coefficients: Floats  # [T, 8]
    aperture: Floats  # [T]

    @staticmethod
    def of(clip: SpokenClip) -> Filmed:
        """The usable frames of a clip."""
        points, times = clip.canonical_points()[clip.usable], clip.times[clip.usable]
        coefficients, aperture = LipSpace.load().encode(points), aperture_of(points)
        prediction, measured = predict(clip.sound), standardised(coefficients, aperture)
        first = slice(0, len(times) * 6 // 10)
        offset = estimate_offset(prediction.step_times(), prediction.outputs, times[first], measured[first], OFFSET_WEIGHTS)
        template = measure_template(coefficients, np.ones(len(times), bool), times, clip.sound)
        plain = replace(template, residual=None)
        return Filmed(clip.sound, prediction, plain, times - offset.seconds, coefficients, aperture)


def corrected_motion(filmed: Filmed, make: Maker) -> Floats:
    """Coefficients [T, 8] moved by corrections that did not see the fifth that they move."""
    measured = standardised(filmed.coefficients, filmed.aperture)
    made = np.zeros_like(filmed.coefficients)
    for learned, part in folds(len(filmed.heard), 5, frame_seconds(filmed.heard)):
        residual = fit_residual(filmed.prediction, measured[learned], filmed.heard[learned])
        template = replace(filmed.template, residual=residual)
        made[part] = make(Speech(filmed.sound, 16000), filmed.heard[part], template).coefficients
    return made


def figures(filmed: Filmed, made: Floats, swapped: Floats) -> Row:
    """Of finished motion [T, 8]; `swapped` [T, 8] was made from somebody else's sound."""
    space, heard = LipSpace.load(), filmed.heard
    opening = space.aperture(made)
    measured = standardised(filmed.coefficients, filmed.aperture)
    lag = estimate_offset(heard, measured, heard, motion_columns(made, opening), OPENING)
    true_closed, closed, count = closures(filmed.prediction, heard, space.aperture(filmed.coefficients), opening)
    return {
        "aperture": correlation(opening, filmed.aperture),
        "pc2": correlation(made[:, 1], filmed.coefficients[:, 1]),
        "range": float(opening.std() / filmed.aperture.std()),
        "velocity": speed(opening, heard) / speed(filmed.aperture, heard),
        "lag_ms": -1000 * lag.seconds,
        "closed": closed,
        "true_closed": true_closed,
        "closures": count,
        "swapped": correlation(space.aperture(swapped), filmed.aperture),
    }


def measure(clip: SpokenClip, other: Floats, makers: dict[str, Maker]) -> dict[str, Row]:
    """Rows of one clip by maker; `other` [N] is the next clip's sound at 16 kHz."""
    filmed = Filmed.of(clip)
    elsewhere = np.mod(filmed.heard, max(len(other) / 16000, 1.0))
    rows = {}
    for name, make in makers.items():
        swapped = make(Speech(other, 16000), elsewhere, filmed.template).coefficients
        plain = make(Speech(filmed.sound, 16000), filmed.heard, filmed.template).coefficients
        rows[name] = figures(filmed, plain, swapped)
        rows[f"{name} corrected"] = figures(filmed, corrected_motion(filmed, make), swapped)
    return rows


def summary(found: dict[str, dict[str, Row]]) -> dict[str, dict[str, Row]]:
    """Mean, median, smallest and largest over clips, and how many clips keep each bar, by row and column."""
    out: dict[str, dict[str, Row]] = {}
    for name in next(iter(found.values())):
        for column in next(iter(found.values()))[name]:
            values = np.array([rows[name][column] for rows in found.values()])
            known = values[~np.isnan(values)]
            cell = {"mean": known.mean(), "median": np.median(known), "least": known.min(), "most": known.max()}
            cell = {kind: round(float(value), 3) for kind, value in cell.items()}
            if column in BARS:
                low, high = BARS[column]
                cell["kept"] = int(((values >= low) & (values <= high)).sum())
            out.setdefault(name, {})[column] = cell
    return out


def evaluate(clips: Sequence[SpokenClip], makers: dict[str, Maker]) -> dict[str, dict[str, Row]]:
    """Rows by clip and maker, printed as they come."""
    found = {}
    for k, clip in enumerate(clips):
        found[clip.name] = measure(clip, clips[(k + 1) % len(clips)].sound, makers)
        for name, row in found[clip.name].items():
            print(f"{clip.name:28} {name:22}", *(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    return found


def main() -> None:
    """A row a clip and maker, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--only", choices=("regression", "vasa1"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    makers: dict[str, Maker] = {"regression": make_motion, "vasa1": partial(generate, guidance=guidance_of({}), expression=1.0)}
    asked = {name: make for name, make in makers.items() if args.only in (None, name)}
    found = evaluate([load_clip(path, speaker, args.cache) for path, speaker in list_clips([args.clips])], asked)
    if args.only and args.json and args.json.is_file():
        before = json.loads(args.json.read_text())["clips"]
        found = {clip: {**before.get(clip, {}), **rows} for clip, rows in found.items()}
    means = summary(found)
    for name, row in means.items():
        print(f"{name:22}", *(f"{key} {cell['mean']:.3f}" for key, cell in row.items()), flush=True)
    if args.json:
        rounded = {clip: {n: {k: round(v, 4) for k, v in r.items()} for n, r in rows.items()} for clip, rows in found.items()}
        told = {"clips": rounded, "summary": means, "load": round(os.getloadavg()[0], 1)}
        args.json.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
