"""Train the motion transformer: python -m deployments.engines.vasa1.train --clips DIR [DIR ...].

Real clips teach how lips, head, lids, brows and eyes move together; a constant delay of their sound is taken out.
Speech that the embedded voice makes, with lips moved by the shared regression and closed where the voice says p, b or
m, teaches that every sound has its lips; the rest of the face is not learned from it. Speakers count the same whatever
they give in seconds. The same seed and clips give the same weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.audio import tts
from deployments.contracts import Speech
from deployments.engines.vasa1.config import MotionConfig
from deployments.engines.vasa1.latents import EMOTION, GAZE, LATENT, LIPS, RATE, Face, measure
from deployments.engines.vasa1.speech_input import frame_times, hear
from deployments.engines.vasa1.transformer import CONTROLS, Conditions, MotionTransformer, signal_share
from deployments.motion.animate import make_motion
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip
from deployments.motion.head import load_head, predict, run_head
from deployments.motion.lip_space import LipSpace
from deployments.motion.phoneme_net import save_weights
from deployments.motion.speech_corpus import made_sentences, sentences
from deployments.motion.template import SMALLEST_STD, TemplateMouth, measure_template
from deployments.motion.train_head import Example, prepare, with_offsets

Floats = NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "data" / "motion.safetensors"
SECONDS = 240.0  # of made speech
MADE_SHARE = 0.25  # of a batch
DROP = 0.1  # of each condition
DROP_BEFORE = 0.5  # of the window before: a first window has none
VELOCITY_WEIGHT = 1.0
LIP_WEIGHTS = (1.5, 1.0, 0.5, 0.5, 0.5, 0.4, 0.3, 0.3)
LEAST_SPREAD = np.array([0.01] * 8 + [0.01] * 3 + [0.005] * 3 + [0.01, 0.005, 0.01, 0.01], np.float32)
WARM_UP = 100
RATE_TOP = 6e-4
AVERAGE = 0.998


@dataclass(frozen=True)
class Passage:
    """One stretch of speech at 25 latents a second."""

    speaker: str
    audio: Floats  # [T, A]
    latents: Floats  # [T, 18] lips in the speaker's own spread, the rest in `spread`
    mood: Floats  # [T, 2]
    known: Floats  # [18] 1 where the latents are real
    usable: Floats  # [T]


def real_passages(clips: Sequence[SpokenClip]) -> list[Passage]:
    """Passages of tracked clips."""
    examples = prepare(clips)
    examples = with_offsets(examples, [run_head(example.features, load_head()) for example in examples])
    faces = [measure(clip.landmarks[clip.usable]) for clip in clips]
    passages = []
    for clip, example, face in zip(clips, examples, faces, strict=True):
        own = [f for f, c in zip(faces, clips, strict=True) if c.speaker == clip.speaker]
        passages.append(_real_passage(clip, example, face, own))
    return passages


def _real_passage(clip: SpokenClip, example: Example, face: Face, faces: Sequence[Face]) -> Passage:
    own, moods = (np.concatenate([getattr(f, name) for f in faces]) for name in ("latents", "mood"))
    spread, when = np.maximum(own.std(0), LEAST_SPREAD), clip.times[clip.usable]
    times = frame_times(len(clip.sound) / 16000)
    at = times + example.offset
    latents = np.stack([np.interp(at, when, column) for column in (face.latents - own.mean(0)).T], axis=1)
    latents[:, LIPS] /= spread[LIPS]
    mood = np.stack([np.interp(at, when, column) for column in (face.mood - moods.mean(0)).T], axis=1)
    usable = (np.abs(at[:, None] - when).min(1) < 0.06).astype(np.float32)
    heard = hear(predict(clip.sound), times)
    return Passage(clip.speaker, heard, latents.astype(np.float32), mood.astype(np.float32), np.ones(LATENT, np.float32), usable)


def typical_mouth(clips: Sequence[SpokenClip]) -> TemplateMouth:
    """The mean of the clips' mouths, around their own means: whose lips made speech moves."""
    mouths = []
    for clip in clips:
        own = measure(clip.landmarks[clip.usable]).latents[:, LIPS]
        mouths.append(measure_template(own - own.mean(0), np.ones(len(own), bool), clip.times[clip.usable], clip.sound))

    def mean(name: str) -> Floats:
        return np.mean([getattr(mouth, name) for mouth in mouths], axis=0).astype(np.float32)

    std = np.maximum(mean("std"), SMALLEST_STD)
    rest = mean("rest")
    closed = float(LipSpace.load().aperture(rest[None])[0])
    return TemplateMouth(mean("mean"), std, mean("p01"), mean("p99"), rest, closed)


