"""Measure the adapter of one person's head motion: python -m deployments.engines.vasa1.evaluate_manner --clips DIR.

Per clip, the first 60 % are learned from and chosen on; the last 40 % are judged, with other noise.
    distance   mean distance of the logs of deviation and speed of head and brows between generated and filmed motion:
               of the shared transformer, of the person's deviations alone, and of what was kept
    beat ...   as `evaluate_face` measures them, of the head that is kept
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deployments.engines.vasa1.config import FaceConfig, MannerConfig, MotionConfig
from deployments.engines.vasa1.evaluate_face import ANGLES, Row, beat, border, drift, loudness
from deployments.engines.vasa1.face import smoothed
from deployments.engines.vasa1.latents import HEAD, LATENT, LIPS
from deployments.engines.vasa1.manner import Manner, learn_manner, moved_by, style_distance
from deployments.engines.vasa1.motion import load_transformer
from deployments.engines.vasa1.train import Passage, real_passages
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip

LEARNED = 0.6
SEEDS = (5, 6)  # not those that choose


def evaluate_clip(clip: SpokenClip) -> Row:
    """Figures of one clip."""
    passage, began = real_passages([clip])[0], time.process_time()
    cut = int(LEARNED * len(passage.audio))
    manner, _ = learn_manner(part_of(passage, slice(0, cut)), MannerConfig())
    spent, last = time.process_time() - began, part_of(passage, slice(cut, None))
    true = last.latents / np.where(np.arange(LATENT) < LIPS.stop, 1, load_transformer().latent_spread.numpy())
    tried = {"shared": Manner(), "deviations": Manner(manner.scale), "kept": manner}
    found = {name: style_distance(one, last.audio, np.asarray(true, np.float32), SEEDS) for name, one in tried.items()}
    return {**found, "seconds": len(passage.audio) / 25, "learning": spent, **head(manner, clip, passage)}


def part_of(passage: Passage, rows: slice) -> Passage:
    """Some frames of it."""
    return replace(passage, **{name: getattr(passage, name)[rows] for name in ("audio", "latents", "mood", "usable")})


def head(manner: Manner, clip: SpokenClip, passage: Passage) -> Row:
    """Beat, drift and borders of the head over the whole clip."""
    smooth = smoothed(moved_by(manner, passage.audio, SEEDS[0]).astype(np.float64), FaceConfig().smooth)
    angles = smooth[:, ANGLES] * load_transformer().latent_spread.numpy()[ANGLES]
    told = beat(angles, loudness(clip.sound, len(angles)))
    return {
        **{name: told[name] for name in ("beat", "chance", "speed")},
        "drift": drift(smooth[:, HEAD]),
        "border": border(smooth[:, HEAD], MotionConfig()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for path, speaker in list_clips(args.clips):
        row = evaluate_clip(load_clip(path, speaker, args.cache))
        rows.append(row)
        print(path.stem.ljust(26), "  ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    print("mean".ljust(26), "  ".join(f"{key} {np.nanmean([row[key] for row in rows]):.2f}" for key in rows[0]))


if __name__ == "__main__":
    main()
