"""Speech for a slot of a filmed message: as long as the slot, as loud as the speaker, over the room's own silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from deployments.audio.loudness import loudness
from deployments.contracts import Speech
from deployments.errors import SpeechError

SHORTEST, LONGEST = 0.85, 1.2  # of the natural length: beyond, speech sounds hasty or drawn out
LEAD, TAIL = 0.02, 0.04  # seconds of room tone before the first sound and after the last
EDGE = 0.005  # seconds in which speech rises from the room tone
SILENT = 10 ** (-40 / 20)  # of the loudest block: where speech begins and ends
BEFORE, AFTER = 0.02, 0.05  # seconds kept around it: soft consonants are quiet
BLOCK = 0.01  # seconds
PEAK = 0.97
MOST_GAIN = 24.0  # dB
TRIES = 4

AROUND = 0.03  # seconds looked at on both sides of a join
SOFT = 12.0  # dB below the mean: a pause, or a sound that can be cut

TONE_WINDOW = 2048  # samples
PAUSE = 20.0  # dB that a pause lies below speech
SPREAD = 3.0  # dB above the quietest blocks
QUIETEST = 5  # percent
NOTHING = -90.0  # dB of full scale: digital silence
FEWEST_PAUSES = 4  # windows

Say = Callable[[float], Speech]
"""Speech at a speed, 1 = natural."""


@dataclass(frozen=True)
class Surroundings:
    """What is heard of the clip around a slot."""

    loudness: float  # LUFS
    rate: int  # Hz
    tone: NDArray[np.float32]  # impulse response [K] that makes the room's silence of white noise; empty: none to be found


def listen(samples: NDArray[np.float32], rate: int) -> Surroundings:
    """Loudness and room tone of a clip's own sound [N]."""
    return Surroundings(loudness(samples, rate), rate, tone_of(samples))


def speaks_at(samples: NDArray[np.float32], rate: int, moment: Fraction) -> bool:
    """Whether [N] is about as loud at a moment (seconds) as it is on average."""
    half = round(AROUND * rate)
    centre = round(moment * rate)
    part = samples[max(0, centre - half) : centre + half]
    if len(part) == 0:
        return False
    here, mean = (float(np.mean(np.square(x, dtype=np.float64))) for x in (part, samples))
    return here > mean * 10 ** (-SOFT / 10)


def tone_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A filter for white noise that sounds like the pauses of [N]; empty where there are none or they are digital silence."""
    count = len(samples) // TONE_WINDOW
    if count < FEWEST_PAUSES:
        return np.zeros(0, np.float32)
    blocks = samples[: count * TONE_WINDOW].reshape(count, TONE_WINDOW).astype(np.float64)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    level = 10 * np.log10(np.mean(np.square(blocks), axis=1) + 1e-20)
    audible = level[level > NOTHING]
    if len(audible) < count / 2:
        return np.zeros(0, np.float32)
    speech = 10 * math.log10(float(np.mean(10 ** (audible / 10))))
    quiet = (level > NOTHING) & (level < min(float(np.percentile(audible, QUIETEST)) + SPREAD, speech - PAUSE))
    if quiet.sum() < FEWEST_PAUSES:
        return np.zeros(0, np.float32)
    window = np.hanning(TONE_WINDOW)
    # the median: a breath or the end of a word in one block is not the room
    power = np.median(np.abs(np.fft.rfft(blocks[quiet] * window)) ** 2, axis=0)
    response = np.fft.fftshift(np.fft.irfft(np.sqrt(power), TONE_WINDOW)) * window
    wanted = 10 ** (float(np.median(level[quiet])) / 20)
    return (response * wanted / math.sqrt(float(np.square(response).sum()))).astype(np.float32)


def room_tone(around: Surroundings, count: int, seed: int) -> NDArray[np.float32]:
    """[count] samples of the room's silence; no two slots have the same."""
    if len(around.tone) == 0:
        return np.zeros(count, np.float32)
    noise = np.random.default_rng(seed).standard_normal(count + len(around.tone) - 1)
    return fftconvolve(noise, around.tone, mode="valid").astype(np.float32)


