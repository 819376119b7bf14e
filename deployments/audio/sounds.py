"""Words to sounds in the alphabet of espeak-ng (IPA), one string per sentence, for voices that were trained on it.

English by the dictionary that ships with the embedded voice; other languages by the program `espeak-ng`, where there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata

from deployments.audio import tts
from deployments.errors import SpeechError

PROGRAM = "espeak-ng"
SECONDS = 20  # for one clause
MOST_CLAUSES = 400
LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}")
SWITCHED = re.compile(r"\([a-z][a-z0-9-]*\)")  # espeak-ng marks words that it reads in another language
STOP = re.compile(r"([.,;:!?…。，、！？؟؛،।]+)(?=\s|$)")
AS_LATIN = {"…": ".", "。": ".", "।": ".", "，": ",", "、": ",", "،": ",", "！": "!", "？": "?", "؟": "?", "؛": ";"}
ENDS = ".!?"

# From the embedded voice's alphabet to espeak-ng's: diphthongs and affricates of two letters, r-coloured vowels.
ENGLISH = {"A": "eɪ", "I": "aɪ", "W": "aʊ", "Y": "ɔɪ", "O": "oʊ", "Q": "əʊ", "T": "ɾ", "ʤ": "dʒ", "ʧ": "tʃ", "ᵊ": "ə"}
COLOURED = re.compile(r"ɜɹ(?![iɪɛæɑɔʊuʌəɜeao])|əɹ(?![iɪɛæɑɔʊuʌɜeao])")
LONG = re.compile(r"((?<=[ˈˌ])[iɑɔ]|u)(?![ɪʊː])")  # the diphthongs are single letters still

# Letters that a language is written in, beside Latin ones: the start of their Unicode names.
ALPHABETS = {
    "CYRILLIC": "ru uk be bg sr mk kk ky tt",
    "GREEK": "el grc",
    "ARABIC": "ar fa ur ku",
    "DEVANAGARI": "hi mr ne",
    "GEORGIAN": "ka",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "HANGUL": "ko",
    "CJK": "zh cmn yue ja",
}


def sounds_of(text: str, language: str) -> list[str]:
    """Phonemes of text. Raises SpeechError for letters of another language, and where nobody here can read this one."""
    check_letters(text, language)
    if family(language) == "en":
        return [as_espeak(sentence) for sentence in tts.sounds_of(text)]
    program = shutil.which(PROGRAM)
    if program is None:
        raise SpeechError(
            f"expected the program {PROGRAM} for words in {language!r}, got none on this machine; install it "
            "(apt-get install espeak-ng), tell the sounds with ipa:, or take an English voice, which needs none"
        )
    return by_program(program, text, language)


def family(language: str) -> str:
    """`en` of `en-us` and `en_GB`."""
    return re.split(r"[-_+]", language.lower(), maxsplit=1)[0]


def check_letters(text: str, language: str) -> None:
    """Raise SpeechError for letters that the language is not written in."""
    known = ["LATIN", *(name for name, languages in ALPHABETS.items() if family(language) in languages.split())]
    if "CJK" in known:
        known += ["HIRAGANA", "KATAKANA"]
    foreign = sorted({c for c in text if c.isalpha() and not unicodedata.name(c, "?").startswith(tuple(known))})
    if foreign:
        raise SpeechError(f"expected text in {language!r}, the voice's language, got the letters {''.join(foreign[:8])!r}")


def as_espeak(sounds: str) -> str:
    """Phonemes of the embedded voice as espeak-ng writes American English."""
    coloured = COLOURED.sub(lambda found: "ɜː" if found[0] == "ɜɹ" else "ɚ", sounds)
    longer = LONG.sub(r"\1ː", coloured.replace("ɜɹ", "ɜːɹ"))
    return "".join(ENGLISH.get(sign, sign) for sign in longer)


def by_program(program: str, text: str, language: str) -> list[str]:
    """Phonemes by espeak-ng, clause by clause: it leaves out the punctuation, which voices want to have."""
    if not LANGUAGE.fullmatch(language):
        raise SpeechError(f"expected a language like en-us in the voice's JSON file, got {language[:40]!r}")
    pieces = STOP.split(" ".join(text.split()))
    if len(pieces) > 2 * MOST_CLAUSES:
        raise SpeechError(f"expected at most {MOST_CLAUSES} clauses, got {len(pieces) // 2}; split the text into several jobs")
    sentences = [""]
    for words, stops in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        stop = AS_LATIN.get(stops[:1], stops[:1])
        said = ask(program, words, language) if any(c.isalnum() for c in words) else ""
        glue = " " if sentences[-1] and said else ""
        sentences[-1] += glue + said + stop
        if stop and stop in ENDS:
            sentences.append("")
    return [sentence for sentence in sentences if sentence]


def ask(program: str, words: str, language: str) -> str:
    """Phonemes of a clause. The words go in as a stream: nothing of them is read as an option, and no shell sees them."""
    command = [program, "-q", "--ipa", "-b", "1", "-v", language, "--stdin"]
    try:
        done = subprocess.run(command, input=words.encode(), capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpeechError(f"expected {PROGRAM} to read {words[:40]!r}, got: {error}; install it again") from error
    if done.returncode != 0:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        told = why[0][:120] if why else f"exit code {done.returncode}"
        raise SpeechError(f"expected {PROGRAM} to know the language {language!r}, got: {told}; is it a newer voice?")
    return " ".join(SWITCHED.sub("", done.stdout.decode("utf-8", "replace")).split())
