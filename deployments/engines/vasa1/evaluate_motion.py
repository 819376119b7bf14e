"""Measure the transformer against the shared regression: python -m deployments.engines.vasa1.evaluate_motion --clips DIR.

Per clip, the clip's own sound animates its own mouth; the delay of the sound comes from the first 60 % of the clip.
    aperture   correlation of the mouth's opening with the tracked one
    range      its standard deviation over the tracked one's
    velocity   mean absolute change per second over the tracked one's
    border     largest change at a window's border over the largest inside a window
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Motion, Speech
from deployments.engines.vasa1.config import MotionConfig
from deployments.engines.vasa1.latents import RATE
from deployments.engines.vasa1.motion import generate, guidance_of, load_transformer, sample_lips
from deployments.engines.vasa1.sampling import Guidance
from deployments.engines.vasa1.speech_input import frame_times, hear
from deployments.motion.animate import make_motion
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip
from deployments.motion.head import predict
from deployments.motion.lip_space import LipSpace, aperture_of
from deployments.motion.offset import correlation, estimate_offset
from deployments.motion.template import OFFSET_WEIGHTS, TemplateMouth, measure_template, standardised

Row = dict[str, float]
Maker = Callable[[Speech, NDArray[np.float64], TemplateMouth], Motion]


def evaluate_clip(clip: SpokenClip, makers: dict[str, Maker]) -> Row:
    """Figures of one clip for every way of making motion."""
    space = LipSpace.load()
    points, times = clip.canonical_points()[clip.usable], clip.times[clip.usable]
    coefficients, aperture = space.encode(points), aperture_of(points)
    prediction = predict(clip.sound)
    first = slice(0, len(times) * 6 // 10)
    measured = standardised(coefficients, aperture)
    offset = estimate_offset(prediction.step_times(), prediction.outputs, times[first], measured[first], OFFSET_WEIGHTS)
    template = measure_template(coefficients, np.ones(len(times), bool), times, clip.sound)
    heard = times - offset.seconds
    row: Row = {}
    for name, make in makers.items():
        made = make(Speech(clip.sound, 16000), heard, replace(template, residual=None)).coefficients
        opening = space.aperture(made)
        row |= {
            f"{name} aperture": correlation(opening, aperture),
            f"{name} pc2": correlation(made[:, 1], coefficients[:, 1]),
            f"{name} range": float(opening.std() / aperture.std()),
            f"{name} velocity": speed(opening, heard) / speed(aperture, heard),
        }
    return row


def speed(opening: NDArray[np.floating], times: NDArray[np.float64]) -> float:
    """Mean absolute change per second between neighbouring frames."""
    gaps = np.diff(times)
    near = gaps < 0.1
    return float(np.mean(np.abs(np.diff(opening))[near] / gaps[near]))


def border_jump(opening: NDArray[np.floating], config: MotionConfig) -> float:
    """Largest change of latents' opening [T] (25 per second) in the mix of two windows, over the largest elsewhere."""
    change = np.abs(np.diff(opening))
    hop = config.window - config.overlap
    at = np.arange(len(change)) % hop
    border = (at < config.overlap) & (np.arange(len(change)) >= hop)
    return float(change[border].max() / change[~border].max()) if border.any() else float("nan")


def border_of(clip: SpokenClip) -> float:
    """`border_jump` of the transformer's own lips for a clip's sound."""
    heard = hear(predict(clip.sound), frame_times(len(clip.sound) / 16000))
    return border_jump(LipSpace.load().aperture(0.1 * sample_lips(heard, guidance_of({}))), MotionConfig())


def makers_of(temperatures: Sequence[float], guidances: Sequence[float], steps: int) -> dict[str, Maker]:
    """The regression, and the transformer with several settings."""
    makers: dict[str, Maker] = {"regression": make_motion}
    for temperature in temperatures:
        for audio in guidances:
            guidance = Guidance(audio=audio, steps=steps, temperature=temperature)

            def make(s: Speech, t: NDArray[np.float64], m: TemplateMouth, g: Guidance = guidance) -> Motion:
                return generate(s, t, m, g, 1.0)

            makers[f"t{temperature:g} g{audio:g}"] = make
    return makers


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    parser.add_argument("--temperature", type=float, nargs="+", default=[MotionConfig().temperature])
    parser.add_argument("--guidance", type=float, nargs="+", default=[MotionConfig().guidance])
    parser.add_argument("--steps", type=int, default=MotionConfig().steps)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.weights:
        from deployments.motion.phoneme_net import load_weights

        load_weights(load_transformer(), args.weights)
    makers = makers_of(args.temperature, args.guidance, args.steps)
    rows = {path.stem: evaluate_clip(load_clip(path, s, args.cache), makers) for path, s in list_clips(args.clips)}
    borders = [border_of(load_clip(path, s, args.cache)) for path, s in list_clips(args.clips)]
    print(f"border mean {np.nanmean(borders):.2f} largest {np.nanmax(borders):.2f}")
    for name in makers:
        figures = {key: [row[f"{name} {key}"] for row in rows.values()] for key in ("aperture", "pc2", "range", "velocity")}
        means = "  ".join(f"{key} {np.mean(values):.3f}" for key, values in figures.items())
        print(f"{name:14} {means}  aperture median {np.median(figures['aperture']):.3f}", flush=True)
    print(f"{len(rows)} clips, {RATE:.0f} latents a second")


if __name__ == "__main__":
    main()
