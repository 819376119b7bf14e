"""Speech for a slot: its length, loudness, room and joins, measured."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.audio.loudness import loudness
from deployments.audio.slot import fit_to_slot, join, listen, room_tone, speaks_at, trim
from deployments.audio.voice import EnglishVoice, Words, to_sounds
from deployments.contracts import Speech
from deployments.errors import SpeechError
from deployments.media.sound import cross_fade
from deployments.media.tempo import change_tempo

RATE = 48000


def tone(seconds: float, level: float = 0.2, hertz: float = 300) -> NDArray[np.float32]:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def speaker(seconds: float, level: float = 0.2) -> Speech:
    """A word of a tone between silences."""
    silence = np.zeros(RATE // 4, np.float32)
    samples = np.concatenate([silence, tone(seconds, level), silence])
    return Speech(samples, RATE, "word", (("_", 0.0, 0.25), ("a", 0.25, 0.25 + seconds), ("_", 0.25 + seconds, 0.5 + seconds)))


def at_speed(seconds: float):
    return lambda speed: speaker(seconds / speed)


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_loudness_is_that_of_the_standard(rate: int) -> None:
    """ITU-R BS.1770: a 997 Hz sine of full scale on one channel is -3.01 LUFS; gates leave silence out."""
    time = np.arange(5 * rate) / rate
    sine = np.sin(2 * np.pi * 997 * time).astype(np.float32)
    assert loudness(sine, rate) == pytest.approx(-3.01, abs=0.05)
    padded = np.concatenate([sine * 0.1, np.zeros(10 * rate, np.float32)])
    assert loudness(padded, rate) == pytest.approx(-23.01, abs=0.2)
    assert loudness(np.zeros(rate, np.float32), rate) == -np.inf


def test_the_pitch_stays_when_the_tempo_changes() -> None:
    for speed in (0.84, 1.0, 1.17):
        out = change_tempo(tone(2), RATE, speed)
        assert len(out) / RATE == pytest.approx(2 / speed, abs=0.06)
        middle = out[RATE // 2 : RATE]
        peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)
        assert peak == pytest.approx(300, abs=4)


def test_a_slot_gets_speech_of_its_length_as_loud_as_the_clip_over_its_room(room: NDArray[np.float32]) -> None:
    around = listen(room, RATE)
    speech = fit_to_slot(at_speed(0.9), Fraction(3, 2), around)
    assert len(speech.samples) == 72000 and speech.phonemes[0][0] == "_"
    said = speech.samples[round(0.05 * RATE) : round(0.85 * RATE)]
    assert loudness(said, RATE) == pytest.approx(around.loudness, abs=1.0)
    rest, pause = speech.samples[round(1.1 * RATE) :], room[: RATE // 3]
    assert 20 * np.log10(rest.std() / pause.std()) == pytest.approx(0, abs=3)


def test_room_tone_has_the_colour_of_the_pauses_and_never_repeats(room: NDArray[np.float32]) -> None:
    around = listen(room, RATE)
    one, two = room_tone(around, 2 * RATE, 1), room_tone(around, 2 * RATE, 2)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05 and (one == room_tone(around, 2 * RATE, 1)).all()

    def share(samples: NDArray[np.float32]) -> float:
        power = np.abs(np.fft.rfft(samples[: RATE // 3])) ** 2
        return float(power[:333].sum() / power.sum())  # below 1 kHz

    assert share(room) > 0.5 and share(one) == pytest.approx(share(room), abs=0.15)
    white = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert abs(share(white) - share(room)) > 0.3, "the measure must tell colours apart"


def test_a_clip_without_pauses_gives_no_room() -> None:
    assert len(listen(tone(3), RATE).tone) == 0
    assert len(listen(np.concatenate([tone(1), np.zeros(2 * RATE, np.float32)]), RATE).tone) == 0
    assert (room_tone(listen(tone(3), RATE), 100, 0) == 0).all()


@pytest.mark.parametrize(("natural", "spoken"), [(0.8, 0.87), (0.87, 0.87), (0.95, 0.87), (0.5, 0.5)])
def test_the_pace_follows_the_slot_within_its_limits(natural: float, spoken: float) -> None:
    speech = fit_to_slot(at_speed(natural), Fraction(1), None)
    loud = np.flatnonzero(np.abs(speech.samples) > 0.05)
    assert (loud[-1] - loud[0]) / RATE == pytest.approx(spoken, abs=0.03)


def test_too_much_for_a_slot_is_refused_or_cut_with_it() -> None:
    with pytest.raises(
        SpeechError, match=r"at most 1\.1 s of speech for this slot, got 2\.1 s.* cuts it \(cut_off\) or makes the video longer"
    ):
        fit_to_slot(at_speed(2), Fraction(1), None)
    cut = fit_to_slot(at_speed(2), Fraction(1), None, cut=True)
    assert len(cut.samples) == RATE and abs(cut.samples[-1]) < 1e-3 and cut.phonemes[-1][2] <= 1


def test_joins_do_not_click(room: NDArray[np.float32]) -> None:
    """The largest step between two samples at a join is no larger than elsewhere in the speech around it."""
    start, stop = (second + int(np.abs(room[second : second + 220]).argmax()) for second in (RATE, 3 * RATE))  # on crests
    speech = fit_to_slot(at_speed(1.5), Fraction(stop - start, RATE), listen(room, RATE))
    above = np.zeros((len(room), 1), np.float32)
    above[start:stop, 0] = speech.samples
    joined = cross_fade(room[:, None], above, [(start, stop)], RATE // 100)[:, 0]
    hard = np.where((np.arange(len(room)) >= start) & (np.arange(len(room)) < stop), above[:, 0], room)
    step, usual = np.abs(np.diff(joined)), np.abs(np.diff(room)).max()
    for edge in (start, stop):
        assert step[edge - 600 : edge + 600].max() <= 1.2 * usual
        assert np.abs(np.diff(hard))[edge - 2 : edge + 2].max() > 1.5 * usual, "without the fade it must click"


def test_silence_at_the_ends_goes_and_timings_move_along() -> None:
    speech = trim(speaker(1.0))
    assert speech.seconds == pytest.approx(1.07, abs=0.02)
    start = next(start for sign, start, _ in speech.phonemes if sign == "a")
    assert start == pytest.approx(0.02, abs=0.011)
    with pytest.raises(SpeechError, match="silence"):
        trim(Speech(np.zeros(RATE, np.float32), RATE))


def test_a_recorded_name_is_as_loud_as_the_words_around_it() -> None:
    parts = [speaker(0.5, 0.2), speaker(0.5, 0.02), speaker(0.5, 0.2)]
    said = join(parts)
    thirds = np.array_split(said.samples, 3)
    levels = [loudness(part, RATE) for part in thirds]
    assert max(levels) - min(levels) < 1 and len(said.phonemes) > 3
    assert join([parts[0], Speech(parts[1].samples, RATE)]).phonemes == ()


def test_speech_is_heard_at_the_borders_of_a_bad_slot(room: NDArray[np.float32]) -> None:
    assert [speaks_at(room, RATE, Fraction(moment)) for moment in ("0.2", "1", "2", "3")] == [False, True, False, True]


@pytest.mark.parametrize(
    ("ipa", "sounds"),
    [
        ("ˈʃɪvɔːn", "ʃˈɪvɔn"),
        ("/dʒoʊ/", "ʤO"),
        ("nəˈɡuːjən", "nəɡˈujən"),
        ("t͡ʃeɪ.ma", "ʧAmæ"),
        ("ˈkraɪ ˌbeɪ", "kɹˈI bˌA"),
        ("moˈhæməd", "mOhˈæməd"),
    ],
)
def test_ipa_is_spelled_as_the_voice_does(ipa: str, sounds: str) -> None:
    assert to_sounds(ipa) == sounds


def test_a_pronunciation_is_spoken_inside_its_sentence() -> None:
    voice = EnglishVoice()
    plain = voice.say([Words("Hello Siobhan, welcome")], 1.0)
    right = voice.say([Words("Hello "), Words("Siobhan", "ʃɪˈvɔːn"), Words(", welcome")], 1.0)
    signs = ["".join(sign for sign, _, _ in speech.phonemes) for speech in (plain, right)]
    assert "ʃɪvɔn" in signs[1] and "ʃɪvɔn" not in signs[0]
    assert signs[1].index("l") < signs[1].index("ʃ") < signs[1].index("w"), "before and after it come the other words"
    assert right.seconds == pytest.approx(plain.seconds, rel=0.25), "one sentence, not three"


@pytest.mark.parametrize("name", ["שלום", "北京", "Иван", "محمد"])
def test_names_in_other_scripts_are_refused_unless_their_sounds_are_told(name: str) -> None:
    voice = EnglishVoice()
    with pytest.raises(SpeechError, match=f"Latin letters, got '{name}'"):
        voice.check([Words(f"Hello {name}, welcome")])
    voice.check([Words("Hello "), Words(name, "ʃəˈlɔm")])
