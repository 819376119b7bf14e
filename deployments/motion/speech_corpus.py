"""Speech that we synthesise ourselves, with the articulatory class of every 20 ms: what the phoneme net learns from."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.audio import tts
from deployments.audio.features import RATE, mel_power
from deployments.motion.phonemes import frame_classes

Phonemes = tuple[tuple[str, float, float], ...]

ESPEAK_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "de", "fr", "es", "it", "pt", "ru", "cmn", "hi")
ESPEAK_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2")
ESPEAK_PHONEME_EVENT = 7
LONGEST_SENTENCE = 200

_SUBJECTS = ("my brother", "the old baker", "Barbara", "a young pilot", "the whole village", "nobody", "our teacher", "Thomas")
_VERBS = ("bought", "painted", "forgot", "was watching", "moved", "should give away", "would have shown", "may keep")
_OBJECTS = ("the blue paper boat", "five fresh loaves of bread", "a small wooden chair", "that strange machine", "these zebras")
_PLACES = ("by the river", "before the show", "on the roof of the school", "with enough sugar", "when it rained", "for you")


@dataclass(frozen=True)
class Utterance:
    """`log_power` [F, 80] float16 natural log of the mel power at 100 Hz; `classes` [ceil(F / 2)] at 50 Hz."""

    log_power: NDArray[np.float16]
    classes: NDArray[np.int64]
    source: str


def made_sentences(generator: np.random.Generator) -> Iterator[str]:
    """Endless plain sentences from a small grammar: enough to train with where no text is at hand."""
    while True:
        words = [str(generator.choice(part)) for part in (_SUBJECTS, _VERBS, _OBJECTS, _PLACES)]
        yield " ".join(words).capitalize() + str(generator.choice((".", "!", "?")))


def sentences(folder: Path | None, generator: np.random.Generator) -> Iterator[str]:
    """Endless sentences in random order from the plain text files of a folder; without one, made ones."""
    if folder is None:
        yield from made_sentences(generator)
    texts: list[str] = []
    for path in sorted(Path(folder or ".").iterdir()):
        if path.is_file() and not path.suffix:
            text = re.sub(r"\s+", " ", path.read_text("utf-8", "ignore").replace("\n%\n", ". "))
            texts += [s.strip() for s in re.split(r"(?<=[.!?])\s", text) if 15 < len(s) < LONGEST_SENTENCE and s.isascii()]
    while True:
        for k in generator.permutation(len(texts)):
            yield re.sub(r"[^A-Za-z0-9 ,.;:'?!-]", " ", texts[k])


def as_utterance(samples: NDArray[np.float32], rate: int, phonemes: Phonemes, stretch: float, source: str) -> Utterance:
    """Mel power and classes of speech that is played slower and lower by `stretch`."""
    import soxr

    sound = np.asarray(soxr.resample(samples, rate, RATE * stretch, quality="MQ"), np.float32)
    power = mel_power(sound)
    stretched = tuple((symbol, start * stretch, end * stretch) for symbol, start, end in phonemes)
    return Utterance(
        log_power=np.log(power + 1e-10).astype(np.float16),
        classes=frame_classes(stretched, -(-len(power) // 2)),
        source=source,
    )


def hibari_corpus(seconds: float, texts: Iterator[str], generator: np.random.Generator) -> Iterator[Utterance]:
    """Utterances of the embedded voice at varied pace and pitch, `seconds` in all."""
    made = 0.0
    while made < seconds:
        text = f"{next(texts)} {next(texts)}"
        samples, phonemes = tts.speak(text, float(generator.uniform(0.8, 1.35)), int(generator.integers(1 << 30)))
        if len(phonemes) < 5:
            continue
        made += len(samples) / tts.RATE
        yield as_utterance(samples, tts.RATE, phonemes, float(generator.uniform(0.8, 1.35)), "hibari")


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    ]


class Espeak:
    """The system's espeak-ng library, if it is installed: many voices for training, never needed to run."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise FileNotFoundError("expected the library espeak-ng; install it (apt-get install espeak-ng) or train without")
        self._library = ctypes.CDLL(name)
        retrieve_in_step, phoneme_events_as_ipa = 2, 1 | 2
        self.rate = int(self._library.espeak_Initialize(retrieve_in_step, 0, None, phoneme_events_as_ipa))
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._sound: list[NDArray[np.int16]] = []
        self._starts: list[tuple[str, float]] = []

    def _receive(self, sound: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if sound and count > 0:
            self._sound.append(np.ctypeslib.as_array(sound, (count,)).copy())
        index = 0
        while events[index].type:
            if events[index].type == ESPEAK_PHONEME_EVENT:
                symbol = bytes(events[index].string).decode("utf-8", "ignore")
                self._starts.append((symbol, events[index].audio_position / 1000))
            index += 1
        return 0

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int) -> tuple[NDArray[np.float32], Phonemes]:
        """Samples [N] and phoneme timings."""
        self._sound, self._starts = [], []
        self._library.espeak_SetVoiceByName(voice.encode())
        rate_parameter, pitch_parameter, utf8 = 1, 3, 1
        self._library.espeak_SetParameter(rate_parameter, words_per_minute, 0)
        self._library.espeak_SetParameter(pitch_parameter, pitch, 0)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, utf8, None, None)
        if not self._sound:
            return np.zeros(0, np.float32), ()
        samples = np.concatenate(self._sound).astype(np.float32) / np.float32(32768)
        ends = [start for _, start in self._starts[1:]] + [len(samples) / self.rate]
        timings = ((s.strip(f" {tts.STRESS}"), a, b) for (s, a), b in zip(self._starts, ends, strict=True))
        return samples, tuple(timings)


def espeak_corpus(seconds: float, texts: Iterator[str], generator: np.random.Generator) -> Iterator[Utterance]:
    """Utterances of many synthetic voices and languages, `seconds` in all; raises FileNotFoundError without espeak-ng."""
    voice = Espeak()
    made = 0.0
    while made < seconds:
        text = f"{next(texts)} {next(texts)}"
        language = str(generator.choice(ESPEAK_VOICES if generator.random() < 0.4 else ESPEAK_VOICES[:5]))
        name = f"{language}+{generator.choice(ESPEAK_VARIANTS)}"
        samples, phonemes = voice.speak(text, name, int(generator.integers(120, 230)), int(generator.integers(20, 80)))
        if len(phonemes) < 5 or len(samples) < voice.rate:
            continue
        made += len(samples) / voice.rate
        yield as_utterance(samples, voice.rate, phonemes, float(generator.uniform(0.85, 1.2)), "espeak")
