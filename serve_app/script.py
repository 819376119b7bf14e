"""A script: what is said in which part of a clip, with `{{slots}}` for what differs from customer to customer.

    segments:
      - {start: 3.2, end: 6.0, text: "Hello {{customer_name}}, your trip to {{destination}} is ready"}
    defaults:
      destination: Paris
    voice: default          # for all lines; a line may have its own
    language: en            # where it is told, nobody guesses whether the voice speaks it

`{{name|ipa:ˈʃɪvɔːn}}` gives the pronunciation of a slot; a value may bring its own: `Siobhan|ipa:ʃɪˈvɔːn`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.contracts import Segment
from deployments.errors import OptionError, SpeechError
from serve_app.request import Piece, SpeechSource, check_input, segment

SLOT = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:\|\s*ipa:\s*([^{}|]+?)\s*)?\}\}")
LONGEST_VALUE = 200  # letters: a name, a place, a sentence
LARGEST_SCRIPT = 1 << 20  # bytes
MOST_SEGMENTS = 500
MARKUP = "<>{}[]|\\`"
INVISIBLE = ("Cf", "Cc", "Co", "Cs", "Cn")  # joiners, direction marks, control characters, private use
SYMBOLS = ("So", "Sk")  # emoji and their skin tones: nothing that can be said
FIELDS = {"segments", "defaults", "voice", "language"}
NEEDED_FIELDS = {"start", "end", "text"}
SEGMENT_FIELDS = NEEDED_FIELDS | {"voice"}
DEFAULT_VOICE = "default"
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Line:
    """One segment of the clip and what is said in it."""

    segment: Segment
    text: str
    voice: str | None = None  # None: the script's


@dataclass(frozen=True)
class Value:
    """What a caller puts in a slot: words, words with their pronunciation, or a recording."""

    text: str = ""
    ipa: str = ""
    audio: Path | None = None


@dataclass(frozen=True)
class Script:
    """Lines in the order they were written."""

    lines: tuple[Line, ...]
    defaults: Mapping[str, Value] = field(default_factory=dict)
    voice: str = DEFAULT_VOICE
    language: str = ""  # as the author tells it

    def voices(self) -> tuple[str, ...]:
        """Names of all voices, each once."""
        return tuple(dict.fromkeys(line.voice or self.voice for line in self.lines))

    def strictest(self) -> str:
        """The voice whose sounds the pronunciation of a variable may use: another one than the embedded tells its own."""
        return next((name for name in self.voices() if name != DEFAULT_VOICE), DEFAULT_VOICE)

    def slots(self) -> tuple[str, ...]:
        """Names of all slots, in the order of their first use."""
        return tuple(dict.fromkeys(found[1] for line in self.lines for found in SLOT.finditer(line.text)))

    def fill(self, values: Mapping[str, Value]) -> tuple[SpeechSource, ...]:
        """New speech for every line. Raises OptionError for a missing or an unknown variable."""
        known = self.slots()
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise OptionError(f"expected variables of {named(known)}; got {named(unknown)}; check the spelling")
        told = {**self.defaults, **values}
        missing = [name for name in known if name not in told]
        if missing:
            raise OptionError(f"expected a value for {named(missing)}, got none; give it, or a default in the script")
        return tuple(
            SpeechSource(segment=line.segment, pieces=fill_line(line.text, told), voice=line.voice) for line in self.lines
        )


def read_script(path: Path) -> str:
    """The text of a script. Raises InputError or OptionError."""
    check_input(path, "script")
    if path.stat().st_size > LARGEST_SCRIPT:
        raise OptionError(f"expected a script of at most {LARGEST_SCRIPT >> 20} MiB, got {path.name}; is it the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{path.name}: expected UTF-8 text, got other bytes; save it as UTF-8") from error


def load_script(words: str, name: str = "script") -> dict[str, Any]:
    """A script's fields as they are written. Raises OptionError for other text than YAML with fields."""
    import yaml

    try:
        found = yaml.safe_load(words)
    except yaml.YAMLError as error:
        raise OptionError(f"{name}: expected YAML, got: {error}") from error
    if not isinstance(found, dict):
        raise OptionError(f"{name}: expected `segments:` with at least one `{{start, end, text}}`, or a `transcript:`")
    return found