def fit_to_slot(
    say: Say,
    seconds: Fraction,
    around: Surroundings | None,
    cut: bool = False,
    seed: int = 0,
    longer: Callable[[Fraction], Fraction] | None = None,
) -> Speech:
    """Speech of exactly `seconds`: at another pace where that fits it, then as loud as the clip, over its room tone.

    Speech that would have to be drawn out beyond `LONGEST` keeps its pace, and a pause follows.
    `say` must speak at the rate of `around`.
    Raises SpeechError where it would have to be hastened beyond `SHORTEST`, unless `cut`: then it ends with the slot; or
    unless the slot can be `longer`, which tells the length that it gets for the seconds that are needed.
    """
    speech = paced(say, float(seconds) - LEAD - TAIL, cut or longer is not None)
    needed = Fraction(len(speech.samples), speech.rate) + Fraction(str(LEAD)) + Fraction(str(TAIL))
    if longer is not None and needed > seconds:
        seconds = longer(needed)
    count = round(seconds * speech.rate)
    samples = matched(speech, around)
    lead = round(LEAD * speech.rate)
    laid = np.zeros(count, np.float32)
    fitted = faded(samples[: count - lead - 1], speech.rate)
    laid[lead : lead + len(fitted)] = fitted
    if around is not None:
        laid += room_tone(around, count, seed)
    end = float(seconds)
    moved = tuple((sign, a + LEAD, min(b + LEAD, end)) for sign, a, b in speech.phonemes if a + LEAD < end)
    return Speech(np.clip(laid, -1, 1), speech.rate, speech.text, moved)


def paced(say: Say, room: float, cut: bool) -> Speech:
    """Speech without silence at its ends, at the pace that fits `room` seconds best."""
    speech = trim(say(1.0))
    natural = speech.seconds
    stretch = room / natural if room > 0 else 0.0
    if stretch < SHORTEST and not cut:
        raise SpeechError(
            f"expected at most {max(0.0, room) / SHORTEST:.1f} s of speech for this slot, got {natural:.1f} s: "
            f"{speech.text[:60]!r}; say less, lengthen the slot, "
            "or take a sync mode that cuts it (cut_off) or makes the video longer (bounce, remap)"
        )
    if stretch >= 1 and (stretch > LONGEST or stretch < 1.03):
        return speech
    speed = 1 / max(stretch, SHORTEST)
    for _ in range(TRIES):
        speech = trim(say(min(speed, 1 / SHORTEST)))
        if speech.seconds <= room or speed >= 1 / SHORTEST:
            break
        speed *= speech.seconds / room + 0.01  # a voice rounds its sounds to whole steps
    return speech


def trim(speech: Speech) -> Speech:
    """The speech without the silence before and after it."""
    size = max(1, round(BLOCK * speech.rate))
    count = -(-len(speech.samples) // size)
    blocks = np.pad(speech.samples, (0, count * size - len(speech.samples))).reshape(count, size)
    power = np.sqrt(np.mean(np.square(blocks), axis=1))
    heard = np.flatnonzero(power > SILENT * power.max(initial=0))
    if len(heard) == 0:
        raise SpeechError(f"expected sound in the speech for a slot, got silence ({speech.text[:40]!r}); record it again")
    first = max(0, int(heard[0]) * size - round(BEFORE * speech.rate))
    last = min(len(speech.samples), (int(heard[-1]) + 1) * size + round(AFTER * speech.rate))
    start, end = first / speech.rate, (last - first) / speech.rate
    moved = [(sign, max(0.0, a - start), min(b - start, end)) for sign, a, b in speech.phonemes]
    kept = tuple((sign, a, b) for sign, a, b in moved if a < b)
    return Speech(np.ascontiguousarray(speech.samples[first:last]), speech.rate, speech.text, kept)


def matched(speech: Speech, around: Surroundings | None) -> NDArray[np.float32]:
    """Samples as loud as the clip; never over full scale."""
    own = loudness(speech.samples, speech.rate)
    if around is None or not (math.isfinite(own) and math.isfinite(around.loudness)):
        return speech.samples
    gain = 10 ** (float(np.clip(around.loudness - own, -MOST_GAIN, MOST_GAIN)) / 20)
    peak = float(np.abs(speech.samples).max())
    return (speech.samples * min(gain, PEAK / peak)).astype(np.float32)


def faded(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The samples with short ramps at both ends."""
    ramp = min(round(EDGE * rate), len(samples) // 2)
    if ramp == 0:
        return samples
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 1) / (ramp + 1))
    out = samples.copy()
    out[:ramp] *= rise.astype(np.float32)
    out[len(out) - ramp :] *= rise[::-1].astype(np.float32)
    return out


def join(parts: Sequence[Speech]) -> Speech:
    """Spoken and recorded parts, equally loud and without silence between them, as one speech.

    Phoneme timings stay only where all parts have them: timings of some would make silence of the others.
    """
    if len(parts) == 1:
        return parts[0]
    parts = [trim(part) for part in parts]
    around = Surroundings(loudness(parts[0].samples, parts[0].rate), parts[0].rate, np.zeros(0, np.float32))
    samples = [faded(matched(part, around), part.rate) for part in parts]
    told: list[tuple[str, float, float]] = []
    start = 0.0
    for part in parts:
        told += [(sign, a + start, b + start) for sign, a, b in part.phonemes]
        start += part.seconds
    text = " ".join(part.text for part in parts if part.text)
    return Speech(np.concatenate(samples), parts[0].rate, text, tuple(told) if all(p.phonemes for p in parts) else ())
