"""Word times that a transcript gives, against the times that a data set tells; and how well a wrong transcript is known.

The clips are GRID's: a video beside an `.align` file of its words (25,000 units a second). Its times come from an aligner too,
and count the pause before and after a sentence as a part of its outer words: look at the borders between words first.

    python -m benchmarks.alignment FOLDER [--out benchmarks/results/alignment.json]

Errors are milliseconds, found minus told; `half` and `nine_tenths` of the absolute errors are below the figure, `shift` is their
median. `below_speech_db`: how much quieter than the clip's mean a cut is, in 30 ms around it (median).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.audio.pauses import levels
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from deployments.motion.alignment import Found, Heard, Word, align
from deployments.motion.speech_corpus import made_sentences
from serve_app.transcript import RATE, WORST, borders, parse_transcript, score_of, spoken

UNITS = 25000  # of an .align file, a second
PAUSES = ("sil", "sp")


@dataclass(frozen=True)
class Example:
    """One clip."""

    samples: NDArray[np.float32]
    seconds: float
    text: str
    words: tuple[Word, ...]
    told: tuple[tuple[float, float], ...]  # seconds


def read_examples(folder: Path) -> list[Example]:
    """All clips with an `.align` file."""
    found = []
    for path in sorted(folder.glob("*.align")):
        rows = [line.split() for line in path.read_text().splitlines()]
        said = [(int(a) / UNITS, int(b) / UNITS, word) for a, b, word in rows if word not in PAUSES]
        text = " ".join(word for *_, word in said)
        clip = probe(path.with_suffix(".mpg"))
        samples = read_sound(clip.path, RATE, origin=int(clip.pts[0]) * clip.time_base)
        told = tuple((a, b) for a, b, _ in said)
        found.append(Example(samples, float(clip.duration), text, tuple(spoken(parse_transcript(text))), told))
    return found


def errors(found: Sequence[Found], told: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(start, end) errors in seconds."""
    return [(one.start - a, one.end - b) for one, (a, b) in zip(found, told, strict=True)]


def figures(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds of signed errors in seconds."""
    ms = 1000 * np.asarray(values)
    middle = float(np.median(ms))
    told = {"half": np.percentile(np.abs(ms), 50), "nine_tenths": np.percentile(np.abs(ms), 90), "shift": middle}
    told["half_without_shift"] = np.median(np.abs(ms - middle))
    return {"borders": len(ms), **{name: round(float(value), 1) for name, value in told.items()}}


def timing(examples: Sequence[Example], heard: Sequence[Sequence[Found]]) -> dict[str, Any]:
    """Borders between words, the outer ones, and those of a word that nobody told."""
    inner: list[float] = []
    outer: list[float] = []
    untold: list[float] = []
    for example, found in zip(examples, heard, strict=True):
        known = errors(found, example.told)
        inner += [value for (_, end), (start, _) in pairwise(known) for value in (end, start)]
        outer += [known[0][0], known[-1][1]]
        for hole in range(1, len(example.words) - 1):
            words = [Word("?") if k == hole else word for k, word in enumerate(example.words)]
            untold += errors(align(example.samples, words).words, example.told)[hole]
    return {"between_words": figures(inner), "first_and_last": figures(outer), "word_not_told": figures(untold)}


def cuts(examples: Sequence[Example], heard: Sequence[Sequence[Found]]) -> dict[str, Any]:
    """Slots of one word within a fluent sentence: how loud it is where they are cut."""
    moments: dict[str, list[tuple[float, float]]] = {"as_the_data_set_tells": [], "as_aligned": [], "as_cut": []}
    for example, found in zip(examples, heard, strict=True):
        mean = 10 * np.log10(np.mean(np.square(example.samples, dtype=np.float64)))
        for k in range(1, len(found) - 1):
            cut = borders(example.samples, found, k, k, example.seconds)
            ways = zip(moments, (example.told[k], (found[k].start, found[k].end), cut), strict=True)
            for way, times in ways:
                below = mean - levels(example.samples, RATE, np.array(times))
                gaps = np.array(times) - example.told[k]
                moments[way] += zip(gaps.tolist(), below.tolist(), strict=True)
    return {
        way: {**figures([gap for gap, _ in rows]), "below_speech_db": round(float(np.median([db for _, db in rows])), 1)}
        for way, rows in moments.items()
    }


def recognised(examples: Sequence[Example], heard: Sequence[Sequence[Found]]) -> dict[str, Any]:
    """Scores of right transcripts, of the sentences of other clips (the same few words), and of made sentences."""
    right = [score_of(found) for found in heard]
    made = made_sentences(np.random.default_rng(0))
    strange = [score_of(align(one.samples, spoken(parse_transcript(next(made)))).words) for one in examples]
    wrong = []
    for k, example in enumerate(examples):
        other = examples[(k + len(examples) // 2) % len(examples)]
        if other.text != example.text:
            wrong.append(score_of(align(example.samples, other.words).words))
    return {
        "limit": WORST,
        "right_median": round(float(np.median(right)), 2),
        "right_worst": round(max(right), 2),
        "right_refused_percent": round(100 * float(np.mean(np.array(right) > WORST)), 1),
        "strange_median": round(float(np.median(strange)), 2),
        "strange_refused_percent": round(100 * float(np.mean(np.array(strange) > WORST)), 1),
        "other_median": round(float(np.median(wrong)), 2),
        "other_refused_percent": round(100 * float(np.mean(np.array(wrong) > WORST)), 1),
    }


def left_out(examples: Sequence[Example], whole: Sequence[Heard]) -> dict[str, float]:
    """Clips of which it is said that something else is heard, with the right transcript, and without two of its words."""
    cases = {"none": [bool(one.strange) for one in whole], "in_the_middle": [], "at_the_end": []}
    for example in examples:
        for case, words in (("in_the_middle", (*example.words[:2], *example.words[4:])), ("at_the_end", example.words[:4])):
            cases[case].append(bool(align(example.samples, words).strange))
    return {f"{case}_noted_percent": round(100 * float(np.mean(noted)), 1) for case, noted in cases.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    examples = read_examples(args.folder)
    laid = [align(example.samples, example.words) for example in examples]
    heard = [one.words for one in laid]
    found = {
        "clips": len(examples),
        "words": sum(len(example.words) for example in examples),
        "milliseconds": timing(examples, heard),
        "cuts": cuts(examples, heard),
        "transcripts": recognised(examples, heard),
        "two_words_left_out": left_out(examples, laid),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
