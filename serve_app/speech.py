"""The new speech of a job: read or spoken, checked, and laid on the output's clock."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from deployments.contracts import Clip, Segment, Speech
from deployments.errors import SpeechError
from serve_app.request import SpeechSource

RATE = 48000  # what is put into the output; the motion part resamples for itself
MAX_SECONDS = 4 * 3600


def load_source(source: SpeechSource, voice: str) -> Speech:
    """Read or speak one source: mono. Raises SpeechError or MediaError."""
    if source.text is not None:
        from deployments.audio.tts import synthesize

        return check(synthesize(source.text, source.voice or voice), "the spoken text")
    assert source.audio is not None
    return read_speech(source.audio)


def read_speech(path: Path) -> Speech:
    """Mono speech at 48 kHz from any sound or video file. Raises SpeechError or MediaError."""
    from deployments.media.sound import read_sound

    return check(Speech(read_sound(path, RATE), RATE), path.name)


def check(speech: Speech, name: str) -> Speech:
    """The speech itself. Raises SpeechError for no samples, NaN or infinite ones, or hours of them."""
    if len(speech.samples) == 0:
        raise SpeechError(f"{name}: expected speech, got no samples; is there sound in the file?")
    if not np.isfinite(speech.samples).all():
        raise SpeechError(f"{name}: expected finite samples, got NaN or infinity; export the sound again")
    if speech.seconds > MAX_SECONDS:
        raise SpeechError(f"{name}: expected at most {MAX_SECONDS} s of speech, got {speech.seconds:.0f} s; cut it")
    return speech


def seconds_of(speech: Speech) -> Fraction:
    """Exact length."""
    return Fraction(len(speech.samples), speech.rate)


def on_clip(clip: Clip, parts: Sequence[tuple[Segment, Speech]]) -> Speech:
    """One speech as long as the clip: every part at its segment, cut at its end, silence elsewhere.

    The parts' phoneme timings move with them. All parts are brought to the same rate.
    """
    rate = parts[0][1].rate
    samples = np.zeros(round(clip.duration * rate), np.float32)
    phonemes: list[tuple[str, float, float]] = []
    for segment, speech in parts:
        start, end = round(segment.start * rate), round(segment.end * rate)
        piece = at_rate(speech, rate)[: end - start]
        piece = piece[: len(samples) - start]
        samples[start : start + len(piece)] = piece
        offset, last = float(segment.start), float(segment.end)
        moved = [(symbol, a + offset, min(b + offset, last)) for symbol, a, b in speech.phonemes]
        phonemes += [(symbol, a, b) for symbol, a, b in moved if a < last]
    # timings of some parts only would make silence of the others
    told = all(speech.phonemes for _, speech in parts)
    return Speech(samples, rate, " ".join(s.text for _, s in parts), tuple(sorted(phonemes, key=lambda p: p[1])) if told else ())


def at_rate(speech: Speech, rate: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Samples at another rate."""
    if speech.rate == rate:
        return speech.samples
    import soxr

    return np.asarray(soxr.resample(speech.samples, speech.rate, rate), np.float32)


def fit_length(speech: Speech, seconds: Fraction) -> Speech:
    """The speech cut, or padded with silence, to an exact length."""
    wanted = round(seconds * speech.rate)
    samples = speech.samples[:wanted]
    samples = np.pad(samples, (0, wanted - len(samples)))
    kept = tuple((symbol, a, min(b, float(seconds))) for symbol, a, b in speech.phonemes if a < seconds)
    return Speech(samples, speech.rate, speech.text, kept)
