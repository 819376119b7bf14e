"""A transcript of a clip with slots in it, and the script that it makes: the words are found in the clip's own sound.

    Hi there. [Hello {{customer_name|said:friend}}, your trip to {{destination|said:Rome}} is ready.] See you soon.

What stands in brackets is said anew as a whole, a slot outside of them by itself. `said:` tells the words that the clip has
in a slot; without them anything may be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from deployments.errors import OptionError, SpeechError
from serve_app.script import FIELDS, Script, check_fields, check_language, language_of, load_script, parse_script

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deployments.contracts import Clip
    from deployments.motion.alignment import Found, Heard, Word

TOKEN = re.compile(r"\{\{[^{}]*\}\}|[\[\]]|[^\s\[\]{}]+|[{}]")
SAID = re.compile(r"\|\s*said:\s*([^{}|]+?)\s*(?=\||\}\})")
RATE = 16000
LONGEST = 20_000  # letters: more than the search can take
WORST = 1.6  # nats a step: right transcripts of real clips stay below 1.3, other sentences are above 1.6
WEAK = 4.0  # nats a step of one word
REACH = 0.08  # seconds that a cut may move into the word beside it
BESIDE = 0.04  # seconds of a pause that a slot takes along
EDGE = 0.05  # seconds: what begins so early begins with the clip


class TranscriptError(OptionError):
    """The transcript is not what the clip says."""

    code = "transcript_mismatch"


@dataclass(frozen=True)
class Part:
    """One word of the transcript."""

    said: str  # in the clip; empty: nobody told
    written: str  # in the script
    segment: int | None  # that it belongs to


def parse_transcript(text: str) -> tuple[Part, ...]:
    """Words in order. Raises OptionError for brackets and slots that do not close, and for a book."""
    if len(text) > LONGEST:
        raise OptionError(
            f"expected a transcript of at most {LONGEST} letters, got {len(text)}; give start and end of the segments"
        )
    parts: list[Part] = []
    inside, number = False, -1
    for match in TOKEN.finditer(text):
        token = match[0]
        glued = bool(parts) and text.endswith("}}", 0, match.start())  # {{customer_name}}'s
        if token in "[]":
            if (token == "[") == inside:
                raise OptionError(f"expected [ and ] in turn around what is said anew, got a second {token} in {text[:60]!r}")
            inside = token == "["
            number += inside
            if not inside and (not parts or parts[-1].segment != number):
                raise OptionError(f"expected words between [ and ], got none in {text[:60]!r}")
        elif token.startswith("{{"):
            follows = bool(parts) and parts[-1].segment == number and parts[-1].written.startswith("{{")
            number += not (inside or follows)  # slots with nothing between them are one
            parts += slot_parts(token, number)
        elif token in "{}":
            raise OptionError(f"expected slots like {{{{customer_name}}}}, got a lone {token} in {text[:60]!r}")
        elif glued and any(map(str.isalnum, token)):
            last = parts[-1]
            parts[-1] = replace(last, said=last.said and last.said + token, written=last.written + token)
        elif not any(map(str.isalnum, token)):
            if not parts:
                continue
            parts[-1] = replace(parts[-1], written=parts[-1].written + token) if inside else parts[-1]
        else:
            parts.append(Part(token, token, number if inside else None))
    if inside:
        raise OptionError(f"expected ] after what is said anew, got the end of the transcript ({text[-60:]!r})")
    return tuple(parts)


def slot_parts(token: str, number: int) -> list[Part]:
    """The words said in a slot: the last is written as the slot, the others as nothing."""
    told = SAID.search(token)
    written = SAID.sub("", token)
    words = told[1].split() if told else [""]
    return [Part(word, written if k == len(words) - 1 else "", number) for k, word in enumerate(words)]


def with_times(clip: Clip, text: str, name: str = "script") -> tuple[str, tuple[str, ...]]:
    """A script (YAML) whose segments have times, and notes for its author; one that has them already is left alone.

    Raises the errors of `find_script`.
    """
    import yaml

    found = load_script(text, name)
    if not is_transcript(found):
        return text, ()
    sketch(text, name)
    timed, notes = find_script(clip, as_transcript(found, name))
    return yaml.safe_dump(timed, allow_unicode=True, sort_keys=False), notes


def as_transcript(found: dict[str, Any], name: str) -> dict[str, Any]:
    """A script's fields with a `transcript` where segments tell words without times. Raises OptionError."""
    check_fields(name, found, FIELDS | {"transcript"})
    if "transcript" in found:
        if "segments" in found:
            raise OptionError(f"{name}: expected either a transcript or segments, got both")
        return dict(found)
    lines = [str(item["text"]) for item in found["segments"]]
    rest = {key: value for key, value in found.items() if key != "segments"}
    return {"transcript": " ".join(f"[{line}]" if "{{" in line else line for line in lines), **rest}


def is_transcript(found: Mapping[str, Any]) -> bool:
    """Whether a script tells words without times."""
    segments = found.get("segments")
    listed = segments if isinstance(segments, list) else []
    return "transcript" in found or (bool(listed) and all(isinstance(s, dict) and set(s) == {"text"} for s in listed))


