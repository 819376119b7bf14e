"""Templates and their customers, the whole way, with an engine that paints what it hears."""

from __future__ import annotations

import shutil
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Span
from deployments.errors import InputError, OptionError, SpeechError
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from serve_app.cache import Cache
from serve_app.executor import SerialExecutor
from serve_app.personalize import Wanted, check_slots, check_speech, create_template, personalize
from serve_app.pipeline import JobReport, Watch, run_sync
from serve_app.planner import Plan
from serve_app.request import Piece, SpeechSource, SyncRequest, segment
from serve_app.script import Value, parse_script, parse_value
from serve_app.templates import Template, TemplateMissing, Templates

SCRIPT = 'segments:\n  - {start: 1.3, end: 2.4, text: "Hello {{customer_name}}"}\n'
RATE = 48000


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def template(message: Path, cache: Cache) -> Template:
    script = message.with_name("script.yaml")
    script.write_text(SCRIPT)
    return create_template(Templates(cache.folder), "hello", (message, script), "fake", "largest", cache, SerialExecutor())


def span_of(clip: Clip) -> Span:
    return Span(0, clip.frames)


def packets(path: Path, kind: str) -> dict[Fraction, bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        return {p.pts * p.time_base: bytes(p) for p in container.demux(stream) if p.size}


def made(template: Template, cache: Cache, out: Path, **values: str) -> Path:
    given = {name: parse_value(name, words) for name, words in values.items()}
    personalize(template, given, out, Wanted("fake"), cache, SerialExecutor())
    return out


def test_only_the_groups_with_a_slot_are_new(template: Template, cache: Cache, tmp_path: Path) -> None:
    job = personalize(template, {"customer_name": Value("John")}, tmp_path / "john.mp4", Wanted("fake"), cache, SerialExecutor())
    before, after = packets(template.clip, "video"), packets(job.out, "video")
    assert before.keys() == after.keys() and len(before) == 70
    kept = {round(float(time) * 25) for time in before if before[time] == after[time]}
    assert kept == {*range(30), *range(60, 70)} and job.copied == 40 and job.note == ""
    source, result = probe(template.clip), probe(job.out)
    assert (result.pts * result.time_base == source.pts * source.time_base).all() and result.color == source.color
    pairs = list(zip(decode(source, span_of(source)), decode(result, span_of(result)), strict=True))
    difference = [np.abs(a.luma(1).astype(int) - b.luma(1)).mean() for a, b in pairs]
    assert max(difference[:30] + difference[60:]) == 0
    assert max(difference[30:33]) < 1 < min(difference[36:57]), "in the slot a square is painted, before it only encoded again"
    assert job.patched == sum(1.3 <= k / 25 < 2.4 for k in range(70))


def test_who_looks_on_hears_of_the_plan_before_the_first_picture(template: Template, cache: Cache, tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener(Watch):
        def planned(self, clip: Clip, plan: Plan) -> None:
            heard.append(f"{clip.frames} frames planned, {len(cache_jobs(cache))} begun")

        def joined(self, job: JobReport) -> None:
            heard.append(f"{job.patched} changed")

    value = {"customer_name": Value("Ann")}
    personalize(template, value, tmp_path / "o.mp4", Wanted("fake"), cache, SerialExecutor(), watch=Listener())
    assert heard == ["70 frames planned, 0 begun", "27 changed"]


def cache_jobs(cache: Cache) -> list[Path]:
    return list((cache.folder / "jobs").glob("*"))


def test_sound_outside_the_slot_keeps_its_packets(template: Template, cache: Cache, tmp_path: Path) -> None:
    out = made(template, cache, tmp_path / "ann.mp4", customer_name="Ann")
    before, after = packets(template.clip, "sound"), packets(out, "sound")
    changed = [float(time) for time in before if before[time] != after.get(time)]
    assert before.keys() == after.keys() and changed and 1.2 < min(changed) and max(changed) < 2.5
    assert np.abs(read_sound(out, RATE)[round(1.35 * RATE) : round(2.3 * RATE)]).max() > 0.02


def test_customers_differ_and_the_same_customer_does_not(template: Template, cache: Cache, tmp_path: Path) -> None:
    one, other, again = (
        made(template, cache, tmp_path / f"{k}.mp4", customer_name=name) for k, name in enumerate(("Ann", "Peter", "Ann"))
    )
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()
    assert len(list((cache.folder / "still").iterdir())) == 1, "unchanged pieces are made once for all customers"


def test_a_recorded_name_is_heard(template: Template, cache: Cache, tmp_path: Path) -> None:
    time = np.arange(RATE // 2) / RATE
    with wave.open(str(tmp_path / "john.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((9000 * np.sin(2 * np.pi * 1234 * time)).astype("<i2").tobytes())
    value = parse_value("customer_name", "@john.wav", tmp_path)
    personalize(template, {"customer_name": value}, tmp_path / "o.mp4", Wanted("fake"), cache, SerialExecutor())
    sound = read_sound(tmp_path / "o.mp4", RATE)[round(1.3 * RATE) : round(2.4 * RATE)]
    power = np.abs(np.fft.rfft(sound))
    assert abs(power.argmax() * RATE / len(sound) - 1234) < 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("<speak>Ann<break time='9s'/></speak>", "markup"),
        ("عبد الله", "Latin letters, got 'عبد'"),
        ("שלום", "Latin letters"),
        ("😀🎉", "can be said"),
        ("ab" * 100, "of speech for this slot"),  # as long as a name may be, and no slot holds it
        ("ab" * 101, "at most 200"),
    ],
)
def test_a_name_that_cannot_be_said_leaves_no_video(
    template: Template, cache: Cache, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(SpeechError, match=words):
        made(template, cache, tmp_path / "o.mp4", customer_name=name)
    assert not list(tmp_path.iterdir())


def test_a_name_with_signs_that_nobody_hears_is_the_name(template: Template, cache: Cache, tmp_path: Path) -> None:
    plain = made(template, cache, tmp_path / "plain.mp4", customer_name="Ann")
    odd = made(template, cache, tmp_path / "odd.mp4", customer_name="\u202bAnn\u200f 👩‍🚀\ufeff")
    assert plain.read_bytes() == odd.read_bytes()


def test_a_name_in_other_letters_may_bring_its_sounds(template: Template, cache: Cache, tmp_path: Path) -> None:
    said = made(template, cache, tmp_path / "said.mp4", customer_name="שלום|ipa:ʃɑˈloʊm")
    assert np.abs(read_sound(said, RATE)[round(1.35 * RATE) : round(2.3 * RATE)]).max() > 0.02


def test_a_name_of_two_hundred_letters_ends_with_its_slot(template: Template, cache: Cache, tmp_path: Path) -> None:
    value = {"customer_name": parse_value("customer_name", "ab" * 100)}
    job = personalize(template, value, tmp_path / "o.mp4", Wanted("fake", "cut_off"), cache, SerialExecutor())
    assert probe(job.out).duration == probe(template.clip).duration and job.patched == 27


def test_a_source_that_cannot_be_copied_says_so_and_is_encoded_once(template: Template, cache: Cache, tmp_path: Path) -> None:
    jobs = []
    for name in ("Ann", "Bob"):
        request = SyncRequest(
            template.clip,
            (SpeechSource(segment=segment("1.3", "2.4"), pieces=(Piece(f"Hello {name}"),)),),
            tmp_path / f"{name}.mp4",
            "fake",
            quality="lossless",
        )
        jobs.append(run_sync(request, cache, SerialExecutor()))
    with av.open(str(jobs[0].out)) as container:
        assert "encoded again as a whole (lossless" in container.metadata["comment"]
    assert [job.copied for job in jobs] == [0, 0] and "lossless" in jobs[0].note
    assert jobs[0].reused_chunks == 0 and jobs[1].reused_chunks == 2, "before and after the slot"


def test_what_cannot_be_said_is_refused_before_any_picture(template: Template, cache: Cache, tmp_path: Path) -> None:
    clip = probe(template.clip)
    check_speech(template, clip, {"customer_name": Value("Ann")}, "silence")
    long = {"customer_name": Value("Johannes Maximilian von Hohenzollern the younger")}
    with pytest.raises(SpeechError, match=r"slot at 1\.3 s"):
        check_speech(template, clip, long, "silence")
    check_speech(template, clip, long, "cut_off")
    with pytest.raises(OptionError, match="silence or cut_off"):
        personalize(template, long, tmp_path / "o.mp4", Wanted("fake", "loop"), cache, SerialExecutor())
    assert not (tmp_path / "o.mp4").exists()


def test_templates_are_listed_opened_and_deleted(message: Path, cache: Cache, template: Template, tmp_path: Path) -> None:
    templates = Templates(cache.folder)
    assert [found.name for found in templates] == ["hello"] and templates.open("hello") == template
    assert template.clip.parent == template.folder and template.digest == probe(message).digest
    script = tmp_path / "s.yaml"
    script.write_text(SCRIPT)
    with pytest.raises(OptionError, match="new name"):
        create_template(templates, "hello", (message, script), "fake", "largest", cache, SerialExecutor())
    create_template(templates, "second", (message, script), "fake", "largest", cache, SerialExecutor())
    templates.delete("second")
    with pytest.raises(TemplateMissing, match="there are: hello"):
        templates.open("second")


def test_the_author_hears_of_slots_that_cut_a_word(message: Path) -> None:
    clip = probe(message)
    assert check_slots(clip, parse_script(SCRIPT)) == (), "the tone pauses from 0.7 s to 1.4 s, and from 2.1 s on"
    notes = check_slots(clip, parse_script(SCRIPT.replace("1.3", "0.4")))
    assert len(notes) == 1 and "0.4-2.4 s begins while the person speaks" in notes[0]


def test_a_damaged_template_says_so_and_hides_no_other(message: Path, template: Template, cache: Cache) -> None:
    broken = cache.folder / "templates" / "broken"
    broken.mkdir()
    (broken / "template.json").write_text("{}")
    try:
        with pytest.raises(InputError, match="create it again"):
            Templates(cache.folder).open("broken")
        assert [found.name for found in Templates(cache.folder)] == ["hello"]
    finally:
        shutil.rmtree(broken)


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden", "x" * 65])
def test_a_name_is_no_path(cache: Cache, name: str) -> None:
    with pytest.raises(OptionError, match="name of letters"):
        Templates(cache.folder).open(name)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SCRIPT.replace("2.4", "9"), "inside 0-2.8"),
        (SCRIPT.replace("1.3", "2.5"), "start < end"),
        (SCRIPT.replace("{{customer_name}}", "John"), "at least one slot"),
        (SCRIPT + '  - {start: 2, end: 2.7, text: "{{x}}"}\n', "apart"),
    ],
)
def test_a_script_that_does_not_fit_its_clip(message: Path, cache: Cache, tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(script)
    with pytest.raises(OptionError, match=words):
        create_template(
            Templates(cache.folder), "bad", (message, tmp_path / "s.yaml"), "fake", "largest", cache, SerialExecutor()
        )
    assert not (cache.folder / "templates" / "bad").exists()
