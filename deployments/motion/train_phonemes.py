"""Train PhonemeNet on speech that this program synthesises itself: python -m deployments.motion.train_phonemes."""

from __future__ import annotations

import argparse
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.audio.features import normalise
from deployments.motion.augment import augment
from deployments.motion.phoneme_net import DATA, PhonemeNet, save_weights
from deployments.motion.speech_corpus import Utterance, espeak_corpus, hibari_corpus, sentences

CROP = 300
BATCH = 24
PEAK_RATE = 1.5e-3
HELD_OUT = 0.04


def make_corpus(minutes: float, text: Path | None, with_espeak: bool, seed: int) -> list[Utterance]:
    """Utterances, `minutes` in all: half from the embedded voice, half from espeak-ng where it is wanted."""
    generator = np.random.default_rng(seed)
    texts = sentences(text, generator)
    share = 30.0 if with_espeak else 60.0
    sources = [hibari_corpus(minutes * share, texts, generator)]
    if with_espeak:
        sources.append(espeak_corpus(minutes * share, texts, generator))
    return [u for u in chain(*sources) if len(u.log_power) > CROP + 2]


def draw_crop(utterance: Utterance, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mel power [300, 80] and classes [150] of a random 3 s."""
    start = 2 * int(generator.integers((len(utterance.log_power) - CROP) // 2))
    power = np.exp(utterance.log_power[start : start + CROP].astype(np.float32))
    return power, utterance.classes[start // 2 : (start + CROP) // 2]


def draw_batch(corpus: list[Utterance], generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented normalised mel [24, 80, 300] and classes [24, 150]."""
    mels, classes = [], []
    for _ in range(BATCH):
        speech, other = (corpus[int(k)] for k in generator.integers(len(corpus), size=2))
        power, labels = draw_crop(speech, generator)
        mels.append(normalise(augment(power, draw_crop(other, generator)[0], generator)).T)
        classes.append(labels)
    return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(classes))


@torch.inference_mode()
def accuracy(network: PhonemeNet, corpus: list[Utterance]) -> dict[str, float]:
    """Share of 20 ms frames with the right class, per source, without augmentation."""
    network.eval()
    hits: dict[str, list[float]] = {}
    for utterance in corpus:
        frames = len(utterance.classes) // 2 * 4
        mel = normalise(np.exp(utterance.log_power[:frames].astype(np.float32)))
        found = network(torch.from_numpy(mel.T.copy())[None])[1][0].argmax(0).numpy()
        hits.setdefault(utterance.source, []).append(float((found == utterance.classes[: len(found)]).mean()))
    network.train()
    return {source: round(float(np.mean(values)), 3) for source, values in hits.items()}


def train(corpus: list[Utterance], steps: int, seed: int, out: Path) -> PhonemeNet:
    """Train and save the net every 100 steps; prints loss and held-out accuracy."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(corpus))
    held = max(2, int(len(corpus) * HELD_OUT))
    test, learned = [corpus[k] for k in order[:held]], [corpus[k] for k in order[held:]]
    network = PhonemeNet().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.08)
    started = time.monotonic()
    for step in range(1, steps + 1):
        mel, classes = draw_batch(learned, generator)
        loss = torch.nn.functional.cross_entropy(network(mel)[1], classes, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"step {step} loss {loss.item():.3f} accuracy {accuracy(network, test)} {seconds:.0f} s", flush=True)
            save_weights(network, out)
    return network.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120, help="speech to synthesise")
    parser.add_argument("--text", type=Path, help="folder of plain text files without suffix; default: made sentences")
    parser.add_argument("--without-espeak", action="store_true", help="use the embedded voice only")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=DATA / "phoneme_net.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    corpus = make_corpus(args.minutes, args.text, not args.without_espeak, args.seed)
    seconds = sum(len(u.classes) for u in corpus) / 50
    print(f"{len(corpus)} utterances, {seconds / 60:.0f} minutes", flush=True)
    train(corpus, args.steps, args.seed, args.out)


if __name__ == "__main__":
    main()
