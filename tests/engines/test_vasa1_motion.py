"""The motion transformer: what it is told it does, windows join, and the shipped one speaks with lips that close."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from deployments.audio.tts import synthesize
from deployments.contracts import Speech
from deployments.engines.vasa1.config import MotionConfig
from deployments.engines.vasa1.latents import GAZE, LATENT, LID, LIPS, measure
from deployments.engines.vasa1.motion import WEIGHTS, Told, generate, guidance_of, mixed_lips
from deployments.engines.vasa1.sampling import Guidance, guided, noise_of, sample
from deployments.engines.vasa1.train import Passage, train
from deployments.engines.vasa1.transformer import AUDIO, CONTROL_SIZES, CONTROLS, Conditions, MotionTransformer
from deployments.errors import OptionError, SpeechError
from deployments.face.track import track_image
from deployments.motion.lip_space import LipSpace
from deployments.motion.template import TemplateMouth

SMALL = MotionConfig(depth=2, width=32, heads=2, window=16, before=4, overlap=4, dropout=0.0, audio_dropout=0.0)
ALL_KEPT = dict.fromkeys(("audio", "before", *CONTROLS), torch.ones(1))


def mouth() -> TemplateMouth:
    ones = np.ones(8, np.float32)
    rest = np.array([-0.2, 0, 0, 0, 0, 0, 0, 0], np.float32)
    closed = float(LipSpace.load().aperture(rest[None])[0])
    return TemplateMouth(0 * ones, 0.1 * ones, -0.3 * ones, 0.3 * ones, rest, closed)


def conditions() -> Conditions:
    generator = torch.Generator().manual_seed(1)
    controls = {name: torch.randn(1, size, generator=generator) for name, size in CONTROL_SIZES.items()}
    audio = torch.randn(1, SMALL.before + SMALL.window, AUDIO, generator=generator)
    return Conditions(audio, torch.randn(1, SMALL.before, LATENT, generator=generator), controls, dict(ALL_KEPT))


def passages(count: int) -> list[Passage]:
    """Faces whose lips follow one number of the sound, and whose eyes look to one side for a whole passage."""
    found = []
    for k in range(count):
        rng = np.random.default_rng(k)
        wave = np.interp(np.arange(60), np.arange(0, 72, 4), rng.standard_normal(18)).astype(np.float32)
        audio = np.zeros((60, AUDIO), np.float32)
        audio[:, 0] = wave
        latents = np.zeros((60, LATENT), np.float32)
        latents[:, 0] = wave
        latents[:, GAZE] = rng.standard_normal(2)
        found.append(Passage(str(k), audio, latents, np.zeros((60, 2), np.float32), np.ones(LATENT, np.float32), np.ones(60)))
    return found


@pytest.fixture(scope="module")
def taught() -> MotionTransformer:
    return train(passages(160), [], 300, 16, 0, SMALL)


def test_lips_open_as_the_regression_says_and_are_shaped_by_both() -> None:
    rng = np.random.default_rng(0)
    heard, made = rng.standard_normal((40, AUDIO)).astype(np.float32), rng.standard_normal((40, 8)).astype(np.float32)
    told = Told.by(heard, mouth())
    lips = mixed_lips(made, told)
    np.testing.assert_allclose(lips @ told.way, told.opening, atol=1e-5)
    aside = np.eye(8) - np.outer(told.way, told.way) / (told.way @ told.way)
    share = MotionConfig().regression_share
    np.testing.assert_allclose(lips @ aside, ((1 - share) * made + share * told.lips) @ aside, atol=1e-5)
    assert np.abs(np.diff(told.opening)).mean() < np.abs(np.diff(told.lips @ told.way)).mean(), "it is smoothed"
    assert np.array_equal(told.part(slice(3, 9)).opening, told.opening[3:9])


def test_noise_belongs_to_the_frame_and_not_to_the_window() -> None:
    np.testing.assert_array_equal(noise_of(3, 5, 10), noise_of(3, 0, 12)[5:10])
    assert not np.array_equal(noise_of(3, 5, 10), noise_of(4, 5, 10))


def test_guidance_goes_beyond_what_a_condition_changes() -> None:
    torch.manual_seed(0)
    network, told, x, now = MotionTransformer(SMALL).eval(), conditions(), torch.randn(1, 16, LATENT), torch.tensor(0.5)
    with torch.inference_mode():
        full = network(x, now[None], told)
        deaf = network(x, now[None], replace(told, keep={**ALL_KEPT, "audio": torch.zeros(1)}))
        blind = network(x, now[None], replace(told, keep={**ALL_KEPT, "gaze": torch.zeros(1)}))
        only_gaze = replace(told, keep={**ALL_KEPT, "distance": torch.zeros(1), "emotion": torch.zeros(1)})
        base = network(x, now[None], only_gaze)
        found = guided(network, x, now, told, Guidance(audio=0.5, controls=0.0))
        torch.testing.assert_close(found, 1.5 * full - 0.5 * deaf, atol=1e-5, rtol=1e-4)
        both = guided(network, x, now, only_gaze, Guidance(audio=0.0, controls=1.0))
        nothing = replace(only_gaze, keep={**only_gaze.keep, "gaze": torch.zeros(1)})
        torch.testing.assert_close(both, 2 * base - network(x, now[None], nothing), atol=1e-5, rtol=1e-4)
    assert (full - deaf).abs().max() > 1e-3 and (full - blind).abs().max() > 1e-4


def test_it_learns_to_move_lips_with_the_sound(taught: MotionTransformer) -> None:
    unseen = passages(161)[-1]
    made = sample(taught, unseen.audio, {}, Guidance(audio=0.0, steps=6, temperature=0.5))
    assert np.corrcoef(made[:, 0], unseen.latents[:, 0])[0, 1] > 0.8


def test_eyes_look_where_they_are_told_the_more_the_farther(taught: MotionTransformer) -> None:
    audio = passages(161)[-1].audio
    looks = []
    for x in (-1.0, 0.0, 1.0):
        told = {"gaze": np.tile(np.array([x, 0], np.float32), (len(audio), 1))}
        looks.append(sample(taught, audio, told, Guidance(audio=0.0, controls=1.0, steps=6, temperature=0.3))[:, GAZE].mean(0))
    across = [look[0] for look in looks]
    assert across[0] < across[1] - 0.2 and across[1] < across[2] - 0.2
    assert abs(looks[2][1] - looks[0][1]) < abs(across[2] - across[0])


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 50])
def test_every_length_is_made_and_is_the_same_again(taught: MotionTransformer, frames: int) -> None:
    audio = np.random.default_rng(0).standard_normal((frames, AUDIO)).astype(np.float32)
    made = sample(taught, audio, {}, Guidance(steps=3))
    assert made.shape == (frames, LATENT) and np.isfinite(made).all()
    np.testing.assert_array_equal(made, sample(taught, audio, {}, Guidance(steps=3)))


def test_windows_join_without_a_jump(taught: MotionTransformer) -> None:
    wave = np.interp(np.arange(300), np.arange(0, 304, 4), np.random.default_rng(9).standard_normal(76))
    audio = np.zeros((300, AUDIO), np.float32)
    audio[:, 0] = wave
    lips = sample(taught, audio, {}, Guidance(audio=0.0, steps=6, temperature=0.5))[:, 0]
    change, hop = np.abs(np.diff(lips)), SMALL.window - SMALL.overlap
    border = (np.arange(len(change)) % hop < SMALL.overlap) & (np.arange(len(change)) >= hop)
    assert np.percentile(change[border], 95) <= 1.2 * np.percentile(change[~border], 95)


def test_closed_eyes_and_a_turned_iris_are_measured() -> None:
    points = track_image(data.astronaut()[:320, 60:380]).landmarks
    closed, aside = points.copy(), points.copy()
    closed[:, [159, 386]] += 0.8 * (closed[:, [145, 374]] - closed[:, [159, 386]])
    aside[:, [468, 473], 0] += 2.0
    own = measure(points).latents[0]
    assert measure(closed).latents[0, LID] < 0.5 * own[LID]
    assert measure(aside).latents[0, GAZE][0] > own[GAZE][0] + 0.02


def test_the_shipped_one_closes_its_lips_in_silence_and_moves_them_in_speech() -> None:
    speech = synthesize("Five fresh loaves of bread, before the show.")
    padded = Speech(np.concatenate([speech.samples, np.zeros(speech.rate, np.float32)]), speech.rate)
    times = np.arange(0, padded.seconds, 1 / 25)
    made = generate(padded, times, mouth(), guidance_of({}), 1.0).coefficients
    opening, after = LipSpace.load().aperture(made), times > speech.seconds + 0.4
    np.testing.assert_allclose(opening[after], mouth().closed, atol=2e-3)
    assert opening[times < speech.seconds].std() > 0.01


def test_the_shipped_one_takes_short_loud_and_silent_sound() -> None:
    rng = np.random.default_rng(0)
    sounds = {
        "short": 0.1 * rng.standard_normal(3200),
        "silence": np.zeros(16000),
        "clipped": np.sign(rng.standard_normal(16000)),
    }
    times = np.arange(20) / 25
    made = {}
    for name, samples in sounds.items():
        made[name] = generate(Speech(samples.astype(np.float32), 16000), times, mouth(), guidance_of({}), 1.0).coefficients
        assert np.isfinite(made[name]).all()
    np.testing.assert_allclose(made["silence"], np.tile(mouth().rest, (20, 1)), atol=1e-3)
    with pytest.raises(SpeechError):
        generate(Speech(np.zeros(0, np.float32), 16000), times, mouth(), guidance_of({}), 1.0)


def test_guidance_out_of_range_is_refused() -> None:
    with pytest.raises(OptionError, match="0 to 3"):
        guidance_of({"guidance": 9})


def test_the_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 20e6
    assert LIPS.stop == 8
