"""Voices behind one door: words, some with their pronunciation, to speech with phoneme timings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployments.audio import tts
from deployments.contracts import Speech
from deployments.errors import SpeechError
from deployments.settings import voices_folder

DEFAULT = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SPEAKER = "#"  # name#speaker, of a voice that holds several

# IPA as dictionaries write it, in the alphabet of the voice: one letter per diphthong and affricate.
TWO_LETTERS = {"eɪ": "A", "aɪ": "I", "oʊ": "O", "əʊ": "O", "aʊ": "W", "ɔɪ": "Y", "dʒ": "ʤ", "tʃ": "ʧ"}
ONE_LETTER = {
    "r": "ɹ",
    "g": "ɡ",
    "'": "ˈ",
    "e": "ɛ",
    "a": "æ",
    "o": "O",
    "ɒ": "ɑ",
    "ɐ": "ə",
    "ɝ": "ɜɹ",
    "ɚ": "əɹ",
    "ʀ": "ɹ",
    "ʁ": "ɹ",
}
LEFT_OUT = "ː:.·͡‿/[]-ʰ̩̯̃ "  # length, syllable borders, ties: the voice times its sounds itself
KNOWN = set("bdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹɾʃʊʌʒʤʧθAIOWYˈˌ")
VOWELS = set("iuæɑɔəɛɜɪʊʌAIOWY")
LONGEST_IPA = 200


@dataclass(frozen=True)
class Words:
    """Something to say: text, or the sounds of it where `ipa` tells them."""

    text: str
    ipa: str = ""


@dataclass(frozen=True)
class VoiceFacts:
    """What callers may know of a voice before they ask for it."""

    name: str
    language: str
    rate: int  # Hz
    speakers: tuple[str, ...] = ()  # of several: name#speaker
    problem: str = ""  # why it cannot speak


class Voice(Protocol):
    """Who speaks."""

    @property
    def language(self) -> str:
        """What it speaks, as espeak calls it: en-us, de; empty where nobody told."""
        ...

    def check(self, words: Sequence[Words]) -> None:
        """Raise SpeechError unless this can be said."""
        ...

    def say(self, words: Sequence[Words], speed: float) -> Speech:
        """Speech, `speed` times as fast as usual; with phoneme timings where the voice knows them. Raises SpeechError."""
        ...


class EnglishVoice:
    """The voice that ships with the program."""

    language = "en-us"

    def check(self, words: Sequence[Words]) -> None:
        """See `Voice.check`."""
        text = " ".join(part.text if not part.ipa else "sounds" for part in words)
        tts.check_text(text)
        for part in words:
            if part.ipa:
                to_sounds(part.ipa)

    def say(self, words: Sequence[Words], speed: float = 1.0) -> Speech:
        """See `Voice.say`; the same at every call."""
        self.check(words)
        text = " ".join(part.text.strip() for part in words)
        samples, phonemes = tts.speak_sounds(sentences_of(words), speed)
        if len(samples) == 0:
            raise SpeechError(f"expected English text, got nothing to pronounce in {text[:40]!r}; write it out in words")
        return Speech(samples, tts.RATE, text, phonemes)


def voice_named(name: str | Path) -> Voice:
    """The voice of a name: the embedded one, or one that the operator listed. Raises SpeechError.

    A path is a file of the operator's own choice; what strangers send is a `str`, and never read as a path.
    """
    if name == DEFAULT:
        return EnglishVoice()
    from deployments.audio.piper import open_voice

    if isinstance(name, Path):
        file, _, speaker = name.name.partition(SPEAKER)
        return open_voice(name.with_name(file), speaker)
    plain, _, speaker = name.partition(SPEAKER)
    listed = voice_files()
    if plain not in listed:
        raise SpeechError(
            f"expected a voice of {', '.join((DEFAULT, *listed))}; got {name[:80]!r}; "
            "an operator lists one by putting NAME.onnx and NAME.onnx.json into the folder LIPSYNC_VOICES"
        )
    return open_voice(listed[plain], speaker)


def voice_files() -> dict[str, Path]:
    """Voices that the operator listed, by name."""
    found = sorted(voices_folder().glob("*.onnx"))
    return {path.stem: path for path in found if NAME.fullmatch(path.stem) and path.stem != DEFAULT}


def known_voices() -> list[VoiceFacts]:
    """The embedded voice and those that the operator listed; of these only the JSON files are read."""
    from deployments.audio.piper_file import read_settings

    found = [VoiceFacts(DEFAULT, "en-us", tts.RATE)]
    for name, path in voice_files().items():
        try:
            told = read_settings(path.with_name(f"{path.name}.json"))
        except (SpeechError, OSError) as error:
            found.append(VoiceFacts(name, "", 0, problem=str(error)))
            continue
        speakers = tuple(told.named) or tuple(map(str, range(told.speakers)))
        found.append(VoiceFacts(name, told.language, told.rate, speakers if told.speakers > 1 else ()))
    return found


def sentences_of(
    words: Sequence[Words], of_text: Callable[[str], list[str]] | None = None, of_ipa: Callable[[str], str] | None = None
) -> list[str]:
    """Phonemes, one string per sentence; given sounds stand inside the sentence that they were written in.

    In the alphabet of the embedded voice, unless told how to come by another.
    """
    of_text, of_ipa = of_text or tts.sounds_of, of_ipa or to_sounds
    sentences: list[str] = []
    open_end = False
    for part in words:
        found = [of_ipa(part.ipa)] if part.ipa else of_text(part.text)
        if not found:
            continue
        if open_end and sentences:
            glue = "" if found[0][0] in ".,;:!?" else " "
            sentences[-1] += glue + found[0]
            found = found[1:]
        sentences += found
        open_end = bool(part.ipa) or part.text.rstrip()[-1:] not in ".!?…"
    return sentences


def to_sounds(ipa: str) -> str:
    """The voice's phonemes of an IPA transcription. Raises SpeechError naming the signs that English does not have."""
    sounds = unicodedata.normalize("NFC", ipa)
    if len(sounds) > LONGEST_IPA:
        raise SpeechError(f"expected at most {LONGEST_IPA} sounds, got {len(sounds)}; shorten the pronunciation")
    for sign in LEFT_OUT:
        sounds = sounds.replace(sign, " " if sign == " " else "")
    for theirs, ours in TWO_LETTERS.items():
        sounds = sounds.replace(theirs, ours)
    sounds = "".join(ONE_LETTER.get(sign, sign) for sign in sounds)
    foreign = sorted(set(sounds) - KNOWN - {" "})
    if foreign:
        raise SpeechError(f"expected IPA of English sounds, got {' '.join(foreign)} in {ipa[:40]!r}; write the nearest ones")
    if not set(sounds) & VOWELS:
        raise SpeechError(f"expected IPA with a vowel, got {ipa[:40]!r}; write it like ʃɪˈvɔːn")
    return stress_vowels(sounds.strip())


def stress_vowels(sounds: str) -> str:
    """Stress marks moved from the syllable to its vowel, where the voice expects them."""
    out, carried = "", ""
    for sign in sounds:
        if sign in "ˈˌ":
            carried = sign
        elif carried and sign in VOWELS:
            out, carried = out + carried + sign, ""
        else:
            out += sign
    return out
