"""The JSON file beside a voice: its alphabet as numbers, its sample rate, how it likes to be run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deployments.errors import SpeechError

START, END, BETWEEN = "^", "$", "_"
LARGEST_JSON = 1 << 20  # bytes
MOST_SYMBOLS = 4096
RATES = range(8000, 48001)


@dataclass(frozen=True)
class Settings:
    """What the JSON file tells."""

    rate: int
    language: str
    letters: bool  # the model reads letters, not sounds
    ids: dict[str, tuple[int, ...]]
    replaced: dict[str, tuple[str, ...]]
    scales: tuple[float, float, float]
    speakers: int
    named: dict[str, int]


def read_settings(path: Path) -> Settings:
    """The JSON file of a voice. Raises SpeechError that names the field."""
    if path.stat().st_size > LARGEST_JSON:
        raise SpeechError(f"expected a JSON file of at most {LARGEST_JSON >> 20} MiB, got {path.name}; is it the voice's own?")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        inference = told.get("inference", {})
        number = partial(one_number, path.name)
        settings = Settings(
            rate=int(told["audio"]["sample_rate"]),
            language=str(told.get("espeak", {}).get("voice", "")),
            letters=told.get("phoneme_type", "espeak") == "text",
            ids={str(sign): tuple(map(int, ids)) for sign, ids in told["phoneme_id_map"].items()},
            replaced={str(sign): tuple(map(str, to)) for sign, to in told.get("phoneme_map", {}).items()},
            scales=(
                number(inference.get("noise_scale", 0.667), 0, 3),
                number(inference.get("length_scale", 1.0), 0.1, 10),
                number(inference.get("noise_w", 0.8), 0, 3),
            ),
            speakers=int(told.get("num_speakers", 1)),
            named={str(name): int(k) for name, k in told.get("speaker_id_map", {}).items()},
        )
        kind, symbols = told.get("phoneme_type", "espeak"), int(told.get("num_symbols", 256))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise SpeechError(f"{path.name}: expected a Piper voice's settings, got: {type(error).__name__} {error}") from error
    check_settings(path.name, settings, kind, symbols)
    return settings


def one_number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number between two others. Raises SpeechError."""
    found = float(value)
    if not (math.isfinite(found) and low <= found <= high):
        raise SpeechError(f"{name}: expected numbers of {low:g} to {high:g} in inference, got {found:g}")
    return found


def check_settings(name: str, settings: Settings, kind: Any, symbols: int) -> None:
    """Raise SpeechError for settings that no voice has."""
    if kind not in ("espeak", "text"):
        raise SpeechError(f"{name}: expected a voice of phoneme_type espeak or text, got {str(kind)[:40]!r}; take another voice")
    if settings.rate not in RATES:
        raise SpeechError(f"{name}: expected a sample rate of {RATES[0]} to {RATES[-1]} Hz, got {settings.rate}")
    if not (0 < symbols <= MOST_SYMBOLS and 0 < len(settings.ids) <= MOST_SYMBOLS and settings.speakers >= 1):
        raise SpeechError(f"{name}: expected 1 to {MOST_SYMBOLS} symbols and a speaker, got {symbols}, {settings.speakers}")
    missing = [sign for sign in (START, END, BETWEEN) if not settings.ids.get(sign)]
    if missing or any(not 0 <= i < symbols for ids in settings.ids.values() for i in ids):
        raise SpeechError(f"{name}: expected a phoneme_id_map with ^ $ _ and numbers below {symbols}, got another")
