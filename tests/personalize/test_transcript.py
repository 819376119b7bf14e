"""Slots marked in what a clip says: found in its sound, cut in its pauses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployments.audio import tts
from deployments.contracts import Clip
from deployments.errors import LipSyncError, OptionError, SpeechError
from deployments.media.probe import probe
from serve_app.cli import app
from serve_app.script import parse_script
from serve_app.templates import Templates
from serve_app.transcript import TranscriptError, parse_transcript, with_times

SAYS = "Good morning everybody. Hello John, your trip to Paris is ready. See you soon."  # the clip `spoken`
WHOLE = "Good morning everybody. [Hello {{name|said:John}}, your trip to {{place|said:Paris}} is ready.] See you soon."
Times = list[tuple[str, float, float]]


@pytest.fixture(scope="module")
def times() -> Times:
    """Words of `SAYS` with the voice's own times."""
    found, place = [], 0
    timed = [p for p in tts.speak(SAYS)[1] if p[0] != "_"]
    for word, sounds in zip(SAYS.split(), " ".join(tts.sounds_of(SAYS)).split(), strict=True):
        count = sum((sign.isalpha() or sign == "ᵊ") and sign not in tts.STRESS for sign in sounds)
        found.append((word.strip(".,"), timed[place][1], timed[place + count - 1][2]))
        place += count
    return found


@pytest.fixture(scope="module")
def clip(spoken: Path) -> Clip:
    return probe(spoken)


def script_of(clip: Clip, transcript: str) -> list[tuple[float, float, str]]:
    text, _ = with_times(clip, yaml.safe_dump({"transcript": transcript}))
    return [(float(line.segment.start), float(line.segment.end), line.text) for line in parse_script(text).lines]


def test_what_stands_in_brackets_is_one_segment_from_its_first_word_to_its_last(clip: Clip, times: Times) -> None:
    ((start, end, text),) = script_of(clip, WHOLE)
    assert text == "Hello {{name}}, your trip to {{place}} is ready."
    assert times[2][2] - 0.03 < start < times[3][1] + 0.03, "between everybody and Hello"
    assert times[10][2] - 0.03 < end < times[11][1] + 0.03, "between ready and See"


@pytest.mark.parametrize("slot", ["{{name|said:John}}", "{{name}}"])
def test_a_slot_alone_lies_between_its_neighbours_whether_its_words_are_told_or_not(clip: Clip, times: Times, slot: str) -> None:
    ((start, end, text),) = script_of(clip, SAYS.replace("John", slot))
    assert text == "{{name}}"
    assert abs(start - times[4][1]) < 0.08 and abs(end - times[4][2]) < 0.08


def test_slots_at_the_very_start_and_end(clip: Clip, times: Times) -> None:
    first, last = script_of(clip, SAYS.replace("Good", "{{part|said:Good}}").replace("soon", "{{when|said:soon}}"))
    assert first[0] <= times[0][1] + 0.02 and abs(first[1] - times[0][2]) < 0.08
    assert abs(last[0] - times[-1][1]) < 0.08 and times[-1][2] - 0.05 < last[1] <= float(clip.duration)


def test_segments_without_times_say_the_same_as_brackets(clip: Clip) -> None:
    parts = ["Good morning everybody.", WHOLE[WHOLE.index("[") + 1 : WHOLE.index("]")], "See you soon."]
    text, _ = with_times(clip, yaml.safe_dump({"segments": [{"text": part} for part in parts], "defaults": {"place": "Rome"}}))
    script = parse_script(text)
    ((start, end, words),) = script_of(clip, WHOLE)
    assert [(float(line.segment.start), float(line.segment.end), line.text) for line in script.lines] == [(start, end, words)]
    assert script.defaults["place"].text == "Rome"


def test_a_script_with_times_is_left_as_it_is(clip: Clip) -> None:
    text = 'segments: [{start: 1, end: 2, text: "{{name}}"}]'
    assert with_times(clip, text) == (text, ())


@pytest.mark.parametrize(
    ("transcript", "error", "words"),
    [
        ("My brother painted {{what|said:five}} fresh loaves of bread by the river.", TranscriptError, "does not fit its sound"),
        (SAYS, OptionError, "at least one slot"),
        ("{{all}}", OptionError, "around the slots"),
        ("Hello {{a}} [{{b}} is] ready", OptionError, "between two slots"),
        ("Hello [{{a}} is ready", OptionError, "expected ]"),
        ("Hello [] {{a}}", OptionError, "between"),
        ("Hello ]{{a}}", OptionError, "in turn"),
        ("Hello {{a}", OptionError, "lone"),
        ("{{a}}" + "word " * 5000, OptionError, "at most 20000 letters"),
        ("Good morning {{name|said:Иван}} everybody", SpeechError, "Latin"),
        (SAYS.replace("John", "{{name|size:3}}"), OptionError, "customer_name"),
        (SAYS.replace("John", "{{name}}") + SAYS * 9, SpeechError, "more than is said"),
    ],
)
def test_a_transcript_that_cannot_be_used_says_why(clip: Clip, transcript: str, error: type[LipSyncError], words: str) -> None:
    with pytest.raises(error, match=words):
        script_of(clip, transcript)


def test_glued_letters_and_signs_stay_with_their_slot() -> None:
    parts = parse_transcript("This is {{name|said:John}}'s trip to {{place|said:New York}}, {{country}}!")
    assert [(part.said, part.written, part.segment) for part in parts] == [
        ("This", "This", None),
        ("is", "is", None),
        ("John's", "{{name}}'s", 0),
        ("trip", "trip", None),
        ("to", "to", None),
        ("New", "", 1),
        ("York", "{{place}}", 1),
        ("", "{{country}}", 1),
    ]


def test_the_command_marks_slots_in_words_and_shows_when_they_are(
    clip: Clip, times: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    told = ["template", "create", str(clip.path), "--name", "trip", "--engine", "fake", "--workers", "1", "-q"]
    made = CliRunner().invoke(app, [*told, "--auto", "--transcript", WHOLE])
    assert made.exit_code == 0, made.output
    ((start, end, _),) = script_of(clip, WHOLE)
    assert f"{start:g}-{end:g} s  Hello {{{{name}}}}, your trip to {{{{place}}}} is ready." in made.output
    kept = Templates(tmp_path).open("trip").script
    assert float(kept.lines[0].segment.start) == start


def test_the_command_wants_one_way_of_telling(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    timed = tmp_path / "timed.yaml"
    timed.write_text('segments: [{start: 1, end: 2, text: "{{name}}"}]')
    for more in ([], [str(timed), "--transcript", WHOLE], [str(timed), "--auto"]):
        asked = CliRunner().invoke(app, ["template", "create", str(clip.path), *more, "--name", "x"])
        assert asked.exit_code == 2 and "expected" in asked.output and not list(Templates(tmp_path))


def test_a_sentence_that_is_missing_from_the_transcript_is_noted(clip: Clip) -> None:
    _, notes = with_times(clip, yaml.safe_dump({"transcript": "Good morning everybody. Hello {{name|said:John}}. See you soon."}))
    assert any("something else than the transcript is heard" in note for note in notes)
    assert with_times(clip, yaml.safe_dump({"transcript": WHOLE}))[1] == ()
