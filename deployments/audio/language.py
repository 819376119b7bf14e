"""Whether words are surely of another language than English. Two witnesses must agree: the voice's dictionary and a model of
letters (py3langid, BSD-3). A wrong refusal is much worse than a miss, so names, lists and short texts are never judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
FEWEST_WORDS = 5
FEWEST_SMALL = 3  # words without a capital: with one it may be a name
MOST_KNOWN = 0.5  # share of these that the dictionary has: English ones nearly all, of other languages a few by chance
DOUBT = 0.001  # share of English that the model may see
ENGLISH = ("en", "pcm")  # to the model, a short English sentence is now and then Pidgin
ENDINGS = (("'s", ""), ("s", ""), ("es", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ies", "y"))
NAMES = {
    "cs": "Czech", "da": "Danish", "de": "German", "es": "Spanish", "fi": "Finnish", "fr": "French", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "sv": "Swedish", "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip


def other_language(text: str) -> str:
    """The language of a text that is surely not English; else nothing."""
    words = WORD.findall(text)
    small = [word for word in words if word[0].islower()]
    if len(words) < FEWEST_WORDS or len(small) < FEWEST_SMALL or share_known(small) > MOST_KNOWN:
        return ""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # not kept: it is 70 MB, scripts are written seldom, and English ones do not come here
    shares = dict(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank(text))
    first = max(shares, key=lambda code: shares[code])
    if first in ENGLISH or sum(shares[code] for code in ENGLISH) >= DOUBT:
        return ""
    return NAMES.get(first, f"the language {first!r}")


def share_known(words: Sequence[str]) -> float:
    """How many of the words the English dictionary has."""
    from deployments.audio.tts import dictionary

    known = dictionary()
    return sum(in_dictionary(word.lower().replace("’", "'"), known) for word in words) / len(words)


def in_dictionary(word: str, known: Collection[str]) -> bool:
    """Whether a word is there, or what it is derived from."""
    stems = (word.removesuffix(end) + back for end, back in ENDINGS if word.endswith(end) and len(word) - len(end) > 2)
    return word in known or any(stem in known for stem in stems)
