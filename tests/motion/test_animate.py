"""New speech moves the mouth as speech does: closures close, silence is still, the frame clock is kept."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Speech
from deployments.errors import OptionError, SpeechError
from deployments.motion.animate import MotionOptions, closure_weight, make_motion
from deployments.motion.head import load_head, predict
from deployments.motion.lip_space import LipSpace
from deployments.motion.offset import correlation
from deployments.motion.phoneme_net import speech_features
from deployments.motion.template import TemplateMouth, measure_template

TEXT = "Bob may buy a big map. My mother put pepper on a baby apple. People obey Pam."


@pytest.fixture(scope="module")
def template() -> TemplateMouth:
    """A mouth that opens by up to 0.2 eye distances, without sound."""
    rng = np.random.default_rng(0)
    coefficients = (rng.normal(0, 1, (400, 8)) * (0.2, 0.08, 0.04, 0.04, 0.03, 0.02, 0.02, 0.01)).astype(np.float32)
    return measure_template(coefficients, np.ones(400, bool), np.arange(400) / 25, None)


@pytest.fixture(scope="module")
def speech() -> Speech:
    return synthesize(TEXT)


@pytest.mark.parametrize("rate", [23.976, 25.0, 60.0])
def test_motion_keeps_the_frame_clock(template: TemplateMouth, speech: Speech, rate: float) -> None:
    times = np.arange(0, speech.seconds + 1, 1 / rate)
    motion = make_motion(speech, times, template)
    assert motion.coefficients.shape == (len(times), 8) and motion.coefficients.dtype == np.float32
    assert motion.weight.shape == (len(times),) and (motion.weight == 1).all()
    assert np.isfinite(motion.coefficients).all()


def test_motion_at_uneven_times_is_the_same_movement(template: TemplateMouth, speech: Speech) -> None:
    options = MotionOptions(closures=False)
    dense = np.arange(0, speech.seconds, 0.001)
    uneven = np.sort(np.random.default_rng(1).uniform(0, speech.seconds, 90))
    track = make_motion(speech, dense, template, options).coefficients
    sampled = make_motion(speech, uneven, template, options).coefficients
    wanted = np.stack([np.interp(uneven, dense, column) for column in track.T], 1)
    assert np.abs(sampled - wanted).max() < 5e-3


def test_lips_close_at_every_bilabial_of_the_voice(template: TemplateMouth, speech: Speech) -> None:
    times = np.arange(0, speech.seconds, 1 / 25)
    aperture = LipSpace.load().aperture(make_motion(speech, times, template).coefficients)
    centres = [(start + end) / 2 for symbol, start, end in speech.phonemes if symbol in "pbm"]
    closed = [aperture[np.abs(times - centre) <= 0.06].min() <= template.closed + 0.01 for centre in centres]
    assert len(centres) >= 15
    assert np.mean(closed) >= 0.95
    unlabelled = Speech(speech.samples, speech.rate)
    aperture_heard = LipSpace.load().aperture(make_motion(unlabelled, times, template).coefficients)
    heard = [aperture_heard[np.abs(times - centre) <= 0.06].min() <= template.closed + 0.01 for centre in centres]
    assert np.mean(heard) >= 0.75
    vowels = [(start + end) / 2 for symbol, start, end in speech.phonemes if symbol in "ɑæI" and end - start > 0.08]
    opened = [aperture[np.abs(times - centre) <= 0.06].max() > template.closed + 0.03 for centre in vowels]
    assert np.mean(opened) >= 0.8


def test_lips_meet_before_the_sound_and_stay_closed_into_it() -> None:
    quiet = np.zeros(32000, np.float32)
    told = Speech(quiet, 16000, phonemes=(("b", 1.0, 1.1),))
    times = np.arange(0.5, 1.5, 0.001)
    weight = closure_weight(predict(quiet), told, times)
    middle = float((times * weight).sum() / weight.sum())
    assert 0.98 < middle < 1.03
    assert weight[np.abs(times - 1.0).argmin()] == 1
    assert weight[(times < 0.85) | (times > 1.2)].max() == 0


def test_silence_is_closed_and_still(template: TemplateMouth, speech: Speech) -> None:
    gap = np.zeros(2 * speech.rate, np.float32)
    joined = Speech(np.concatenate([gap, speech.samples, gap]), speech.rate)
    times = np.arange(0, joined.seconds + 2, 1 / 30)
    coefficients = make_motion(joined, times, template).coefficients
    quiet = (times < 1.6) | (times > 2 + speech.seconds + 0.4)
    assert np.abs(coefficients[quiet] - template.rest).max() < 1e-6
    assert LipSpace.load().aperture(template.rest[None])[0] < template.closed + 0.02


def test_pure_silence_and_noise_do_not_talk(template: TemplateMouth) -> None:
    times = np.arange(75) / 25
    silent = make_motion(Speech(np.zeros(48000, np.float32), 16000), times, template)
    assert np.abs(silent.coefficients - template.rest).max() < 1e-6


def test_same_input_same_motion(template: TemplateMouth, speech: Speech) -> None:
    times = np.arange(0, speech.seconds, 1 / 25)
    first, second = (make_motion(speech, times, template).coefficients for _ in range(2))
    assert np.array_equal(first, second)


def test_expression_scales_and_stays_in_the_template_range(template: TemplateMouth, speech: Speech) -> None:
    times = np.arange(0, speech.seconds, 1 / 25)
    spread = []
    for expression in (0.0, 0.5, 1.0):
        moved = make_motion(speech, times, template, MotionOptions(expression=expression, closures=False)).coefficients
        spread.append(moved[:, 0].std())
        low, high = np.minimum(template.p01, template.rest), np.maximum(template.p99, template.rest)
        assert (moved >= low - 1e-5).all() and (moved <= high + 1e-5).all()
    assert spread[0] < spread[1] < spread[2]
    with pytest.raises(OptionError):
        MotionOptions(expression=3)


def test_empty_and_broken_speech_is_refused(template: TemplateMouth) -> None:
    for samples in (np.zeros(0, np.float32), np.full(16000, np.nan, np.float32)):
        with pytest.raises(SpeechError):
            make_motion(Speech(samples, 16000), np.arange(10) / 25, template)


def test_long_speech_goes_through_in_blocks_without_a_trace(monkeypatch: pytest.MonkeyPatch, speech: Speech) -> None:
    samples = speech_at_16k(speech)
    whole, _ = speech_features(samples)
    monkeypatch.setattr("deployments.motion.phoneme_net.BLOCK_STEPS", 70)
    pieces, _ = speech_features(samples)
    assert np.abs(whole - pieces).max() < 1e-3


def test_template_offset_is_found_and_own_mouth_measured(speech: Speech) -> None:
    samples = speech_at_16k(speech)
    prediction = predict(samples)
    times = np.arange(0, speech.seconds, 1 / 30)
    late = 0.08
    coefficients = prediction.outputs_at(times - late)[:, :8] * 0.1 + 0.05
    found = measure_template(coefficients, np.ones(len(times), bool), times, samples)
    assert abs(found.offset.seconds - late) < 0.03
    assert np.allclose(found.mean, coefficients.mean(0), atol=1e-5)


def test_motion_is_cheap(template: TemplateMouth, speech: Speech) -> None:
    long = Speech(np.tile(speech.samples, 8), speech.rate)
    times = np.arange(0, long.seconds, 1 / 25)
    load_head()
    make_motion(speech, times[:50], template)
    started = time.process_time()
    make_motion(long, times, template)
    # The aim is 0.02 CPU seconds per second; a busy machine with many threads gets room.
    assert (time.process_time() - started) / long.seconds < 0.06


@pytest.mark.parametrize("shift", [0, 1])
def test_prediction_follows_the_speech(speech: Speech, shift: int) -> None:
    samples = speech_at_16k(speech)
    delay = 3200 * shift
    moved = predict(np.concatenate([np.zeros(delay, np.float32), samples])).outputs[:, 0]
    still = predict(samples).outputs[:, 0]
    assert correlation(moved[10 * shift :][: len(still)], still) > 0.9


@pytest.mark.clips
def test_shipped_motion_beats_a_still_mouth_on_a_real_clip(clips_dir: Path, tmp_path: Path) -> None:
    """The clip is in the training material, so that this proves the chain (track, offset, head), not the generality."""
    from deployments.motion.clip_data import load_clip
    from deployments.motion.evaluate_motion import evaluate_clip

    clip = load_clip(clips_dir / "public_domain" / "address_a2.mp4", "a", tmp_path)
    other = load_clip(clips_dir / "public_domain" / "address_b1.mp4", "b", tmp_path)
    row = evaluate_clip(clip, other.sound)
    assert row["aperture"] > 0.5
    assert row["lmd"] < row["still"]
    assert abs(row["swapped"]) < 0.4
    assert abs(row["offset_ms"]) < 60
