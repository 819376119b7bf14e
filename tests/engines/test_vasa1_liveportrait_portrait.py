"""A photo moved by the published networks' definitions: key points, the square, sampling, and all of it end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from benchmarks.engines.liveportrait import SMALL, lively, random_nets
from benchmarks.engines.liveportrait import SMALL_MOTION as TINY_MOTION
from deployments.contracts import Speech
from deployments.engines.vasa1.config import portrait_profile
from deployments.engines.vasa1.liveportrait.config import CropConfig, SamplingConfig
from deployments.engines.vasa1.liveportrait.keypoints import LIP_POINTS, Face, degrees, eased, moved, rotation
from deployments.engines.vasa1.liveportrait.load import Template
from deployments.engines.vasa1.liveportrait.motion import face_of, smoothed
from deployments.engines.vasa1.liveportrait.portrait import Speaker, film
from deployments.engines.vasa1.liveportrait.sampling import FRAME, denoise, generate, noise_of, signal_shares
from deployments.engines.vasa1.liveportrait.square import cut_small, paste_of, square_of
from deployments.engines.vasa1.liveportrait.transformer import MotionNet
from deployments.engines.vasa1.portrait import PortraitOptions, render_portrait
from deployments.errors import OptionError, WeightsError
from deployments.face.track import track_image
from deployments.portrait.controls import Controls

POINTS = 21


def photo() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:320, 60:380])


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return track_image(photo()).landmarks[0]


@pytest.fixture(scope="module")
def motion_net() -> MotionNet:
    return lively(MotionNet(TINY_MOTION))


def some_face(frames: int, seed: int) -> Face:
    torch.manual_seed(seed)
    angles = (20 * torch.randn(frames) for _ in range(3))
    rest, expression = torch.randn(1, POINTS, 3), 0.1 * torch.randn(frames, POINTS, 3)
    return Face(rest, expression, rotation(*angles), 1 + 0.1 * torch.rand(frames), 0.1 * torch.randn(frames, 3))


def test_an_angle_is_the_mean_of_its_bins() -> None:
    logits = torch.full((1, 66), -100.0)
    logits[0, 40] = logits[0, 41] = 0.0
    assert degrees(logits).item() == pytest.approx(40.5 * 3 - 97.5, abs=1e-4)


def test_yaw_and_roll_turn_points_about_their_axes() -> None:
    none, quarter, point = torch.zeros(1), torch.full((1,), 90.0), torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(point @ rotation(none, quarter, none)[0], torch.tensor([[0.0, 0.0, -1.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(point @ rotation(none, none, quarter)[0], torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(point @ rotation(quarter, none, none)[0], point, atol=1e-6, rtol=0)


def test_points_grow_with_the_size_and_are_not_shifted_in_depth() -> None:
    face = some_face(1, 0)
    grown = replace(face, size=2 * face.size, shift=torch.zeros(1, 3)).points()
    torch.testing.assert_close(grown, 2 * replace(face, shift=torch.zeros(1, 3)).points())
    away = replace(face, shift=face.shift + torch.tensor([0.0, 0.0, 5.0])).points()
    torch.testing.assert_close(away, face.points())


def test_the_film_begins_at_the_photos_own_pose_and_lips_take_the_motions_shape() -> None:
    source, motion = some_face(1, 1), some_face(4, 2)
    made = moved(source, motion)
    others = [k for k in range(POINTS) if k not in LIP_POINTS]
    torch.testing.assert_close(made.rotation[0], source.rotation[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(made.size[0], source.size[0])
    torch.testing.assert_close(made.shift[0], source.shift[0])
    torch.testing.assert_close(made.expression[0, others], source.expression[0, others])
    torch.testing.assert_close(made.expression[:, list(LIP_POINTS)], motion.expression[:, list(LIP_POINTS)])
    assert (made.rotation[3] - source.rotation[0]).abs().max() > 0.05


def test_a_still_head_talks_and_a_still_mouth_nods() -> None:
    source, motion = some_face(1, 1), some_face(4, 2)
    still = moved(source, motion, head=0)
    torch.testing.assert_close(still.rotation, source.rotation.expand(4, -1, -1))
    torch.testing.assert_close(still.size, source.size.expand(4))
    shut = moved(source, motion, lips=0).expression[:, list(LIP_POINTS)]
    torch.testing.assert_close(shut, shut[:1].expand_as(shut))
    torch.testing.assert_close(moved(source, motion, nearer=1.1).size, 1.1 * moved(source, motion).size)


def test_half_a_turn_twice_is_the_turn() -> None:
    turn = some_face(5, 3).rotation
    half = eased(turn, 0.5)
    torch.testing.assert_close(half @ half, turn, atol=1e-5, rtol=0)


def test_the_square_is_upright_and_goes_back_where_it_came_from(landmarks: np.ndarray) -> None:
    picture = photo()
    square = square_of(landmarks, 128, CropConfig())
    inside = square.points(landmarks)
    eyes, mouth = inside[[33, 263]].mean(0), inside[[61, 291]].mean(0)
    assert abs(eyes[0] - mouth[0]) < 4 and eyes[1] < mouth[1] - 15
    height = np.ptp(inside[[152, 105], 1])
    assert 128 / 2.3 - 8 < height < 128 / 2.3 + 8  # from brows to chin: the box's side
    paste = paste_of(square, picture.shape, CropConfig())
    again = paste.put(picture, square.cut(picture)).astype(float)
    assert np.abs(again - picture)[40:200, 100:220].mean() < 4  # nothing but resampling
    black = paste.put(picture, np.zeros((128, 128, 3), np.uint8))
    hit = (black != picture).any(2)
    assert hit.any() and not hit[:, :4].any()
    assert black[int(landmarks[1, 1]), int(landmarks[1, 0])].max() == 0


def test_a_large_photo_is_seen_as_its_small_copy_is(landmarks: np.ndarray) -> None:
    large = np.repeat(np.repeat(photo(), 4, 0), 4, 1)
    one = cut_small(photo(), square_of(landmarks, 128, CropConfig()), 64)
    other = cut_small(large, square_of(4 * landmarks + 1.5, 128, CropConfig()), 64)
    assert np.abs(one.astype(float) - other).mean() < 3


def test_the_schedule_ends_in_noise_and_never_gains_signal() -> None:
    shares = signal_shares(500)
    assert shares[0] == 1 and shares[-1] < 1e-6 and (np.diff(shares) < 0).all()


@pytest.mark.parametrize("steps", [12, 5])
def test_a_net_that_is_sure_is_followed_by_both_samplers(motion_net: MotionNet, steps: int) -> None:
    sure = MotionNet(TINY_MOTION).requires_grad_(False)
    sure.load_state_dict(motion_net.state_dict())
    sure.leave[-1].weight.zero_()
    made = generate(sure, np.zeros(4000, np.float32), 7, SamplingConfig(steps=steps), 0)
    np.testing.assert_allclose(made, np.tile(sure.leave[-1].bias.numpy(), (7, 1)), atol=1e-4)


def test_motion_is_the_same_each_time_follows_sound_and_does_not_know_the_future(motion_net: MotionNet) -> None:
    config, sound = SamplingConfig(steps=4), 0.3 * np.random.default_rng(0).standard_normal(40 * FRAME).astype(np.float32)
    long = generate(motion_net, sound, 40, config, 3)
    assert long.shape == (40, TINY_MOTION.latent)
    np.testing.assert_array_equal(long, generate(motion_net, sound, 40, config, 3))
    np.testing.assert_allclose(generate(motion_net, sound[: 18 * FRAME], 18, config, 3), long[:18], atol=1e-5)
    assert np.abs(generate(motion_net, sound, 40, config, 4) - long).max() > 1e-3
    assert np.abs(generate(motion_net, np.zeros_like(sound), 40, config, 3) - long).max() > 1e-3


def test_the_silence_before_the_speech_is_heard_and_not_filmed(motion_net: MotionNet) -> None:
    config, sound = SamplingConfig(steps=4), 0.3 * np.random.default_rng(0).standard_normal(18 * FRAME).astype(np.float32)
    start = noise_of(3, 0, (1, 20, TINY_MOTION.latent), 1)[0]
    with torch.inference_mode():
        heard = motion_net.hear(torch.from_numpy(np.concatenate([np.zeros(2 * FRAME, np.float32), sound]))[None])
        heard = torch.cat([motion_net.first_sound, heard], 1)
        window = denoise(motion_net, start, motion_net.first_motion, heard, torch.zeros(4, 1), config)
    np.testing.assert_allclose(generate(motion_net, sound, 18, config, 3), window[0, 2:].numpy(), atol=1e-6)


def test_head_and_size_are_smoothed_and_lips_are_not() -> None:
    latents = np.zeros((10, TINY_MOTION.latent), np.float32)
    latents[1:] = 1
    made = smoothed(latents, 0.1)
    np.testing.assert_array_equal(made[:, :-7], latents[:, :-7])
    np.testing.assert_allclose(made[:, -1], 1 - 0.9 ** np.arange(10), atol=1e-6)
    assert face_of(made).expression.shape == (10, 5, 3)


def test_a_photo_talks_from_end_to_end_and_the_rest_of_it_stays(motion_net: MotionNet, landmarks: np.ndarray) -> None:
    nets = random_nets(replace(SMALL, points=POINTS), torch.device("cpu"))
    config = replace(TINY_MOTION, points=POINTS)
    template = Template(np.zeros(config.latent, np.float32), np.full(config.latent, 0.1, np.float32))
    template.offset[-7] = 1.0
    speaker = Speaker(lively(MotionNet(config)), template, SamplingConfig(steps=3))
    speech = Speech(0.1 * np.random.default_rng(0).standard_normal(2000).astype(np.float32), 8000)
    rate, frames = film(photo(), speech, PortraitOptions(seed=2), nets, speaker)
    made = list(frames)
    assert rate == 25 and len(made) == 7 and all(f.shape == (320, 320, 3) and f.dtype == np.uint8 for f in made)
    _, again = film(photo(), speech, PortraitOptions(seed=2), nets, speaker)
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (made[0] != made[-1]).any()
    alpha = paste_of(square_of(landmarks, 128, CropConfig()), (320, 320, 3), CropConfig())
    outside = np.ones((320, 320), bool)
    high, wide = alpha.alpha.shape[:2]
    outside[alpha.y : alpha.y + high, alpha.x : alpha.x + wide] = False
    assert outside.any()
    for frame in made:
        np.testing.assert_array_equal(frame[outside], photo()[outside])


def test_the_profile_is_chosen_by_the_folder_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIPSYNC_LIVEPORTRAIT", raising=False)
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    assert portrait_profile() == "compact"
    (tmp_path / "cache" / "weights" / "liveportrait").mkdir(parents=True)
    assert portrait_profile() == "liveportrait"
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("LIPSYNC_LIVEPORTRAIT", str(tmp_path))
    assert portrait_profile() == "liveportrait"


def test_a_folder_that_lacks_files_and_controls_that_mean_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speech = Speech(np.zeros(1600, np.float32), 16000)
    monkeypatch.setenv("LIPSYNC_LIVEPORTRAIT", str(tmp_path))
    (tmp_path / "motion_generator.safetensors").touch()
    with pytest.raises(WeightsError) as caught:
        render_portrait(photo(), speech)
    told = str(caught.value)
    assert told.count(".safetensors") == 6 and "spade_generator" in told and "motion_generator.safetensors" not in told
    for controls in (Controls("happy"), Controls(gaze=(0.1, 0.0))):
        with pytest.raises(OptionError, match="no emotion and no gaze"):
            render_portrait(photo(), speech, PortraitOptions(controls=controls))
    monkeypatch.setenv("LIPSYNC_LIVEPORTRAIT", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="name a folder of converted weights"):
        render_portrait(photo(), speech)
