"""Voices in Piper's format: what they are asked to say, what is refused of files that strangers made."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.audio.sounds import as_espeak, by_program, sounds_of
from deployments.audio.voice import Words, voice_files, voice_named
from deployments.contracts import Speech
from deployments.errors import SpeechError

_SPEC = importlib.util.spec_from_file_location("voice_kit", Path(__file__).parent / "voice_kit.py")
kit = sys.modules.setdefault("voice_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "write_voice"):
    _SPEC.loader.exec_module(kit)
ESPEAK = shutil.which("espeak-ng")


def heard(speech: Speech, speaker: int = 0) -> str:
    """The signs that the tones stand for, one per slice; blanks left out."""
    size = kit.SAMPLES
    slices = speech.samples[: len(speech.samples) // size * size].reshape(-1, size)
    found = ""
    for part in slices:
        if np.abs(part).max() < 0.2:
            continue
        power = np.abs(np.fft.rfft(part * np.hanning(size), 1 << 16))
        hertz = float(power.argmax()) * kit.RATE / (1 << 16)
        found += min(kit.SIGNS[4:], key=lambda sign: abs(kit.hertz_of(sign, speaker) - hertz))
    return found


def test_a_voice_says_the_sounds_of_the_words_in_order(tmp_path: Path) -> None:
    voice = voice_named(kit.write_voice(tmp_path))
    speech = voice.say([Words("Hello John, see you soon!")], 1.0)
    assert heard(speech) == "həlˈoʊdʒˈɑːn,sˈiːjuːsˈuːn!"
    assert speech.rate == kit.RATE and speech.phonemes == () and float(np.abs(speech.samples).max()) == pytest.approx(0.9)
    ids = voice.ids_of([Words("See.")])
    assert ids == [[1, 0, *(i for sign in "sˈiː." for i in (kit.SIGNS.index(sign), 0)), 2]], "start, pads between, end"


def test_the_same_words_sound_the_same_at_every_call_and_speed_changes_their_length(tmp_path: Path) -> None:
    voice = voice_named(kit.write_voice(tmp_path))
    first, again, fast = (voice.say([Words("Good morning.")], speed) for speed in (1.0, 1.0, 1.25))
    assert (first.samples == again.samples).all() and first.samples.std() > 0
    hiss = first.samples[: kit.SAMPLES]
    assert 0 < np.abs(hiss).max() < 0.1, "the noise of the graph is there, and came out equal"
    assert len(first.samples) / len(fast.samples) == pytest.approx(1.25)


def test_given_sounds_go_into_the_sentence_as_they_are(tmp_path: Path) -> None:
    voice = voice_named(kit.write_voice(tmp_path))
    said = heard(voice.say([Words("Hello "), Words("Siobhan", "/ʃɪ'vɔ:n/"), Words(", see you.")], 1.0))
    assert said == "həlˈoʊʃɪˈvɔːn,sˈiːjuː."
    for ipa in ("ʃ🙂", "ˈˈ", "北", "a" * 300):
        with pytest.raises(SpeechError, match="expected"):
            voice.check([Words("Name", ipa)])


def test_english_sounds_are_written_as_espeak_writes_them() -> None:
    wanted = {
        "The bird heard the word.": "ðə bˈɜːd hˈɜːd ðə wˈɜːd.",
        "Choice, water, judge": "tʃˈɔɪs, wˈɔːɾɚ, dʒˈʌdʒ",
        "furry mirror": "fˈɜːɹi mˈɪɹɚ",
        "happy children": "hˈæpi tʃˈɪldɹən",
    }
    assert {text: " ".join(sounds_of(text, "en-us")) for text in wanted} == wanted
    assert as_espeak("ˈA ˈI ˈO ˈW") == "ˈeɪ ˈaɪ ˈoʊ ˈaʊ"


@pytest.mark.skipif(ESPEAK is None, reason="needs the program espeak-ng")
def test_other_languages_are_read_by_espeak_with_their_punctuation(tmp_path: Path) -> None:
    assert sounds_of("Guten Morgen! Nach 3.5 Tagen, ja…", "de")[0] == "ɡˈuːtən mˈɔɾɡən!"
    assert len(sounds_of("Guten Morgen! Nach 3.5 Tagen, ja…", "de")) == 2
    assert "wˈɜːld" in sounds_of("Привет world.", "ru")[0] and "(" not in sounds_of("Привет world.", "ru")[0]
    trap = tmp_path / "trap"
    assert sounds_of(f"$(touch {trap}); touch {trap} --version `touch {trap}`", "de") and not trap.exists()
    with pytest.raises(SpeechError, match="language"):
        by_program(str(ESPEAK), "ja", "--version")
    with pytest.raises(SpeechError, match="xx-none"):
        sounds_of("ja", "xx-none")
    german = voice_named(kit.write_voice(tmp_path, espeak={"voice": "de"}))
    assert heard(german.say([Words("Mann, da!")], 1.0)) == "mˈan,dˈɑː!"
    with pytest.raises(SpeechError, match="letters"):
        german.check([Words("שלום")])


def test_without_espeak_both_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    voice = voice_named(kit.write_voice(tmp_path, espeak={"voice": "de"}))
    with pytest.raises(SpeechError, match=r"espeak-ng.*ipa:"):
        voice.check([Words("Guten Tag")])
    assert heard(voice.say([Words("Tag", "tˈɑːk")], 1.0)) == "tˈɑːk"


def test_a_voice_that_reads_letters_needs_no_sounds(tmp_path: Path) -> None:
    voice = voice_named(kit.write_voice(tmp_path, phoneme_type="text", espeak={}))
    assert heard(voice.say([Words("Hello, Ann.")], 1.0)) == "hello,ann."
    for words in (Words("Привет"), Words("Ann", "æn")):
        with pytest.raises(SpeechError, match="letters"):
            voice.check([words])


def test_one_of_many_speakers_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = kit.write_voice(tmp_path, num_speakers=2, speaker_id_map={"ann": 0, "bob": 1})
    said = {name: voice_named(Path(f"{path}{name}")).say([Words("Hello.")], 1.0) for name in ("", "#ann", "#bob", "#1")}
    assert (said[""].samples == said["#ann"].samples).all() and (said["#bob"].samples == said["#1"].samples).all()
    assert heard(said["#ann"]) == heard(said["#bob"], 1) == "həlˈoʊ."
    for name in ("#carl", "#2", "#-1"):
        with pytest.raises(SpeechError, match="speaker of ann, bob"):
            voice_named(Path(f"{path}{name}"))


@pytest.mark.parametrize("text", ["", "  ", "...", "🙂", "a" * 20001, "שלום"])
def test_what_cannot_be_said_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpeechError, match="expected"):
        voice_named(kit.write_voice(tmp_path)).check([Words(text)])


def test_only_listed_voices_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_VOICES", str(tmp_path / "listed"))
    kit.write_voice(tmp_path / "listed", "anna")
    kit.write_voice(tmp_path / "listed", "default")
    secret = kit.write_voice(tmp_path, "secret")
    assert list(voice_files()) == ["anna"] and voice_named("anna").say([Words("Hello.")], 1.0).rate == kit.RATE
    assert voice_named("default").say([Words("Hello.")], 1.0).rate == 24000, "nobody takes the embedded voice's name"
    for name in (str(secret), "../secret", "secret", "", "anna.onnx", "anna/../../secret", "*"):
        with pytest.raises(SpeechError, match="expected a voice of default, anna"):
            voice_named(name)


EXTERNAL = kit.field(13, kit.field(1, "location") + kit.field(2, "../../etc/passwd")) + kit.field(14, 1)
MODELS: dict[str, Any] = {
    "weights lie in another": kit.model(tensor_extra=EXTERNAL),
    "another; export": kit.model(tensor_extra=kit.field(14, 1)),
    "standard ONNX operators": kit.model(domain="com.example"),
    "opset 9 to 23, got 7": kit.model(opset=7),
    "opset 9 to 23, got 99": kit.model(opset=99),
    "opset 9 to 23, got none": b"",
    "inputs input,": kit.model(inputs="ids_"),
    "inputs input, input_lengths, scales of": kit.model(speakers=2),
    "cut off": kit.model()[:-3],
    "something else": b"\x00\x01\x02PK\x03\x04 not a model",
    "does not load": kit.model().replace(b"Reshape", b"Reshapo"),
}


@pytest.mark.parametrize("words", MODELS)
def test_files_that_are_no_voice_are_refused_before_they_run(tmp_path: Path, words: str) -> None:
    with pytest.raises(SpeechError, match=words):
        voice_named(kit.write_voice(tmp_path, data=MODELS[words]))


def test_weights_in_another_file_are_found_inside_of_branches_too(tmp_path: Path) -> None:
    inner = kit.field(
        1, kit.field(4, "Constant") + kit.field(5, kit.field(1, "value") + kit.field(5, kit.tensor("t", [1], 7, EXTERNAL)))
    )
    branch = kit.field(1, kit.field(4, "If") + kit.field(5, kit.field(1, "then_branch") + kit.field(6, inner)))
    with pytest.raises(SpeechError, match="weights lie in another"):
        voice_named(kit.write_voice(tmp_path, data=kit.model() + kit.field(7, branch)))


@pytest.mark.parametrize(
    "changes",
    [
        {"audio": {"sample_rate": 0}},
        {"audio": {}},
        {"phoneme_type": "pinyin"},
        {"phoneme_id_map": {"a": [1]}},
        {"phoneme_id_map": {"_": [0], "^": [1], "$": [900]}},
        {"phoneme_id_map": []},
        {"inference": {"length_scale": 0}},
        {"inference": {"noise_scale": float("nan")}},
        {"num_symbols": 10**9},
        {"num_speakers": 0},
    ],
)
def test_settings_that_no_voice_has_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(SpeechError, match=r"tiny\.onnx\.json: expected"):
        voice_named(kit.write_voice(tmp_path, data=kit.model(), **changes))


def test_a_file_without_its_other_half_is_told(tmp_path: Path) -> None:
    path = kit.write_voice(tmp_path)
    path.with_name("tiny.onnx.json").unlink()
    with pytest.raises(SpeechError, match=r"tiny\.onnx\.json"):
        voice_named(path)