def sketch(text: str, name: str = "script") -> Script:
    """The script that a transcript will make, before anybody listens: its times mean nothing. Raises OptionError, SpeechError."""
    import yaml

    found = as_transcript(load_script(text, name), name)
    parts = parse_transcript(str(found.pop("transcript")))
    check_parts(parts)
    spoken(parts)
    words = " ".join(part.said for part in parts if part.said)
    whose, remedy = "the search for words in a clip understands", "give start and end of the segments instead"
    check_language(language_of(name, found), "en", words, whose, remedy)
    texts = [text_of(parts, number) for number in segments_of(parts)]
    segments = [{"start": k, "end": k + 1, "text": text} for k, text in enumerate(texts)]
    return parse_script(yaml.safe_dump({"segments": segments, **found}, allow_unicode=True), name)


def find_script(clip: Clip, found: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A script with times from one with a `transcript` instead, and notes for its author.

    Raises TranscriptError where the clip says something else, SpeechError for words without sounds or a silent clip.
    """
    from deployments.media.sound import read_sound
    from deployments.motion.alignment import align

    parts = parse_transcript(str(found["transcript"]))
    samples = read_sound(clip.path, RATE, origin=int(clip.pts[0]) * clip.time_base)
    told = align(samples, spoken(parts))
    heard = told.words
    check_heard(parts, heard)
    segments: list[dict[str, Any]] = []
    for number in segments_of(parts):
        places = [k for k, part in enumerate(parts) if part.segment == number]
        start, end = borders(samples, heard, places[0], places[-1], float(clip.duration))
        start = max(start, segments[-1]["end"]) if segments else start
        segments.append({"start": start, "end": end, "text": text_of(parts, number)})
    rest = {key: value for key, value in found.items() if key != "transcript"}
    return {"segments": segments, **rest}, doubts(parts, told)


def doubts(parts: Sequence[Part], heard: Heard) -> tuple[str, ...]:
    """What the author should look at."""
    pairs = zip(parts, heard.words, strict=True)
    weak = [f"{part.said!r} at {found.start:.2f} s" for part, found in pairs if part.said and found.score > WEAK]
    more = [f"{start:.1f}-{end:.1f} s" for start, end in heard.strange]
    notes = [f"heard badly: {', '.join(weak)}; look at the times of the slots"] if weak else []
    if more:
        notes.append(f"something else than the transcript is heard at {', '.join(more)}; write down every word that is said")
    return tuple(notes)


def segments_of(parts: Sequence[Part]) -> list[int]:
    """Numbers of the segments, in order."""
    return list(dict.fromkeys(part.segment for part in parts if part.segment is not None))


def text_of(parts: Sequence[Part], number: int) -> str:
    """What a script says in a segment."""
    return " ".join(part.written for part in parts if part.segment == number and part.written)


def check_parts(parts: Sequence[Part]) -> None:
    """Raise OptionError without a slot, or without words to find."""
    if all(part.segment is None for part in parts):
        raise OptionError("expected at least one slot like {{customer_name}} in the transcript, got none")
    if not any(part.said for part in parts):
        raise OptionError("expected the words around the slots too, got only slots; write down all that is said in the clip")
    for first, second in pairwise(parts):
        if first.segment != second.segment and None not in (first.segment, second.segment) and not (first.said and second.said):
            raise OptionError("expected words between two slots, or |said:... in both; else nobody knows where one ends")


def spoken(parts: Sequence[Part]) -> list[Word]:
    """The words with their sounds, as the voice would say them in a row. Raises SpeechError."""
    from deployments.audio.tts import check_text, sounds_of
    from deployments.motion.alignment import Word

    words: list[Word] = []
    for part in parts:
        if not part.said:
            words.append(Word(part.written))
            continue
        check_text(part.said)
        sounds = "".join(sounds_of(part.said))
        if not any(sign.isalpha() for sign in sounds):
            raise SpeechError(f"expected words that can be said, got {part.said!r} in the transcript; write it as it sounds")
        words.append(Word(part.said, sounds))
    return words


def check_heard(parts: Sequence[Part], heard: Sequence[Found]) -> None:
    """Raise TranscriptError where the words do not fit the sound."""
    known = [found for part, found in zip(parts, heard, strict=True) if part.said]
    score = score_of(known)
    if score > WORST:
        worst = max(known, key=lambda found: found.score * (found.end - found.start))
        raise TranscriptError(
            f"expected a transcript of what the clip says, got one that does not fit its sound ({score:.1f}, at most {WORST}; "
            f"worst is {worst.text!r} near {worst.start:.1f} s); write every word that is said, in order, or give start and end"
        )


def score_of(found: Sequence[Found]) -> float:
    """Nats a step by which known words lie below the best classes: 0 = nothing could fit better."""
    seconds = [one.end - one.start for one in found]
    return float(sum(one.score * length for one, length in zip(found, seconds, strict=True)) / sum(seconds))


def borders(samples: NDArray[np.float32], heard: Sequence[Found], first: int, last: int, duration: float) -> tuple[float, float]:
    """Start and end of a slot in seconds: the quietest moments at its first and after its last word."""
    from deployments.audio.pauses import quietest

    def reach(found: Found) -> float:
        return min(REACH, (found.end - found.start) / 3)

    begin, finish = heard[first], heard[last]
    low = heard[first - 1].end - reach(heard[first - 1]) if first else 0.0
    high = heard[last + 1].start + reach(heard[last + 1]) if last + 1 < len(heard) else duration
    start = quietest(samples, RATE, low, begin.start + reach(begin), max(low, begin.start - BESIDE))
    end = quietest(samples, RATE, finish.end - reach(finish), max(high, finish.end), min(high, finish.end + BESIDE))
    start = 0.0 if start < EDGE else start
    end = min(end, float(Fraction(int(duration * 1000), 1000)))
    return round(start, 3), round(end, 3)
