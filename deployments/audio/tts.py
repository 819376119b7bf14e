"""Text to speech with the embedded English voice (hibari-tts, Apache-2.0, runs on one CPU core 100x faster than real time)."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Speech
from deployments.errors import SpeechError

RATE = 24000
LONGEST_TEXT = 20000
VOICES = ("default",)

Phonemes = tuple[tuple[str, float, float], ...]

# The voice's ONNX graph holds the duration of each phoneme id, in units of 600 samples, in this inner tensor.
DURATIONS = b"/Cast_32_output_0"
DURATION_SAMPLES = 600
# The sound of a phoneme comes this much before the place its duration says (measured against forced alignment).
LABEL_LATE = 0.05
STRESS = "ˈˌː"
LONGEST_GAP = 0.12


def synthesize(text: str, voice: str = "default") -> Speech:
    """Speak English text: mono 24 kHz, with phoneme timings (misaki alphabet, `_` = pause), the same at every call.

    Raises SpeechError for empty text, text without anything to pronounce, letters of another script, an unknown
    voice, and more than 20,000 characters.
    """
    check_text(text, voice)
    samples, phonemes = speak(text)
    if len(samples) == 0:
        raise SpeechError(f"expected English text, got nothing to pronounce in {text[:40]!r}; write it out in words")
    return Speech(samples=samples, rate=RATE, text=text, phonemes=phonemes)


def check_voice(voice: str) -> None:
    """Raise SpeechError for a voice that does not exist."""
    if voice not in VOICES:
        raise SpeechError(f"expected a voice of {', '.join(VOICES)}, got {voice!r}; leave the voice out or give a sound file")


def check_text(text: str, voice: str = "default") -> None:
    """Raise SpeechError unless the voice exists and can speak the text."""
    check_voice(voice)
    if not text.strip():
        raise SpeechError("expected text to speak, got none; write a sentence or give a sound file")
    if len(text) > LONGEST_TEXT:
        raise SpeechError(f"expected at most {LONGEST_TEXT} characters, got {len(text)}; split the text into several jobs")
    foreign = next(
        (word for word in text.split() if any(c.isalpha() and "LATIN" not in unicodedata.name(c, "") for c in word)), ""
    )
    if foreign:
        shown = foreign.strip(string.punctuation)[:20]
        raise SpeechError(
            f"expected text in Latin letters, got {shown!r}; the voice speaks English only: give a sound file, "
            "or tell the sounds of a name, NAME|ipa:SOUNDS"
        )
    if not any(c.isalnum() for c in text):
        raise SpeechError(f"expected words or numbers, got only signs in {text[:40]!r}; write a sentence")


def speak(text: str, speed: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float32], Phonemes]:
    """Samples [N] at 24 kHz and phoneme timings of text that passed `check_text`. `speed` 0.5 (slow) to 2."""
    return speak_sounds(sounds_of(text), speed, seed)


def sounds_of(text: str) -> list[str]:
    """Phonemes of text, one string per sentence."""
    return list(_voice().phonemize(text))


def dictionary() -> Collection[str]:
    """English words whose sounds the voice knows by heart, in lower case and as names are written."""
    return _voice().g2p.lexicon.golds.d


def speak_sounds(sentences: Sequence[str], speed: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float32], Phonemes]:
    """Like `speak`, of phonemes in the voice's alphabet (misaki)."""
    from hibari import dsp

    voice = _voice()
    noise = np.random.default_rng(seed)
    parts: list[NDArray[np.float32]] = []
    timings: list[tuple[str, float, float]] = []
    offset = 0
    for sentence in sentences:
        kept = [c for c in sentence if c in voice.vocab]
        ids = [0, *(voice.vocab[c] for c in kept), 0]
        if len(ids) < 3:
            continue
        inputs = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed], np.float32)}
        outputs = voice.sess.run(None, inputs)
        samples = np.asarray(dsp.synth(*(o[0] for o in outputs[:6]), noise), np.float32)
        if len(outputs) > 6:
            timings += _timings(["_", *kept, "_"], outputs[6].ravel(), offset / RATE)
        parts.append(samples)
        offset += len(samples)
    if not parts:
        return np.zeros(0, np.float32), ()
    return np.clip(np.concatenate(parts), -1, 1), tuple(timings)


def _timings(symbols: list[str], durations: NDArray[np.int64], offset: float) -> list[tuple[str, float, float]]:
    """Phonemes with times; stress goes to the vowel after it, a short gap half to each neighbour, the label bias out."""
    spans: list[list[Any]] = []
    carried = 0.0
    for symbol, units in zip(symbols, durations, strict=True):
        seconds = float(units) * DURATION_SAMPLES / RATE
        if symbol == "ː" and spans:
            spans[-1][1] += seconds
        elif symbol in STRESS:
            carried += seconds
        elif symbol.isalpha() or symbol == "ᵊ":
            spans.append([symbol, seconds + carried])
            carried = 0.0
        elif spans and spans[-1][0] == "_":
            spans[-1][1] += seconds
        else:
            spans.append(["_", seconds])
    _share_short_gaps(spans)
    timings, start = [], offset - LABEL_LATE
    for symbol, seconds in spans:
        if symbol:
            timings.append((symbol, max(0.0, start), max(0.0, start + seconds)))
        start += seconds
    return timings


def _share_short_gaps(spans: list[list[Any]]) -> None:
    for k in range(1, len(spans) - 1):
        symbol, seconds = spans[k]
        if symbol == "_" and seconds < LONGEST_GAP:
            spans[k - 1][1] += seconds / 2
            spans[k + 1][1] += seconds / 2
            spans[k] = ["", 0.0]


@lru_cache(maxsize=1)
def _voice() -> Any:
    """The voice, its session replaced by one that also returns the durations (where this version has them)."""
    import onnxruntime as ort
    from hibari import Hibari

    voice = Hibari()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = Path(voice.model_path).read_bytes() + _extra_output(DURATIONS)
    try:
        voice.sess = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  another version of the voice: it speaks, but tells no timings
        return voice
    return voice


def _extra_output(name: bytes) -> bytes:
    """A ModelProto fragment with one more int64 graph output: protobuf messages merge when they are concatenated."""

    def field(number: int, payload: bytes) -> bytes:
        assert len(payload) < 128
        return bytes([number << 3 | 2, len(payload)]) + payload

    tensor_type = field(1, bytes([1 << 3, 7]))
    return field(7, field(12, field(1, name) + field(2, tensor_type)))
