"""The engine shows the mouth that was asked for, the same in every cut of the work; what it learned is of use."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.contracts import Avatar, Motion, Patch, Span
from deployments.engines.vasa1.appearance import Mix, fit_appearance, load_appearance, textures_of
from deployments.engines.vasa1.config import DecoderConfig, FitConfig, Vasa1Config
from deployments.engines.vasa1.engine import Vasa1
from deployments.engines.vasa1.fit import META, WEIGHTS, load_learned
from deployments.engines.vasa1.lessons import Lessons, clues_of
from deployments.engines.vasa1.network import Decoder, mixed
from deployments.engines.vasa1.render import Fields, mix
from deployments.engines.vasa1.window import place_window
from deployments.errors import Cancelled
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP, Landmarker, roi_of_points
from deployments.face.track import track_clip
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import track_coefficients
from deployments.retrieval.bank import Bank, load_bank
from deployments.retrieval.select import select
from deployments.retrieval.warp import blend, place
from deployments.retrieval.window import small_pictures, to_window

TINY = Vasa1Config(
    decoder=DecoderConfig(channels=(8, 8, 16, 16), blocks=(1, 1, 1, 1), code=8, window_pixels=2048),
    fit=FitConfig(steps=12, batch=2, check_every=4, smallest=20, decoder_frames=20, exclude=(2,), gain=-9.0, patience=9),
)


@dataclass(frozen=True)
class Fitted:
    engine: Vasa1
    avatar: Avatar
    bank: Bank


@pytest.fixture(scope="module")
def fitted(talking, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    engine = Vasa1(TINY)
    avatar = engine.fit(talking.clip, talking.track, tmp_path_factory.mktemp("vasa1"))
    return Fitted(engine, avatar, load_bank(avatar.path))


def own_motion(talking, bank: Bank) -> Motion:
    coefficients = track_coefficients(talking.track, bank.stable)
    return Motion(coefficients, np.ones(len(coefficients), np.float32))


def patches(talking, fitted: Fitted, motion: Motion, span: Span) -> list[Patch | None]:
    return list(fitted.engine.render(fitted.avatar, motion, decode(talking.clip, span), talking.track, span))


def shown(rgb: np.ndarray, patch: Patch) -> np.ndarray:
    out = rgb.astype(np.float32)
    height, width = patch.alpha.shape
    window = out[patch.y : patch.y + height, patch.x : patch.x + width]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def gap(rgb: np.ndarray, around: np.ndarray) -> float:
    points, _ = Landmarker().points(rgb, roi_of_points(around), passes=2)
    return float(points[LOWER_INNER_LIP, 1] - points[UPPER_INNER_LIP, 1])


def test_a_decoder_that_has_learned_nothing_gives_the_mix_that_it_is_given() -> None:
    torch.manual_seed(0)
    pictures, weights = torch.rand(2, 6, 3, 32, 48), torch.softmax(torch.randn(2, 6), 1)
    logits, residual = Decoder(TINY.decoder)(torch.rand(2, 26, 32, 48), torch.randn(2, TINY.decoder.code + 11))
    picture, _ = mixed(pictures, weights, logits)
    torch.testing.assert_close(picture + residual, (weights[..., None, None, None] * pictures).sum(1))


def test_the_mix_with_even_shares_is_the_training_free_picture(talking, fitted: Fitted) -> None:
    bank = fitted.bank
    choice = select(bank, bank.coefficients[5:6], bank.angles[5:6], TINY)
    here = place(bank, bank.vertices[5] + 40, bank.vertices[5] + 40, (400, 400))
    assert here is not None
    shares = np.broadcast_to(choice.weights[0], (*here.alpha.shape, 5))
    nothing = np.zeros((*here.alpha.shape, 3), np.float32)
    found = mix(bank, here.raster, choice.rows[0], Fields(shares, nothing, None))
    expected = blend(bank, here.raster, choice.rows[0], choice.weights[0])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[here.alpha > 0], other[here.alpha > 0], atol=0.01)


def test_the_code_of_a_mouth_brings_its_picture_back(fitted: Fitted) -> None:
    bank, learned = fitted.bank, load_learned(fitted.avatar.path)
    matrices = [learned.window.matrix(bank.stable, vertices) for vertices in bank.vertices]
    targets = np.stack([to_window(m, v) for m, v in zip(matrices, bank.vertices, strict=True)])
    textures = textures_of(bank, small_pictures(bank, learned.window), learned.window, targets.mean(0))
    rows = np.arange(len(bank.frames))
    clues = clues_of(bank, bank.coefficients, bank.angles)
    model = fit_appearance(textures, rows, [clues], [Mix(rows[:, None].astype(np.int32), np.ones((len(rows), 1), np.float32))], 8)
    centred = textures.pixels - model.mean
    left = centred - model.codes @ model.basis
    assert (left**2).sum() < 0.2 * (centred**2).sum()
    np.testing.assert_allclose(model.codes.std(0), 1, atol=0.05)


def test_what_is_kept_of_the_look_is_what_was_learned(fitted: Fitted) -> None:
    model = load_appearance(fitted.avatar.path / "appearance.safetensors")
    assert model.basis.shape == (8, model.mean.shape[0]) and len(model.codes) == len(fitted.bank.frames)


def test_its_own_motion_gives_its_own_picture(talking, fitted: Fitted) -> None:
    everything = Span(0, talking.clip.frames)
    found = patches(talking, fitted, own_motion(talking, fitted.bank), everything)
    for picture, patch in zip(decode(talking.clip, everything), found, strict=True):
        frame = picture.rgb()[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
        error = ((frame.astype(float) - patch.rgb)[patch.alpha > 0.5] ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 27


def test_chunks_agree_to_the_bit(talking, fitted: Fitted) -> None:
    motion = own_motion(talking, fitted.bank)
    motion = replace(motion, coefficients=np.roll(motion.coefficients, 5, axis=0))
    assert load_learned(fitted.avatar.path).decoder
    whole = patches(talking, fitted, motion, Span(0, talking.clip.frames))
    edges = [0, 7, 8, 20, talking.clip.frames]
    pieces = [p for a, b in pairwise(edges) for p in patches(talking, fitted, motion, Span(a, b))]
    for one, other in zip(whole, pieces, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.alpha, other.alpha)


def test_the_mouth_opens_and_closes_when_asked(talking, fitted: Fitted) -> None:
    motion = own_motion(talking, fitted.bank)
    order = np.argsort(talking.opening)
    most, least = motion.coefficients[order[-3:]].mean(0), motion.coefficients[order[:3]].mean(0)
    span = Span(4, 10)
    gaps = {}
    for name, wanted in (("open", most), ("shut", least)):
        asked = replace(motion, coefficients=np.tile(wanted, (talking.clip.frames, 1)))
        pairs = zip(decode(talking.clip, span), patches(talking, fitted, asked, span), strict=True)
        gaps[name] = np.mean([gap(shown(p.rgb(), patch), talking.track.landmarks[p.index]) for p, patch in pairs])
    assert gaps["open"] > gaps["shut"] + 3.0


def test_frames_that_are_not_asked_for_or_have_no_face_get_no_patch(talking, fitted: Fitted) -> None:
    motion = own_motion(talking, fitted.bank)
    weight, usable = motion.weight.copy(), talking.track.usable.copy()
    weight[:10], usable[20] = 0, False
    asked, track, span = replace(motion, weight=weight), replace(talking.track, usable=usable), Span(5, 25)
    found = list(fitted.engine.render(fitted.avatar, asked, decode(talking.clip, span), track, span))
    assert [patch is None for patch in found] == [frame < 10 or frame == 20 for frame in range(5, 25)]


def test_an_interrupted_fit_goes_on_and_ends_as_an_uninterrupted_one(talking, fitted: Fitted, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "learn" and done == 7:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fitted.engine.fit(talking.clip, talking.track, tmp_path, stop)
    assert not (tmp_path / META).is_file()
    again = fitted.engine.fit(talking.clip, talking.track, tmp_path)
    assert again.digest == fitted.avatar.digest
    for name in (WEIGHTS, "appearance.safetensors"):
        assert (tmp_path / name).read_bytes() == (fitted.avatar.path / name).read_bytes()


@pytest.mark.clips
@pytest.mark.slow
def test_what_is_learned_of_a_real_person_makes_unseen_frames_better(clips_dir: Path, tmp_path: Path) -> None:
    clip = probe(clips_dir / "evaluation_only" / "closeup_512_podium_8s.mp4")
    engine = Vasa1(Vasa1Config(fit=FitConfig(steps=0)))
    avatar = engine.fit(clip, track_clip(clip, passes=1), tmp_path)
    facts = json.loads((avatar.path / META).read_text())
    assert facts["psnr_mixed"] > facts["psnr_looked_up"] + 0.2


def test_a_lesson_never_sees_its_own_frame_or_a_held_out_one(fitted: Fitted) -> None:
    bank = fitted.bank
    window = place_window(bank, TINY.decoder)
    lessons = Lessons(bank, small_pictures(bank, window), window, TINY)
    for row in range(len(bank.frames)):
        rows = lessons._choices[0].rows[row]
        assert (np.abs(bank.frames[rows] - bank.frames[row]) > TINY.fit.exclude[0]).all()
        assert not np.isin(rows, lessons.held_out).any()


def test_too_few_frames_to_learn_from_leave_the_avatar_training_free(talking, tmp_path: Path) -> None:
    usable = np.zeros(talking.clip.frames, bool)
    usable[:12] = True
    track = replace(talking.track, usable=usable)
    engine = Vasa1(TINY)
    avatar = engine.fit(talking.clip, track, tmp_path)
    assert not load_learned(tmp_path).painted
    motion = own_motion(talking, load_bank(tmp_path))
    found = list(engine.render(avatar, motion, decode(talking.clip, Span(0, 3)), track, Span(0, 3)))
    assert all(patch is not None for patch in found)
