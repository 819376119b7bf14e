"""The new speech of a job: read or spoken, checked, and laid on the output's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deployments.contracts import Clip, Segment, Speech
from deployments.errors import SpeechError
from serve_app.overflow import LENGTHENING, longer
from serve_app.planner import SyncMode
from serve_app.request import Piece, SpeechSource

if TYPE_CHECKING:
    from deployments.audio.slot import Surroundings

RATE = 48000  # what is put into the output; the motion part resamples for itself
MAX_SECONDS = 4 * 3600


def load_source(source: SpeechSource, voice: str | Path, clip: Clip | None = None, mode: SyncMode = "silence") -> Speech:
    """Read or speak one source: mono. `mode`: of words that are too long for a slot. Raises SpeechError or MediaError."""
    if source.pieces:
        assert clip is not None, "slots are parts of a clip"
        return speak_slot(source, voice, clip, mode)
    if source.text is not None:
        from deployments.audio.voice import Words, voice_named

        return check(voice_named(source.voice or voice).say([Words(source.text)], 1.0), "the spoken text")
    assert source.audio is not None
    return read_speech(source.audio)


def speak_slot(source: SpeechSource, voice: str | Path, clip: Clip, mode: SyncMode) -> Speech:
    """What is said in a slot, as long as it (with `bounce` and `remap`, as it will be), sounding like the clip.

    Raises SpeechError, MediaError or OptionError.
    """
    from deployments.audio.slot import fit_to_slot

    assert source.segment is not None
    segment, name = source.segment, source.voice or voice
    around = surroundings(clip.path, clip.digest, int(clip.pts[0]) * clip.time_base)
    seed = int(segment.start * 1000)
    room = partial(longer, clip, segment, mode=mode) if mode in LENGTHENING else None
    length, cut = segment.end - segment.start, mode == "cut_off"
    try:
        return fit_to_slot(lambda speed: say(source.pieces, name, speed), length, around, cut, seed, room)
    except SpeechError as error:
        raise SpeechError(f"slot at {float(segment.start):g} s: {error}") from None


@lru_cache(maxsize=4)
def surroundings(path: Path, digest: str, start: Fraction) -> Surroundings | None:
    """How a clip sounds; None for a silent one. Kept, since every slot of every customer asks for the same."""
    from deployments.audio.slot import listen
    from deployments.media.sound import read_sound

    try:
        return listen(read_sound(path, RATE, origin=start), RATE)
    except SpeechError:
        return None


def say(pieces: Sequence[Piece], name: str | Path, speed: float) -> Speech:
    """Pieces one after the other at 48 kHz: words by the voice, recordings at another tempo."""
    from deployments.audio.slot import join
    from deployments.audio.voice import Words, voice_named
    from deployments.media.tempo import change_tempo

    voice, said = voice_named(name), []
    for recorded, group in groupby(pieces, key=lambda piece: piece.audio):
        if recorded is None:
            spoken = voice.say([Words(piece.text, piece.ipa) for piece in group], speed)
            said.append(replace(spoken, samples=at_rate(spoken, RATE), rate=RATE))
        else:
            said.append(Speech(change_tempo(read_speech(recorded).samples, RATE, speed), RATE))
    return join(said)


def check_said(source: SpeechSource, voice: str, mode: SyncMode) -> None:
    """Raise SpeechError for words that cannot be said, or not in time; what is recorded is heard when the job runs."""
    from deployments.audio.slot import fit_to_slot
    from deployments.audio.voice import Words, voice_named

    spoken = [piece for piece in source.pieces if piece.audio is None]
    assert source.segment is not None
    if spoken:
        voice_named(voice).check([Words(piece.text, piece.ipa) for piece in spoken])
    if len(spoken) == len(source.pieces):
        length = source.segment.end - source.segment.start
        fit_to_slot(lambda speed: say(source.pieces, voice, speed), length, None, mode != "silence")


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


def on_clip(length: Fraction, parts: Sequence[tuple[Segment, Speech]]) -> Speech:
    """One speech as long as the output (seconds): every part at its segment, cut at its end, silence elsewhere.

    The parts' phoneme timings move with them. All parts are brought to the same rate.
    """
    rate = parts[0][1].rate
    samples = np.zeros(round(length * rate), np.float32)
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
