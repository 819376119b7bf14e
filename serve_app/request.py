"""What a caller asks for, checked before work starts."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from deployments.contracts import Segment
from deployments.errors import InputError, OptionError, OutputError
from deployments.portrait.controls import split_emotion
from serve_app.planner import SyncMode

Quality = Literal["high", "lossless", "small"]
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".m4v")
SLOT_MODES = ("silence", "cut_off", "bounce", "remap")  # speech too long for a slot is refused, ends with it, or makes it longer
FREE_FACTOR = 3  # chunks, the joined file, and air


@dataclass(frozen=True)
class Piece:
    """A part of what is said in a slot: words, words whose sounds `ipa` tells, or a recording of them."""

    text: str = ""
    ipa: str = ""
    audio: Path | None = None


@dataclass(frozen=True)
class SpeechSource:
    """New speech for the whole clip (no segment) or for a part of it: one of a sound file, a text, and pieces.

    Pieces are said one after the other, and fitted to their segment and to the clip's own sound around it.
    """

    audio: Path | None = None
    text: str | None = None
    segment: Segment | None = None
    voice: str | Path | None = None  # of this text; None: the request's
    pieces: tuple[Piece, ...] = ()

    def files(self) -> list[Path]:
        """Recordings that are read."""
        return [path for path in (self.audio, *(piece.audio for piece in self.pieces)) if path is not None]


@dataclass(frozen=True)
class SyncRequest:
    """One job."""

    clip: Path
    speech: tuple[SpeechSource, ...]
    out: Path
    engine: str = "video_rewrite"
    sync_mode: SyncMode = "silence"
    chunks: int | None = None
    face: str = "largest"
    quality: Quality = "high"
    expression: float = 1.0
    report: Path | None = None  # folder of the quality report; None: no report
    voice: str | Path = "default"  # a name that the operator lists, or a file of the caller's own
    options: dict[str, float] = field(default_factory=dict)  # what only this engine knows
    edges: tuple[int, ...] = ()  # where an earlier try of the same job was cut into chunks


def segment(start: float | str | Fraction, end: float | str | Fraction) -> Segment:
    """Segment from seconds. Raises OptionError."""
    try:
        return Segment(exact(start), exact(end))
    except (ValueError, ZeroDivisionError):
        raise OptionError(f"expected a segment in seconds like 1.5-4, got {start!r}-{end!r}") from None


def read_voice(words: str) -> str | Path:
    """A voice as the command line has it: a name, or the path of an ONNX file."""
    file = words.partition("#")[0]  # a speaker may follow
    return Path(words).expanduser() if file.endswith(".onnx") or "/" in file else words


def read_choices(pose: str | None, gaze: str | None, given: Sequence[str], emotion: str = "neutral") -> dict[str, float]:
    """Options of an engine from a pose "YAW,PITCH,ROLL", a gaze "X,Y", words "NAME=VALUE" and an emotion "happy:0.5".

    Raises OptionError.
    """
    pairs = [*read_numbers("pose", pose, ("yaw", "pitch", "roll")), *read_numbers("gaze", gaze, ("gaze_x", "gaze_y"))]
    name, strength = split_emotion(emotion)
    pairs += [(name, strength)] if name != "neutral" else []
    for words in given:
        name, equals, value = words.partition("=")
        if not equals or not name.strip():
            raise OptionError(f"expected an option NAME=VALUE as in yaw=5, got {words[:60]!r}")
        pairs += read_numbers(f"option {name.strip()[:40]}", value, (name.strip(),))
    found: dict[str, float] = {}
    for name, number in pairs:
        if name in found:
            raise OptionError(f"expected each option once, got {name[:40]} twice; leave one of them out")
        found[name] = number
    return found


def read_numbers(what: str, words: str | None, names: tuple[str, ...]) -> list[tuple[str, float]]:
    """Finite numbers between commas, by name; none of none. Raises OptionError."""
    if words is None:
        return []
    try:
        numbers = [float(part) for part in words.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(names) or not all(math.isfinite(number) for number in numbers):
        raise OptionError(
            f"expected {what} as {len(names)} number{'s' * (len(names) > 1)} ({', '.join(names)}), got {words[:60]!r}"
        )
    return list(zip(names, numbers, strict=True))


def exact(seconds: float | str | Fraction) -> Fraction:
    """Seconds as written: 0.1 means one tenth, not the nearest binary fraction."""
    return seconds if isinstance(seconds, Fraction) else Fraction(str(seconds))


def check_request(request: SyncRequest) -> None:
    """Refuse what cannot work before any work. Raises InputError, OptionError or OutputError."""
    check_input(request.clip, "video")
    if not request.speech:
        raise OptionError("expected new speech, got none; give --audio FILE or --text WORDS")
    for source in request.speech:
        if sum([source.audio is not None, source.text is not None, bool(source.pieces)]) != 1:
            raise OptionError("expected either a sound file or a text, got both or none")
        if source.pieces and source.segment is None:
            raise OptionError("expected a segment for what is said in pieces; give start and end")
        for path in source.files():
            check_input(path, "sound")
    if len(request.speech) > 1 and any(source.segment is None for source in request.speech):
        raise OptionError("expected a segment with every speech when there are several; give start and end")
    if not 0 <= request.expression <= 2:
        raise OptionError(f"expected an expression of 0 to 2, got {request.expression:g}")
    check_options(request.engine, request.options)
    if any(source.pieces for source in request.speech):
        check_slot_mode(request.sync_mode)
    inputs = [request.clip, *(path for source in request.speech for path in source.files())]
    check_output(request.out, inputs)


def check_options(engine: str, options: Mapping[str, float]) -> None:
    """Raise OptionError for options that the engine does not know, or numbers that it cannot take."""
    if not options:
        return
    from deployments.engines.registry import get_engine

    limits = get_engine(engine).limits()
    for name, value in options.items():
        if name not in limits.options:
            raise OptionError(f"expected an option of {', '.join(sorted(limits.options))} with {engine}, got {name[:40]!r}")
        low, high = limits.bounds.get(name, (-math.inf, math.inf))
        if not low <= value <= high:
            raise OptionError(f"expected {name} of {low:g} to {high:g}, got {value:g}; 0 is as filmed")


def check_slot_mode(mode: str) -> None:
    """Raise OptionError for a mode that means nothing for a part of a clip."""
    if mode not in SLOT_MODES:
        raise OptionError(
            f"expected a sync mode of {' or '.join(SLOT_MODES)} for slots, got {mode}: it begins the clip anew; "
            "bounce makes room by playing the slot's pictures back and forth, remap by playing them slower"
        )


def check_input(path: Path, kind: str) -> None:
    """Raise InputError unless `path` is a file that can be read and is not empty."""
    if not path.is_file():
        raise InputError(f"expected a {kind} file at {path}, got {'a folder' if path.is_dir() else 'nothing'}; check the path")
    if not os.access(path, os.R_OK):
        raise InputError(f"expected a readable {kind} file, got no permission for {path}")
    if path.stat().st_size == 0:
        raise InputError(f"expected a {kind} file, got an empty file at {path}")


def check_output(out: Path, inputs: list[Path], suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> None:
    """Raise OptionError or OutputError unless `out` is a new place that can be written and has room."""
    if out.suffix.lower() not in suffixes:
        raise OptionError(f"expected an output that ends in {', '.join(suffixes)}; got {out.name!r}")
    if out.is_dir():
        raise OutputError(f"expected a file name, got the folder {out}; add a name")
    if any(out.exists() and out.samefile(path) for path in inputs):
        raise OutputError(f"expected an output beside the inputs, got the input itself: {out}; choose another name")
    folder = out.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"expected an existing folder, got {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"expected a writable folder, got {folder}; choose another place")
    check_room(folder, FREE_FACTOR * inputs[0].stat().st_size)


def check_room(folder: Path, wanted: int) -> None:
    """Raise OutputError unless the disk of an existing folder has `wanted` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise OutputError(f"expected {wanted >> 20} MiB free at {folder}, got {free >> 20} MiB; free some space")