def parse_script(words: str, name: str = "script") -> Script:
    """Script from YAML text. Raises OptionError that names the segment and what is wrong with it."""
    found = load_script(words, name)
    if not isinstance(found.get("segments"), list) or not found["segments"]:
        raise OptionError(f"{name}: expected `segments:` with at least one `{{start, end, text}}`, or a `transcript:`")
    check_fields(name, found, FIELDS)
    if len(found["segments"]) > MOST_SEGMENTS:
        raise OptionError(f"{name}: expected at most {MOST_SEGMENTS} segments, got {len(found['segments'])}")
    voice = str(found.get("voice", DEFAULT_VOICE))
    lines = tuple(parse_line(f"{name}, segment {k}", item, voice) for k, item in enumerate(found["segments"], 1))
    defaults = found.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise OptionError(f"{name}: expected `defaults:` as name: value, got {type(defaults).__name__}")
    speaker = Script(lines, {}, voice).strictest()
    values = {str(key): parse_value(str(key), str(value), voice=speaker) for key, value in defaults.items()}
    script = Script(lines, values, voice, language_of(name, found))
    surplus = sorted(set(values) - set(script.slots()))
    if surplus:
        raise OptionError(f"{name}: expected defaults of {named(script.slots())}, got {named(surplus)}; check the spelling")
    return script


def language_of(name: str, found: Mapping[str, Any]) -> str:
    """The language that a script tells, or nothing. Raises OptionError."""
    told = found.get("language", "")
    if told != "" and not (isinstance(told, str) and LANGUAGE.fullmatch(told)):
        raise OptionError(f"{name}: expected a `language:` like en, de or pt-br, got {told!r}; Norwegian is 'no' in quotes")
    return told


def parse_line(where: str, item: Any, voice: str = DEFAULT_VOICE) -> Line:
    """One segment. Raises OptionError."""
    if not isinstance(item, dict):
        raise OptionError(f"{where}: expected {{start, end, text}}, got {type(item).__name__}")
    check_fields(where, item, SEGMENT_FIELDS)
    missing = sorted(NEEDED_FIELDS - set(item))
    if missing:
        raise OptionError(f"{where}: expected start, end and text, got no {named(missing)}")
    text = str(item["text"]).strip()
    rest = SLOT.sub("", text)
    if "{{" in rest or "}}" in rest:
        raise OptionError(
            f"{where}: expected slots like {{{{customer_name}}}} or {{{{customer_name|ipa:...}}}}, got {text!r}; "
            "a name has letters, digits and _"
        )
    if not text:
        raise OptionError(f"{where}: expected words to say, got none")
    for ipa in filter(None, (found[2] for found in SLOT.finditer(text))):
        check_ipa(where, ipa, str(item.get("voice", voice)))
    check_plain(where, rest)
    return Line(segment(str(item["start"]), str(item["end"])), text, str(item["voice"]) if "voice" in item else None)


def check_fields(where: str, item: Mapping[Any, Any], known: set[str]) -> None:
    """Raise OptionError for a field that means nothing: a slip of the pen would be silent else."""
    unknown = sorted(str(key) for key in item if key not in known)
    if unknown:
        raise OptionError(f"{where}: expected the fields {named(sorted(known))}, got {named(unknown)}")


def parse_value(name: str, words: str, folder: Path | None = None, voice: str = DEFAULT_VOICE) -> Value:
    """A variable as a caller writes it: words, `words|ipa:sounds`, or `@file` of a recording.

    Recordings are looked for beside `folder`; without one `@` is only a sign. Raises OptionError, SpeechError, InputError.
    """
    if folder is not None and words.startswith("@"):
        path = folder / Path(words[1:]).expanduser()
        check_input(path, f"sound ({name})")
        return Value(audio=path)
    text, mark, ipa = words.partition("|ipa:")
    if mark:
        check_ipa(name, ipa.strip(), voice)
    return Value(clean(name, text), ipa.strip())


def clean(name: str, words: str) -> str:
    """Words as they are spoken: composed letters, single blanks, no emoji, no invisible signs.

    Raises SpeechError for markup (a voice would read it aloud, or obey it), for too much, and for nothing that can be said.
    """
    check_plain(name, words)
    kept = "".join(" " if sign.isspace() else sign for sign in unicodedata.normalize("NFC", words) if sayable(sign))
    kept = " ".join(kept.split())
    if len(kept) > LONGEST_VALUE:
        raise SpeechError(f"{name}: expected at most {LONGEST_VALUE} letters, got {len(kept)}; shorten it")
    if not any(sign.isalnum() for sign in kept):
        raise SpeechError(f"{name}: expected something that can be said, got {words[:40]!r}; write it out in words")
    return kept


