"""Voices in Piper's published format: VITS as ONNX (`voice.onnx`) with its alphabet and settings beside it (`voice.onnx.json`).

Inputs `input` [1, N], `input_lengths` [1], `scales` [3] (noise, length, noise of the lengths) and, of many speakers, `sid` [1].
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.audio import sounds, tts
from deployments.audio.onnx_file import read_onnx
from deployments.audio.piper_file import BETWEEN, END, START, Settings, read_settings
from deployments.audio.voice import LONGEST_IPA, Words, sentences_of
from deployments.contracts import Speech
from deployments.errors import SpeechError

LONGEST_RUN = 400  # sounds at once: attention grows with their square
LONGEST_SOUND = 3.0  # seconds of one
REST = 0.15  # seconds between sentences
PEAK = 0.9
SEED = 1  # of the voice's noise: the same words sound the same at every call
KINDS = {"input": "tensor(int64)", "input_lengths": "tensor(int64)", "scales": "tensor(float)", "sid": "tensor(int64)"}
# Signs that a caller may write another way than the alphabet has them.
OTHERWISE = {"g": "ɡ", "'": "ˈ", ":": "ː", "ʤ": "dʒ", "ʧ": "tʃ", "ɝ": "ɜː", "ɡ": "g"}
LEFT_OUT = "/[].͜͡‿-"


@dataclass(frozen=True)
class PiperVoice:
    """A voice that an operator brought; `speaker` of those that it holds."""

    name: str
    model: bytes
    settings: Settings
    speaker: int | None

    @property
    def language(self) -> str:
        """See `Voice.language`."""
        return self.settings.language

    def check(self, words: Sequence[Words]) -> None:
        """See `Voice.check`."""
        self.ids_of(words)

    def say(self, words: Sequence[Words], speed: float = 1.0) -> Speech:
        """See `Voice.say`; the same at every call. Nothing tells when which sound is said: the mouth follows what is heard."""
        runs = self.ids_of(words)
        # a session of its own: the noise inside the graph goes on from call to call, and a retried job must say the same
        session = open_session(self.model, self.name)
        parts: list[NDArray[np.float32]] = []
        for ids in runs:
            parts += [self._run(session, ids, speed), np.zeros(round(REST * self.settings.rate), np.float32)]
        samples = np.concatenate(parts[:-1])
        peak = float(np.abs(samples).max(initial=0))
        if peak < 1e-4:
            raise SpeechError(f"expected sound from the voice {self.name}, got silence; is it a whole voice?")
        text = " ".join(part.text.strip() for part in words)
        return Speech((samples * (PEAK / peak)).astype(np.float32), self.settings.rate, text, ())

    def ids_of(self, words: Sequence[Words]) -> list[list[int]]:
        """What the model reads, one list per sentence. Raises SpeechError for words that it cannot say."""
        text = " ".join(part.text for part in words)
        if len(text) > tts.LONGEST_TEXT:
            raise SpeechError(
                f"expected at most {tts.LONGEST_TEXT} characters, got {len(text)}; split the text into several jobs"
            )
        if not any(c.isalnum() or part.ipa for part in words for c in part.text or " "):
            raise SpeechError(f"expected words to speak, got {text[:40]!r}; write a sentence or give a sound file")
        found = [part for sentence in sentences_of(words, self._sounds, self._told) for part in portions(sentence)]
        runs = [self._ids(part) for part in found if any(map(is_sound, self._known(part)))]
        if not runs:
            raise SpeechError(f"expected words that {self.name} can say, got nothing it knows in {text[:40]!r}")
        return runs

    def _sounds(self, text: str) -> list[str]:
        if not self.settings.letters:
            return sounds.sounds_of(text, self.settings.language) if text.strip() else []
        lower = unicodedata.normalize("NFD", text.casefold()).strip()
        foreign = sorted({c for c in lower if c.isalpha() and c not in self.settings.ids})
        if foreign:
            raise SpeechError(f"expected letters that the voice {self.name} knows, got {''.join(foreign[:8])!r}")
        return [lower] if lower else []

    def _told(self, ipa: str) -> str:
        if self.settings.letters:
            raise SpeechError(f"expected words, got sounds (ipa:) for {self.name}, a voice that reads letters; leave them out")
        if len(ipa) > LONGEST_IPA:
            raise SpeechError(f"expected at most {LONGEST_IPA} sounds, got {len(ipa)}; shorten the pronunciation")
        kept = "".join(sign for sign in unicodedata.normalize("NFD", ipa) if sign not in LEFT_OUT)
        kept = "".join(sign if sign in self.settings.ids else OTHERWISE.get(sign, sign) for sign in kept)
        foreign = sorted({sign for sign in kept if sign not in self.settings.ids and sign != " "})
        if foreign or not any(map(is_sound, kept)):
            came = " ".join(foreign) or "no sound"
            raise SpeechError(
                f"expected IPA that the voice {self.name} knows, got {came} in {ipa[:40]!r}; write the nearest ones"
            )
        return kept.strip()

    def _known(self, part: str) -> list[str]:
        """Signs of the alphabet, one by one."""
        signs = unicodedata.normalize("NFD", part)
        mapped = (other for sign in signs for other in self.settings.replaced.get(sign, (sign,)))
        return [sign for sign in mapped if sign in self.settings.ids]

    def _ids(self, part: str) -> list[int]:
        table = self.settings.ids
        inner = [i for sign in self._known(part) for i in (*table[sign], *table[BETWEEN])]
        return [*table[START], *table[BETWEEN], *inner, *table[END]]

    def _run(self, session: Any, ids: list[int], speed: float) -> NDArray[np.float32]:
        noise, length, lengths = self.settings.scales
        given: dict[str, NDArray[Any]] = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise, length / speed, lengths], np.float32),
        }
        if self.speaker is not None:
            given["sid"] = np.array([self.speaker], np.int64)
        try:
            samples = np.asarray(session.run(None, given)[0], np.float32).ravel()
        except Exception as error:  # the runtime's own errors have no common class
            raise SpeechError(f"expected the voice {self.name} to speak, got: {str(error)[:200]}") from error
        longest = LONGEST_SOUND * len(ids) * self.settings.rate
        if not (0 < len(samples) <= longest and np.isfinite(samples).all()):
            raise SpeechError(
                f"expected sound from the voice {self.name}, got {len(samples)} samples that make none; is it whole?"
            )
        return samples


def is_sound(sign: str) -> bool:
    """Whether a sign is more than a stop, a stress or a length."""
    return unicodedata.category(sign[0]) in ("Ll", "Lu", "Lo", "Nd")


def portions(sentence: str) -> list[str]:
    """A sentence in parts that the model can hold, cut between words."""
    parts = [""]
    for word in sentence.split(" "):
        if parts[-1] and len(parts[-1]) + len(word) >= LONGEST_RUN:
            parts.append("")
        parts[-1] = f"{parts[-1]} {word}" if parts[-1] else word
    return [part[k : k + LONGEST_RUN] for part in parts for k in range(0, len(part), LONGEST_RUN)]


def open_voice(path: Path, speaker: str = "") -> PiperVoice:
    """The voice of an ONNX file and the JSON file beside it. Raises SpeechError."""
    about = path.with_name(f"{path.name}.json")
    for file in (path, about):
        if not file.is_file():
            raise SpeechError(f"expected a voice as two files, NAME.onnx and NAME.onnx.json, got no {file.name} in {file.parent}")
    states = [(file.stat().st_mtime_ns, file.stat().st_size) for file in (path, about)]
    model, settings = _opened(path, tuple(states))
    return PiperVoice(path.stem, model, settings, pick_speaker(settings, speaker))


@lru_cache(maxsize=4)
def _opened(path: Path, states: tuple[tuple[int, int], ...]) -> tuple[bytes, Settings]:
    settings = read_settings(path.with_name(f"{path.name}.json"))
    model = read_onnx(path)
    check_door(open_session(model, path.stem), settings)
    return model, settings


def pick_speaker(settings: Settings, speaker: str) -> int | None:
    """Number of a speaker by name or number; the first unless told. Raises SpeechError."""
    if settings.speakers == 1 and not speaker:
        return None
    found = settings.named.get(speaker, int(speaker) if speaker.isascii() and speaker.isdigit() else -1) if speaker else 0
    if not 0 <= found < settings.speakers or settings.speakers == 1:
        some = ", ".join(list(settings.named)[:8]) or f"0 to {settings.speakers - 1}"
        known = f"a speaker of {some}" if settings.speakers > 1 else "no speaker: the voice has one"
        raise SpeechError(f"expected {known}; got {speaker[:40]!r}")
    return found


def open_session(model: bytes, name: str) -> Any:
    """A runtime for one utterance. Raises SpeechError."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # without: opening takes three times as long for a voice that speaks no faster
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ort.set_seed(SEED)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no common class
        raise SpeechError(f"expected a voice as ONNX, got {name}, which does not load: {str(error)[:200]}") from error


def check_door(session: Any, settings: Settings) -> None:
    """Raise SpeechError unless the model takes what voices take."""
    given = {one.name: one.type for one in session.get_inputs()}
    wanted = {name: kind for name, kind in KINDS.items() if name != "sid" or settings.speakers > 1}
    if given != wanted:
        told = ", ".join(f"{name} {kind}" for name, kind in given.items())
        raise SpeechError(f"expected the inputs {', '.join(wanted)} of a Piper voice, got {told}; is it another kind of model?")
    if session.get_outputs()[0].type != "tensor(float)":
        raise SpeechError(f"expected sound as float, got {session.get_outputs()[0].type}; is it another kind of model?")
