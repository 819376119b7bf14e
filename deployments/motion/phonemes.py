"""25 articulatory classes, and how the phoneme alphabets of the voices fall into them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "sil", "p", "f", "th", "t", "l", "s", "sh", "k", "r", "w", "j", "h",
    "i", "ih", "e", "ae", "a", "uh", "er", "o_open", "o", "u_short", "u", "y",
)  # fmt: skip
SILENCE = CLASSES.index("sil")
BILABIAL = CLASSES.index("p")

_MEMBERS = {
    "p": "pbmɓʙ",
    "f": "fvɱʋβɸ",
    "th": "θð",
    "t": "tdnɾTʈɖɳ",
    "l": "lɫɭʎɬ",
    "s": "szʦʣ",
    "sh": "ʃʒʧʤɕʑʂʐʨʥ",
    "k": "kɡgŋxɣqχʁcɟɲʔʀ",
    "r": "ɹrɻ",
    "w": "wʍɥ",
    "j": "jʝ",
    "h": "hɦħ",
    "i": "i",
    "ih": "ɪᵻɨ",
    "e": "eɛ",
    "ae": "æ",
    "a": "aɑɐ",
    "uh": "ʌəᵊɘɤ",
    "er": "ɜɚɝ",
    "o_open": "ɔɒ",
    "o": "oɵ",
    "u_short": "ʊ",
    "u": "uʉɯ",
    "y": "yʏøœ",
}
_CLASS_OF = {symbol: CLASSES.index(name) for name, symbols in _MEMBERS.items() for symbol in symbols}
# Diphthong letters of the misaki alphabet: (first vowel, second vowel).
DIPHTHONGS = {"A": "eɪ", "I": "aɪ", "W": "aʊ", "O": "oʊ", "Q": "əʊ", "Y": "ɔɪ"}
FIRST_SHARE = 0.6


def classes_of(symbol: str) -> list[int]:
    """Articulatory classes of one phoneme symbol (IPA or misaki), in order: two for a diphthong, empty if unknown."""
    if symbol in ("", "_", " "):
        return [SILENCE]
    letters = DIPHTHONGS.get(symbol, symbol)
    found = [_CLASS_OF[letter] for letter in letters if letter in _CLASS_OF]
    # An affricate (t + sh) closes and opens within one gesture: its lips are those of the second part.
    if len(found) == 2 and found == [CLASSES.index("t"), CLASSES.index("sh")]:
        found = found[1:]
    return found[:2]


def frame_classes(phonemes: tuple[tuple[str, float, float], ...], frames: int, frame_seconds: float = 0.02) -> NDArray[np.int64]:
    """Class [frames] of each frame, centred on (k + 0.5) * frame_seconds; silence where no phoneme is."""
    labels = np.full(frames, SILENCE, np.int64)
    for symbol, start, end in phonemes:
        parts = classes_of(symbol)
        if not parts:
            continue
        middle = start + (end - start) * (FIRST_SHARE if len(parts) == 2 else 1.0)
        for part, (low, high) in zip(parts, ((start, middle), (middle, end)), strict=False):
            first = max(0, int(np.ceil(low / frame_seconds - 0.5)))
            last = max(0, int(np.ceil(high / frame_seconds - 0.5)))
            labels[first:last] = part
    return labels