def check_plain(name: str, words: str) -> None:
    """Raise SpeechError for markup."""
    found = sorted(set(words) & set(MARKUP))
    if found:
        raise SpeechError(
            f"{name}: expected plain words, got {' '.join(found)} in {words[:60]!r}; "
            "markup is not understood: a pronunciation is written name|ipa:sounds"
        )


def check_ipa(name: str, ipa: str, voice: str = DEFAULT_VOICE) -> None:
    """Raise SpeechError for sounds that the embedded voice does not know; others tell when they are asked to speak."""
    from deployments.audio.voice import LONGEST_IPA, to_sounds

    try:
        if voice == DEFAULT_VOICE:
            to_sounds(ipa)
        elif len(ipa) > LONGEST_IPA or not any(sign.isalpha() for sign in ipa):
            raise SpeechError(f"expected 1 to {LONGEST_IPA} sounds, got {ipa[:40]!r}; write them like ʃɪˈvɔːn")
    except SpeechError as error:
        raise SpeechError(f"{name}: {error}") from None


def check_voices(script: Script) -> None:
    """Raise SpeechError for a voice that does not exist here, or that cannot read what every customer hears."""
    from deployments.audio.voice import Words, voice_named

    for number, line in enumerate(script.lines, 1):
        voice, fixed = voice_named(line.voice or script.voice), " ".join(SLOT.sub(" ", line.text).split())
        if any(sign.isalnum() for sign in fixed):
            try:
                voice.check([Words(fixed)])
            except SpeechError as error:
                raise SpeechError(f"script, segment {number}: {error}") from None
    check_languages(script)


def check_languages(script: Script) -> None:
    """Raise SpeechError for a script in a language that its voice does not speak: as it tells, or as nobody can doubt."""
    from deployments.audio.voice import voice_named

    read: dict[str, list[str]] = {}
    for line in script.lines:
        read.setdefault(line.voice or script.voice, []).append(SLOT.sub(" ", line.text))
    for name, lines in read.items():
        words, remedy = " ".join(" ".join(lines).split()), "name a voice that speaks it (`lipsync voices`)"
        check_language(script.language, voice_named(name).language, words, f"the voice {name!r} speaks", remedy)


def check_language(told: str, known: str, words: str, whose: str, remedy: str) -> None:
    """Raise SpeechError unless somebody who knows one language can read the words; `told` is what their author says."""
    from deployments.audio.language import other_language

    if told and known and told.lower().split("-")[0] != known.lower().split("-")[0]:
        raise SpeechError(f"expected words in {known!r}, which {whose}, got language: {told}; {remedy}")
    if told or not known.lower().startswith("en"):
        return
    other = other_language(words)
    if other:
        raise SpeechError(
            f"expected English, which {whose}, got {other}: {words[:60]!r}; {remedy}, "
            "or write `language: en` into the script if it is English"
        )


def sayable(sign: str) -> bool:
    """Whether a character is more than a picture or a mark that nobody sees."""
    category = unicodedata.category(sign)
    variation = 0xFE00 <= ord(sign) <= 0xFE0F
    return sign.isspace() or not (category in INVISIBLE or category in SYMBOLS or variation or sign == "⃣")


def fill_line(text: str, values: Mapping[str, Value]) -> tuple[Piece, ...]:
    """What is said, piece by piece. Words that need no special care become one piece with their surroundings."""
    pieces: list[Piece] = []
    words, last = "", 0
    for found in SLOT.finditer(text):
        words, last = words + text[last : found.start()], found.end()
        value = values[found[1]]
        ipa = "" if value.audio is not None else value.ipa or found[2] or ""
        if value.audio is None and not ipa:
            words += value.text
            continue
        pieces += [Piece(text=words)] if words.strip() else []
        pieces.append(Piece(text=value.text, ipa=ipa, audio=value.audio))
        words = ""
    words += text[last:]
    return tuple([*pieces, Piece(text=words)] if words.strip() else pieces)


def named(names: Any) -> str:
    """Names as a sentence has them."""
    return ", ".join(names) or "none"