def made_passages(
    mouth: TemplateMouth, seconds: float, texts: Iterator[str], generator: np.random.Generator
) -> Iterator[Passage]:
    """Passages of the embedded voice at varied pace and pitch."""
    import soxr

    known = np.zeros(LATENT, np.float32)
    known[LIPS] = 1
    made = 0.0
    while made < seconds:
        samples, phonemes = tts.speak(
            f"{next(texts)} {next(texts)}", float(generator.uniform(0.8, 1.3)), int(generator.integers(1 << 30))
        )
        if len(phonemes) < 5:
            continue
        stretch = float(generator.uniform(0.85, 1.3))
        sound = np.asarray(soxr.resample(samples, tts.RATE, 16000 * stretch, quality="MQ"), np.float32)
        timings = tuple((symbol, start * stretch, end * stretch) for symbol, start, end in phonemes)
        times = frame_times(len(sound) / 16000)
        motion = make_motion(Speech(sound, 16000, phonemes=timings), times, mouth)
        latents = np.zeros((len(times), LATENT), np.float32)
        latents[:, LIPS] = (motion.coefficients - mouth.mean) / mouth.std
        made += len(sound) / 16000
        usable = np.ones(len(times), np.float32)
        yield Passage("voice", hear(predict(sound), times), latents, np.zeros((len(times), EMOTION), np.float32), known, usable)


@dataclass(frozen=True)
class Lot:
    """A batch of windows with what came before them."""

    audio: torch.Tensor  # [B, K + W, A]
    latents: torch.Tensor  # [B, K + W, 18]
    mood: torch.Tensor  # [B, K + W, 2]
    weight: torch.Tensor  # [B, W, 18]


class Trainer:
    """Draws windows and takes steps."""

    def __init__(self, real: Sequence[Passage], made: Sequence[Passage], config: MotionConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.network, self.config, self.seed = MotionTransformer(config), config, seed
        spread = np.maximum(np.concatenate([p.latents for p in real]).std(0), LEAST_SPREAD)
        spread[LIPS] = 1
        self.network.latent_spread.copy_(torch.from_numpy(spread))
        self.real = [replace(p, latents=np.clip(p.latents / spread, -4, 4).astype(np.float32)) for p in real]
        self.made = [replace(p, latents=np.clip(p.latents, -4, 4)) for p in made]
        heard = np.concatenate([p.audio for p in (*real, *made)])
        self.network.audio_mean.copy_(torch.from_numpy(heard.mean(0)))
        self.network.audio_std.copy_(torch.from_numpy(heard.std(0) + 1e-2))
        speakers = [p.speaker for p in real]
        chance = np.array([len(p.audio) ** 0.5 / speakers.count(p.speaker) ** 0.5 for p in real])
        self._chance = chance / chance.sum()
        self.average = MotionTransformer(config)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=RATE_TOP, weight_decay=0.05)

    def step(self, number: int, steps: int, batch: int) -> float:
        """One step; returns the loss."""
        rng = np.random.default_rng([self.seed, number])
        torch.manual_seed(self.seed * 1_000_003 + number)
        made = round(MADE_SHARE * batch) if self.made else 0
        picked = [self.real[int(k)] for k in rng.choice(len(self.real), batch - made, p=self._chance)]
        picked += [self.made[int(k)] for k in rng.integers(len(self.made), size=made)]
        rise = min(1.0, (number + 1) / WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = RATE_TOP * rise * max(0.02, 0.5 * (1 + np.cos(np.pi * number / steps)))
        self.network.train()
        loss = window_loss(self.network, gather(picked, self.config, rng), rng)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - min(AVERAGE, (1 + number) / (10 + number)))
        return float(loss.detach())


