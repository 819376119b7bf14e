"""Train the head on tracked talking clips: python -m deployments.motion.train_head --clips DIR [DIR ...].

Clips need a single frontal speaker and sound that was recorded with the picture; a constant delay between the two is
estimated per speaker and taken out. `--loso` measures instead: every speaker is predicted by heads that never saw him.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from deployments.motion.clip_data import SpokenClip, list_clips, load_clip
from deployments.motion.head import (
    APERTURE,
    FEATURES,
    HEAD_FILE,
    LINEAR_TAPS,
    OUTPUTS,
    HeadEnsemble,
    Prediction,
    run_head,
    step_times,
)
from deployments.motion.lip_space import LipSpace, aperture_of, fit_lip_space, save_lip_space
from deployments.motion.offset import AvOffset, correlation, estimate_offset
from deployments.motion.phoneme_net import STEP_SECONDS, save_weights, speech_features
from deployments.motion.phonemes import BILABIAL, CLASSES, SILENCE
from deployments.motion.residual import OFFSET_WEIGHTS, cross_fitted

Floats = NDArray[np.float32]

CROP_STEPS = 100
BATCH = 16
RIDGE = 1.0
RATE = 2e-3
OUTPUT_WEIGHTS = (1.5, 1.0, 0.5, 0.5, 0.5, 0.4, 0.3, 0.3, 2.0)
VELOCITY_WEIGHT = 2.0

# How open and how wide the mouth is for each class, 0..1: only used to find the delay of the first round.
FIRST_GUESS = {
    "sil": (0, 0.5), "p": (0, 0.5), "f": (0.1, 0.5), "th": (0.4, 0.5), "t": (0.35, 0.55), "l": (0.5, 0.5), "s": (0.3, 0.6),
    "sh": (0.35, 0.2), "k": (0.5, 0.5), "r": (0.4, 0.3), "w": (0.2, 0), "j": (0.4, 0.7), "h": (0.6, 0.5), "i": (0.45, 0.9),
    "ih": (0.5, 0.7), "e": (0.7, 0.7), "ae": (0.9, 0.8), "a": (1, 0.55), "uh": (0.65, 0.5), "er": (0.5, 0.35),
    "o_open": (0.8, 0.25), "o": (0.6, 0.15), "u_short": (0.4, 0.2), "u": (0.3, 0), "y": (0.3, 0.1),
}  # fmt: skip
LIPS_LEAD_STEPS = 3


@dataclass(frozen=True)
class Example:
    """One clip on the 50 Hz grid of its sound."""

    name: str
    speaker: str
    features: Floats  # [S, 212]
    posteriors: Floats  # [S, 25]
    measured: Floats  # [T, 9] standardised per speaker, at `times`
    times: NDArray[np.float64]  # [T] usable frames
    offset: float = 0.0  # seconds, > 0: mouth late

    def targets(self) -> tuple[Floats, Floats]:
        """Targets [S, 9] at the steps, offset removed, and mask [S] of steps between usable frames."""
        steps = (np.arange(len(self.posteriors)) + 0.5) * STEP_SECONDS + self.offset
        values = np.stack([np.interp(steps, self.times, column) for column in self.measured.T], 1)
        gap = np.abs(steps[:, None] - self.times).min(1)
        return values.astype(np.float32), (gap < 0.04).astype(np.float32)


def prepare(clips: Sequence[SpokenClip]) -> list[Example]:
    """Features and standardised mouths of clips.

    Spoiling the sound here (as the phoneme net's training does) was measured to cost 0.06 of r on unseen speakers.
    """
    space = LipSpace.load()
    mouths = []
    for clip in clips:
        points = clip.canonical_points()[clip.usable]
        mouths.append(np.concatenate([space.encode(points), aperture_of(points)[:, None]], 1))
    examples = []
    for clip, mouth in zip(clips, mouths, strict=True):
        own = np.concatenate([m for m, c in zip(mouths, clips, strict=True) if c.speaker == clip.speaker])
        features, posteriors = speech_features(clip.sound)
        measured = (mouth - own.mean(0)) / (own.std(0) + 1e-4)
        examples.append(Example(clip.name, clip.speaker, features, posteriors, measured, clip.times[clip.usable]))
    return examples


def first_guess(posteriors: Floats) -> Floats:
    """Standardised outputs [S, 9] of class posteriors [S, 25] with hand-set targets: opening and width only."""
    table = np.array([FIRST_GUESS[name] for name in CLASSES])
    kernel = np.hanning(11) / np.hanning(11).sum()
    outputs = np.zeros((len(posteriors), OUTPUTS), np.float32)
    for column, values in zip((APERTURE, 1), (posteriors @ table).T, strict=True):
        smooth = np.convolve(np.pad(values, 5, mode="edge"), kernel, mode="valid")
        outputs[:, column] = np.concatenate([smooth[LIPS_LEAD_STEPS:], np.full(LIPS_LEAD_STEPS, smooth[-1])])
    outputs[:, 0] = outputs[:, APERTURE]
    return outputs


def with_offsets(examples: Sequence[Example], predicted: Sequence[Floats]) -> list[Example]:
    """Examples with the offset of their speaker: the median over his clips, judged by the predictions [S, 9]."""
    found: dict[str, list[AvOffset]] = {}
    for example, outputs in zip(examples, predicted, strict=True):
        steps = step_times(len(outputs))
        guess = estimate_offset(steps, outputs, example.times, example.measured, OFFSET_WEIGHTS)
        found.setdefault(example.speaker, []).append(guess)
    medians = {name: float(np.median([o.seconds for o in offsets])) for name, offsets in found.items()}
    return [replace(example, offset=medians[example.speaker]) for example in examples]


def train_ensemble(examples: Sequence[Example], steps: int, seeds: int, seed: int = 0) -> HeadEnsemble:
    """Heads of several seeds; clips of rare speakers are drawn more often."""
    ensemble = HeadEnsemble(seeds)
    stacked = np.concatenate([example.features for example in examples])
    ensemble.feature_mean.copy_(torch.from_numpy(stacked.mean(0)))
    ensemble.feature_std.copy_(torch.from_numpy(stacked.std(0) + 1e-2))
    speakers = [example.speaker for example in examples]
    chance = np.array([1 / speakers.count(name) for name in speakers])
    targets = [example.targets() for example in examples]
    for k, head in enumerate(ensemble.heads):
        torch.manual_seed(seed + k)
        generator = np.random.default_rng(seed + k)
        for module in head.modules():
            if isinstance(module, torch.nn.Conv1d):
                module.reset_parameters()
        _train_one(ensemble, head, examples, targets, chance / chance.sum(), steps, generator)
    _fit_linear(ensemble, examples, targets)
    return ensemble.eval()


@torch.no_grad()
def _fit_linear(ensemble: HeadEnsemble, examples: Sequence[Example], targets: Sequence[tuple[Floats, Floats]]) -> None:
    """Ridge regression of the targets on smoothed features, every speaker counting the same."""
    speakers = [example.speaker for example in examples]
    mean, std = ensemble.feature_mean.numpy(), ensemble.feature_std.numpy()
    size = FEATURES + 1
    gram, moment, total = np.zeros((size, size)), np.zeros((size, OUTPUTS)), 0.0
    for example, (wanted, mask) in zip(examples, targets, strict=True):
        x = correlate1d((example.features - mean) / std, LINEAR_TAPS, axis=0, mode="constant").astype(np.float64)
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
        weight = mask[:, None] / speakers.count(example.speaker)
        gram += (x * weight).T @ x
        moment += (x * weight).T @ wanted
        total += float(weight.sum())
    ridge = RIDGE * np.diag(np.concatenate([np.ones(FEATURES), np.zeros(1)]))
    solved = np.linalg.solve(gram / total + ridge, moment / total).astype(np.float32)
    ensemble.linear.weight.copy_(torch.from_numpy(solved[:-1].T[:, :, None] * LINEAR_TAPS.astype(np.float32)))
    assert ensemble.linear.bias is not None
    ensemble.linear.bias.copy_(torch.from_numpy(solved[-1]))


def _train_one(
    ensemble: HeadEnsemble,
    head: torch.nn.Module,
    examples: Sequence[Example],
    targets: Sequence[tuple[Floats, Floats]],
    chance: NDArray[np.float64],
    steps: int,
    generator: np.random.Generator,
) -> None:
    head.train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    weights = torch.tensor(OUTPUT_WEIGHTS)[:, None]
    for _ in range(steps):
        features, wanted, mask = _draw(examples, targets, chance, generator)
        x = (features - ensemble.feature_mean[:, None]) / ensemble.feature_std[:, None]
        error = (head(x) - wanted) * mask[:, None]
        change = (error[..., 1:] - error[..., :-1]) * mask[:, None, 1:] * mask[:, None, :-1]
        loss = (weights * error**2).mean() + VELOCITY_WEIGHT * (weights * change**2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _draw(
    examples: Sequence[Example],
    targets: Sequence[tuple[Floats, Floats]],
    chance: NDArray[np.float64],
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features [16, 212, 100], targets [16, 9, 100] and mask [16, 100] of random crops; short clips padded, masked."""
    features = np.zeros((BATCH, FEATURES, CROP_STEPS), np.float32)
    wanted = np.zeros((BATCH, OUTPUTS, CROP_STEPS), np.float32)
    mask = np.zeros((BATCH, CROP_STEPS), np.float32)
    for row in range(BATCH):
        k = int(generator.choice(len(examples), p=chance))
        source = examples[k].features
        start = int(generator.integers(max(1, len(source) - CROP_STEPS)))
        part = slice(start, start + CROP_STEPS)
        length = len(source[part])
        features[row, :, :length] = source[part].T
        wanted[row, :, :length] = targets[k][0][part].T
        mask[row, :length] = targets[k][1][part]
    return torch.from_numpy(features), torch.from_numpy(wanted), torch.from_numpy(mask)


def learn(examples: Sequence[Example], steps: int, seeds: int) -> tuple[HeadEnsemble, list[Example]]:
    """The ensemble, and the examples with their offsets: hand-set guess, a short round, then the real one."""
    aligned = with_offsets(examples, [first_guess(example.posteriors) for example in examples])
    rough = train_ensemble(aligned, steps // 2, 1)
    aligned = with_offsets(aligned, [run_head(example.features, rough) for example in aligned])
    return train_ensemble(aligned, steps, seeds), aligned


def leave_speakers_out(
    examples: Sequence[Example], steps: int, seeds: int, folds: int | None = None
) -> tuple[dict[str, dict[str, float]], Floats]:
    """Figures per clip of speakers that the heads did not see, and the spread [9] of such predictions.

    Speakers are left out one at a time, or in `folds` groups.
    """
    speakers = sorted({example.speaker for example in examples})
    folds = min(folds or len(speakers), len(speakers))
    figures: dict[str, dict[str, float]] = {}
    unseen = []
    for fold in range(folds):
        left_out = speakers[fold::folds]
        ensemble, _ = learn([e for e in examples if e.speaker not in left_out], steps, seeds)
        for example in (e for e in examples if e.speaker in left_out):
            outputs = run_head(example.features, ensemble)
            figures[example.name] = judge(example, outputs)
            unseen.append(outputs.std(0))
    return figures, np.median(unseen, axis=0).astype(np.float32)


def judge(example: Example, outputs: Floats) -> dict[str, float]:
    """Correlations of outputs [S, 9] with the tracked mouth, offset from the first 60 % of the clip.

    `adapted` is the aperture's with the template's own correction, each fifth predicted from the others.
    """
    steps = step_times(len(outputs))
    first = len(example.times) * 6 // 10
    offset = estimate_offset(steps, outputs, example.times[:first], example.measured[:first], OFFSET_WEIGHTS)
    at = example.times - offset.seconds
    found = np.stack([np.interp(at, steps, column) for column in outputs.T], 1)
    names = {"aperture": APERTURE, "pc1": 0, "pc2": 1, "pc3": 2}
    scores = {name: round(correlation(found[:, k], example.measured[:, k]), 3) for name, k in names.items()}
    silence, bilabial = example.posteriors[:, SILENCE], example.posteriors[:, BILABIAL]
    prediction = Prediction(outputs, silence, bilabial, example.features, 1 - silence)
    adapted = cross_fitted(prediction, example.measured, at)[:, APERTURE]
    scores["adapted"] = round(correlation(adapted, example.measured[:, APERTURE]), 3)
    return {**scores, "offset_ms": round(offset.seconds * 1000)}


def print_figures(figures: dict[str, dict[str, float]]) -> None:
    """A row per clip, then means and medians."""
    for name, row in figures.items():
        print(name.ljust(28), "  ".join(f"{key} {value:6.2f}" for key, value in row.items()))
    for key in ("aperture", "adapted", "pc1", "pc2"):
        values = [row[key] for row in figures.values()]
        print(f"{key}: mean {np.mean(values):.3f} median {np.median(values):.3f} of {len(values)} clips")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="folders; the speaker is the file name without digits")
    parser.add_argument("--one-speaker", type=Path, nargs="*", default=[], help="folders with clips of one person each")
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    parser.add_argument("--most", type=int, default=70, help="clips taken of a folder of one speaker")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--loso", action="store_true", help="only measure, leaving one speaker out")
    parser.add_argument("--fit-lip-space", action="store_true", help="learn the lip space again from these clips first")
    parser.add_argument("--out", type=Path, default=HEAD_FILE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    listed = list_clips(args.clips)
    for folder in args.one_speaker:
        listed += list_clips([], [folder])[: args.most]
    clips = [load_clip(path, speaker, args.cache) for path, speaker in listed]
    if args.fit_lip_space:
        speakers = sorted({clip.speaker for clip in clips})
        save_lip_space(fit_lip_space([[c.canonical_points() for c in clips if c.speaker == s] for s in speakers])[0])
        LipSpace.load.cache_clear()
    examples = prepare(clips)
    figures, spread = leave_speakers_out(examples, args.steps, args.seeds if args.loso else 1, None if args.loso else 2)
    print_figures(figures)
    if args.loso:
        return
    ensemble, aligned = learn(examples, args.steps, args.seeds)
    ensemble.spread.copy_(torch.from_numpy(spread))
    save_weights(ensemble, args.out)
    print({example.speaker: round(example.offset * 1000) for example in aligned}, "spread", spread.round(2))


if __name__ == "__main__":
    main()
