"""A script in a language that the voice does not speak is refused; an English one with any names never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.audio.language import other_language
from deployments.errors import OptionError, SpeechError
from serve_app.script import check_voices, parse_script
from serve_app.transcript import sketch

ENGLISH = Path(__file__).with_name("english.txt").read_text(encoding="utf-8").splitlines()
GERMAN = "Hallo {{customer_name}}, deine Reise nach {{destination}} ist bereit"


def script(text: str, **fields: str) -> str:
    """YAML of one line."""
    more = "".join(f"{key}: {value}\n" for key, value in fields.items())
    return f'segments:\n  - {{start: 0, end: 2, text: "{text}"}}\n{more}'


def test_english_with_names_of_all_the_world_is_english() -> None:
    assert len(ENGLISH) > 200
    assert [words for words in ENGLISH if other_language(words)] == []
    assert other_language(" ".join(ENGLISH)) == ""


@pytest.mark.parametrize(
    ("words", "language"),
    [
        (GERMAN, "German"),
        ("Bonjour {{customer_name}}, votre voyage à {{destination}} est prêt", "French"),
        ("Gracias por su compra {{customer_name}}, llega mañana", "Spanish"),
        ("Il suo appuntamento a {{destination}} è lunedì alle nove", "Italian"),
        ("Dzień dobry {{customer_name}}, twoja podróż do {{destination}} jest gotowa", "Polish"),
    ],
)
def test_another_language_in_latin_letters_is_refused_by_its_name(words: str, language: str) -> None:
    with pytest.raises(SpeechError, match=f"expected English, which the voice 'default' speaks, got {language}: .*language: en"):
        check_voices(parse_script(script(words)))


def test_words_that_are_too_few_to_be_sure_are_taken() -> None:
    check_voices(parse_script(script("Guten Tag, {{customer_name}}")))


def test_the_author_has_the_last_word() -> None:
    check_voices(parse_script(script(GERMAN, language="en")))
    with pytest.raises(SpeechError, match="expected words in 'en-us', which the voice 'default' speaks, got language: de;"):
        check_voices(parse_script(script("Hello {{customer_name}}", language="de")))
    with pytest.raises(OptionError, match="expected a `language:` like en"):
        parse_script(script("Hello {{customer_name}}", language="no"))


def test_a_transcript_in_another_language_is_refused_before_anybody_listens() -> None:
    told = "transcript: Guten Morgen, wir freuen uns sehr. Hallo {{customer_name|said:Freund}}, deine Reise ist bereit."
    with pytest.raises(SpeechError, match=r"the search for words in a clip understands, got German: .*give start and end"):
        sketch(told)
