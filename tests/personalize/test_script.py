"""Scripts and their variables: what is taken, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.errors import InputError, OptionError, SpeechError
from serve_app.request import Piece
from serve_app.script import Value, check_voices, parse_script, parse_value, read_script

TWO = """
segments:
  - {start: 3.2, end: 6.0, text: "Hello {{customer_name}}, your trip to {{ destination }} is ready"}
  - {start: 8, end: 9.5, text: "See you, {{customer_name}}!"}
defaults: {destination: Paris}
"""


def said(script: str, **values: str) -> list[tuple[Piece, ...]]:
    given = {name: parse_value(name, words) for name, words in values.items()}
    return [source.pieces for source in parse_script(script).fill(given)]


def test_slots_are_filled_and_defaults_step_in() -> None:
    assert parse_script(TWO).slots() == ("customer_name", "destination")
    first, second = said(TWO, customer_name="John")
    assert first == (Piece("Hello John, your trip to Paris is ready"),) and second == (Piece("See you, John!"),)
    assert said(TWO, customer_name="José", destination="Rome")[0][0].text == "Hello José, your trip to Rome is ready"


def test_segments_are_as_written_not_as_binary_fractions() -> None:
    line = parse_script(TWO).lines[0]
    assert (line.segment.start * 10, line.segment.end) == (32, 6)


def test_a_pronunciation_stands_alone_and_a_value_may_bring_its_own() -> None:
    script = "segments: [{start: 0, end: 2, text: 'Hi {{name|ipa:ʃɪˈvɔːn}}, welcome'}]"
    assert said(script, name="Siobhan") == [(Piece("Hi "), Piece("Siobhan", "ʃɪˈvɔːn"), Piece(", welcome"))]
    assert said(script, name="Ann|ipa:æn")[0][1] == Piece("Ann", "æn")


def test_a_recording_takes_the_place_of_words(tmp_path: Path) -> None:
    (tmp_path / "john.wav").write_bytes(b"RIFF")
    value = parse_value("customer_name", "@john.wav", tmp_path)
    pieces = parse_script(TWO).fill({"customer_name": value})[0].pieces
    assert [piece.audio for piece in pieces] == [None, tmp_path / "john.wav", None]
    assert pieces[2].text == ", your trip to Paris is ready"


def test_strangers_name_no_files(tmp_path: Path) -> None:
    assert parse_value("customer_name", "@/etc/passwd") == Value("@/etc/passwd")
    with pytest.raises(InputError, match=r"john\.wav"):
        parse_value("customer_name", "@john.wav", tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "customer_name, got none; give it, or a default in the script"),
        ({"customer_name": "Ann", "destinaton": "Rome"}, "got destinaton"),
    ],
)
def test_missing_and_unknown_variables_are_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        said(TWO, **given)


@pytest.mark.parametrize("name", ["<break time='9s'/>", "{{destination}}", "[John](/dʒ/)", "John|prosody", "a\\b", "`x`"])
def test_markup_in_a_name_is_refused(name: str) -> None:
    with pytest.raises(SpeechError, match="markup"):
        said(TWO, customer_name=name)


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("John 😀", "John"),
        ("👩‍🚀 Ann-Marie", "Ann-Marie"),
        ("Jo\u202ehn", "John"),
        (" O'Brien \n Jr. ", "O'Brien Jr."),
        ("Zoe\u0308", "Zoë"),
    ],
)
def test_what_cannot_be_heard_is_left_out(name: str, heard: str) -> None:
    assert said(TWO, customer_name=name)[1][0].text == f"See you, {heard}!"


@pytest.mark.parametrize("name", ["😀", "", "  ", "!!", "\u200d"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SpeechError, match="something that can be said"):
        said(TWO, customer_name=name)


def test_a_name_as_long_as_a_page_is_refused() -> None:
    with pytest.raises(SpeechError, match="at most 200"):
        said(TWO, customer_name="ab" * 101)


@pytest.mark.parametrize("ipa", ["北京", "ʃ", "q", "", "a" * 300])
def test_sounds_that_no_voice_has_are_refused(ipa: str) -> None:
    with pytest.raises(SpeechError, match=r"IPA|sounds"):
        parse_value("name", f"Name|ipa:{ipa}")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "segments"),
        ("segments: []", "segments"),
        ("segments: [{start: 0, end: 1}]", "no text"),
        ("segments: [{start: 0, end: 1, text: hi, voize: x}]", "voize"),
        ("segments: [{start: zero, end: 1, text: hi}]", "seconds"),
        ("segments: [{start: 0, end: 1, text: 'Hello {{first name}}'}]", "slots like"),
        ("segments: [{start: 0, end: 1, text: 'Hello {{name'}]", "slots like"),
        ("segments: [{start: 0, end: 1, text: 'Hello <b>{{name}}</b>'}]", "markup"),
        ("segments: [{start: 0, end: 1, text: '{{name|ipa:?}}'}]", "IPA"),
        ("segments: [{start: 0, end: 1, text: '{{name}}'}]\ndefaults: {nam: x}", "nam"),
        ("segments: [{start: 0, end: 1, text: '{{name}}'}\n]]", "YAML"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_script_that_cannot_be_used_says_where(script: str, words: str) -> None:
    with pytest.raises((OptionError, SpeechError), match=words):
        parse_script(script, "script.yaml")


@pytest.mark.parametrize("words", ["Привет, {{name}}", "{{name}} 你好", "مرحبا {{name}}"])
def test_a_script_that_the_voice_cannot_read_is_refused_though_every_name_could_be_said(words: str) -> None:
    script = parse_script(f'segments: [{{start: 0, end: 1, text: "Hi {{{{name}}}}"}}, {{start: 2, end: 3, text: "{words}"}}]')
    with pytest.raises(SpeechError, match=r"script, segment 2: expected text in Latin letters"):
        check_voices(script)
    check_voices(
        parse_script('segments: [{start: 0, end: 1, text: "{{name}}!"}, {start: 2, end: 3, text: "See you, {{name}}."}]')
    )


def test_a_script_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_bytes("segments: é".encode("latin-1"))
    with pytest.raises(OptionError, match="UTF-8"):
        read_script(path)