def gather(picked: Sequence[Passage], config: MotionConfig, rng: np.random.Generator) -> Lot:
    """A window of each passage; a shorter one is padded and the padding weighs nothing."""
    size = config.before + config.window
    rows: list[tuple[Floats, Floats, Floats, Floats]] = []
    for passage in picked:
        start = int(rng.integers(-config.before, max(1, len(passage.audio) - size + 1)))
        at = np.arange(start, start + size)
        inside = ((at >= 0) & (at < len(passage.audio))).astype(np.float32)
        at = np.clip(at, 0, len(passage.audio) - 1)
        weight = (inside * passage.usable[at])[config.before :, None] * passage.known
        rows.append((passage.audio[at], passage.latents[at] * inside[:, None], passage.mood[at], weight))
    return Lot(*(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*rows, strict=True)))


def window_loss(network: MotionTransformer, lot: Lot, rng: np.random.Generator) -> torch.Tensor:
    """Distance of the predicted clean window and of its velocity, with conditions dropped at random."""
    config, batch = network.config, len(lot.audio)
    clean, past = lot.latents[:, config.before :], lot.latents[:, : config.before]
    moment = torch.from_numpy(rng.random(batch).astype(np.float32))
    share = signal_share(moment)[:, None, None]
    noisy = share.sqrt() * clean + (1 - share).sqrt() * torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
    keep = {name: torch.from_numpy((rng.random(batch) >= DROP).astype(np.float32)) for name in ("audio", *CONTROLS)}
    keep["before"] = torch.from_numpy((rng.random(batch) >= DROP_BEFORE).astype(np.float32))
    face_known = (lot.weight[..., GAZE].amax((1, 2)) > 0).float()
    keep |= {name: keep[name] * face_known for name in CONTROLS}
    told = Conditions(lot.audio, past, controls_of(lot, config), keep)
    error = (network(noisy, moment, told) - clean) * lot.weight
    change = error.diff(dim=1) * lot.weight[:, 1:]
    scale = torch.ones(LATENT)
    scale[LIPS] = torch.tensor(LIP_WEIGHTS)
    return (scale * error**2).mean() + VELOCITY_WEIGHT * (scale * change**2).mean()


def controls_of(lot: Lot, config: MotionConfig) -> dict[str, torch.Tensor]:
    """Mean gaze, head distance and mood of the windows."""
    window = lot.latents[:, config.before :]
    mood = lot.mood[:, config.before :].mean(1) * MOOD_SCALE
    return {"gaze": window[..., GAZE].mean(1), "distance": window[..., 13:14].mean(1), "emotion": mood}


MOOD_SCALE = 30.0  # a smile lifts the corners by a few hundredths of the eye distance


def train(
    real: Sequence[Passage], made: Sequence[Passage], steps: int, batch: int, seed: int, config: MotionConfig | None = None
) -> MotionTransformer:
    """A transformer trained from scratch; prints the loss now and then."""
    trainer = Trainer(real, made, config or MotionConfig(), seed)
    started, losses = time.process_time(), []
    for number in range(steps):
        losses.append(trainer.step(number, steps, batch))
        if (number + 1) % 100 == 0:
            print(f"step {number + 1} loss {np.mean(losses[-100:]):.4f} {time.process_time() - started:.0f} s", flush=True)
    return trainer.average.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="folders; the speaker is the file name without digits")
    parser.add_argument("--one-speaker", type=Path, nargs="*", default=[], help="folders with clips of one person each")
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    parser.add_argument("--texts", type=Path, help="folder of plain texts for the voice; default: made sentences")
    parser.add_argument("--made-seconds", type=float, default=SECONDS)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = [load_clip(path, speaker, args.cache) for path, speaker in list_clips(args.clips, args.one_speaker)]
    generator = np.random.default_rng(args.seed)
    texts = sentences(args.texts, generator) if args.texts else made_sentences(generator)
    real = real_passages(clips)
    made = list(made_passages(typical_mouth(clips), args.made_seconds, texts, generator))
    seconds = [sum(len(p.audio) for p in passages) / RATE for passages in (real, made)]
    print(f"{seconds[0]:.0f} s of {len(real)} clips, {seconds[1]:.0f} s made", flush=True)
    save_weights(train(real, made, args.steps, args.batch, args.seed), args.out)


if __name__ == "__main__":
    main()
