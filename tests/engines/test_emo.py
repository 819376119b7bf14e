"""The engine hears: what the lips' shape does not tell comes from the sound. Chunks agree, an interrupted fit goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Avatar, Clip, Motion, Patch, Span, Speech, Track
from deployments.engines.emo.config import DenoiserConfig, EmoConfig, FitConfig, FlowConfig, LatentConfig, WindowConfig
from deployments.engines.emo.engine import Emo
from deployments.engines.emo.fit import META, load_learned
from deployments.engines.emo.flow import noise_of, sample, window_weights, windows_over
from deployments.engines.emo.motion import HEARD, Wishes, singing_of, told_wishes, wishes_of
from deployments.engines.emo.network import Denoiser, Shots
from deployments.engines.emo.render import studio_of
from deployments.engines.emo.singing import held_notes, sung
from deployments.engines.video_rewrite.engine import VideoRewrite
from deployments.errors import Cancelled, OptionError, WeightsError
from deployments.face.landmarks import LIPS_OUTER
from deployments.face.track import track_image
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan
from deployments.motion.dubbing import track_coefficients
from deployments.motion.lip_space import LipSpace
from deployments.portrait.move import generic_mouth
from deployments.records import load_motion, save_motion
from deployments.retrieval.bank import load_bank

TINY = EmoConfig(
    sound_weight=0.0,  # a clip of a few frames, over and over: every mouth is there with every sound
    window=WindowConfig(pixels=1600, colour_density=24, light=0.6),
    latent=LatentConfig(channels=4, widths=(16, 24)),
    denoiser=DenoiserConfig(widths=(24, 32), heard=4, references=2, window=6, before=2, overlap=2),
    fit=FitConfig(
        code_steps=90,
        code_batch=8,
        code_rate=3e-3,
        steps=120,
        rate=2e-3,
        average=0.95,
        check_every=30,
        smallest=20,
        exclude=(2,),
        held_out=0.2,
        doubt=0.1,
        shift=0,
        faith=1.0,
    ),
)
FRAMES = 80
BLOCK = 5  # frames of one sound


def voice(kind: int, count: int, rate: int) -> np.ndarray:
    """A vowel, or a hiss."""
    time = np.arange(count) / rate
    vowel = sum(np.sin(2 * np.pi * 140 * k * time) / (1 + abs(k - 5)) for k in range(1, 12))
    hiss = np.diff(np.random.default_rng(1).standard_normal(count + 1))
    return (0.1 * vowel if kind else 0.08 * hiss).astype(np.float32)


def kinds() -> np.ndarray:
    """1 where a frame's sound is the vowel."""
    return np.arange(FRAMES) // BLOCK % 2


def sound(order: np.ndarray) -> np.ndarray:
    """Sound at 48 kHz of frames at 25 per second."""
    return np.concatenate([voice(kind, 1920, 48000) for kind in order])


@dataclass(frozen=True)
class Fitted:
    engine: Emo
    avatar: Avatar
    clip: Clip
    track: Track


@pytest.fixture(scope="module")
def fitted(talking, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A person whose mouth is blue while a vowel sounds: no landmark tells it, the sound does."""
    folder: Path = tmp_path_factory.mktemp("emo")
    once = talking.clip.frames
    order = np.arange(FRAMES) % once
    filmed = {picture.index: picture.rgb().copy() for picture in decode(talking.clip, Span(0, once))}
    frames = [
        painted(filmed[k], talking.track.landmarks[k]) if kind else filmed[k] for k, kind in zip(order, kinds(), strict=True)
    ]
    path = folder / "blue.mp4"
    encode_new(320, 320, Fraction(25), frames, SoundPlan(sound(kinds()), 48000), EncodeOptions("high"), path)
    clip = probe(path)
    shot = np.zeros(FRAMES, np.int32)
    track = Track(talking.track.landmarks[order], talking.track.score[order], talking.track.usable[order], shot)
    engine = Emo(TINY)
    return Fitted(engine, engine.fit(clip, track, folder / "avatar"), clip, track)


def painted(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The picture with blue lips."""
    lips = landmarks[list(LIPS_OUTER), :2].astype(np.int32)
    spot = cv2.GaussianBlur(cv2.fillConvexPoly(np.zeros(rgb.shape[:2], np.float32), lips, 1), (0, 0), 2)[..., None]
    return (rgb + 0.6 * spot * (np.array([30, 60, 200]) - rgb)).astype(np.uint8)


def own_motion(fitted: Fitted, order: np.ndarray | None = None) -> Motion:
    """The clip's own lips; what is heard: the sounds of `order`."""
    coefficients = track_coefficients(fitted.track, load_bank(fitted.avatar.path).stable)
    speech = Speech(sound(kinds() if order is None else order), 48000)
    extra = fitted.engine.animate(speech, fitted.clip, fitted.track, fitted.avatar, {"liveliness": 0}).extra
    return Motion(coefficients, np.ones(FRAMES, np.float32), extra=extra)


def made_motion(fitted: Fitted, samples: np.ndarray, **options: float) -> Motion:
    """The engine's motion for a sound of the clip's length."""
    rate = round(len(samples) * 25 / FRAMES)
    return fitted.engine.animate(Speech(samples, rate), fitted.clip, fitted.track, fitted.avatar, options)


def note(pitch: float, start: float, stop: float, seconds: float) -> np.ndarray:
    """A vowel "ah" sung with vibrato at 16 kHz: harmonics, louder at the formants; hardly any noise around it."""
    time = np.arange(round(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time))) / 16000
    tones = np.arange(1, int(7000 / pitch))
    shape = sum(1 / (1 + ((tones * pitch - formant) / width) ** 2) for formant, width in ((750, 90), (1150, 110), (2500, 160)))
    voice = (np.sin(tones[:, None] * phase) * ((shape + 0.02) / tones**0.5)[:, None]).sum(0)
    loudness = np.clip(np.minimum(time - start, stop - time) / 0.03, 0, 1)
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.2 * voice / np.abs(voice).max() * loudness + 1e-4 * noise).astype(np.float32)


def gap(fitted: Fitted, motion: Motion, frame: int) -> float:
    """Eye distances between the inner lips of a rendered frame, tracked anew."""
    span = Span(frame, frame + 1)
    rgb = next(iter(decode(fitted.clip, span))).rgb().astype(np.float32)
    (patch,) = patches(fitted, motion, span)
    window = rgb[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
    window += patch.alpha[..., None] * (patch.rgb - window)
    points = track_image(np.rint(rgb).astype(np.uint8)).landmarks[0]
    return float(np.linalg.norm(points[13] - points[14]) / np.linalg.norm(points[33, :2] - points[263, :2]))


def patches(fitted: Fitted, motion: Motion, span: Span, engine: Emo | VideoRewrite | None = None) -> list[Patch]:
    found = list((engine or fitted.engine).render(fitted.avatar, motion, decode(fitted.clip, span), fitted.track, span))
    assert all(patch is not None for patch in found)
    return found


def blueness(fitted: Fitted, found: list[Patch], span: Span) -> np.ndarray:
    """How blue the lips are in every patch."""
    values = []
    for patch, frame in zip(found, range(span.start, span.stop), strict=True):
        lips = fitted.track.landmarks[frame, list(LIPS_OUTER), :2] - (patch.x, patch.y)
        mask = cv2.fillConvexPoly(np.zeros(patch.alpha.shape, np.uint8), lips.astype(np.int32), 1) > 0
        values.append(float(patch.rgb[mask].astype(float).mean(0) @ (-0.5, -0.5, 1)))
    return np.array(values)


def test_what_was_learned_makes_unseen_frames_better(fitted: Fitted) -> None:
    facts = json.loads((fitted.avatar.path / META).read_text())
    assert facts["hears"] and facts["share"] > 0
    assert facts["psnr_generated"] > facts["psnr_training_free"] + 1.0
    checks = facts["denoiser_checks"]
    assert checks[-1]["loss"] < checks[1]["loss"]


def test_the_sound_decides_where_the_lips_do_not(fitted: Fitted) -> None:
    span = Span(0, FRAMES)
    own, other = own_motion(fitted), own_motion(fitted, 1 - kinds())
    np.testing.assert_array_equal(own.coefficients, other.coefficients)
    first, second = patches(fitted, own, span), patches(fitted, other, span)
    vowel = kinds() == 1
    difference = blueness(fitted, first, span) - blueness(fitted, second, span)
    assert difference[vowel].mean() > 3 and difference[~vowel].mean() < -3
    for one, two in zip(first, second, strict=True):
        window = load_learned(fitted.avatar.path).window
        changed = np.abs(one.rgb.astype(int) - two.rgb).max(-1) > 0
        np.testing.assert_array_equal(one.alpha, two.alpha)
        reach = (
            window.width / window.density * np.hypot(*(fitted.track.landmarks[0, 33, :2] - fitted.track.landmarks[0, 263, :2]))
        )
        assert np.ptp(np.flatnonzero(changed.any(0))) <= reach + 4, "nothing but the mouth window changes"


@pytest.mark.parametrize("remembered", [0.0, 0.4])
def test_the_memory_hears_and_shows_in_the_mouth_alone(fitted: Fitted, tmp_path: Path, remembered: float) -> None:
    for file in fitted.avatar.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = json.loads((tmp_path / META).read_text()) | {"remembered": remembered, "share": 0.0}
    (tmp_path / META).write_text(json.dumps(facts))
    avatar, span = Avatar("emo", tmp_path, f"remembered {remembered}"), Span(8, 12)
    one = Fitted(fitted.engine, avatar, fitted.clip, fitted.track)
    own, other = (patches(one, own_motion(one, order), span) for order in (None, 1 - kinds()))
    base = patches(one, own_motion(one), span, VideoRewrite())
    for mine, swapped, plain in zip(own, other, base, strict=True):
        np.testing.assert_array_equal(mine.alpha, plain.alpha)
        assert (mine.rgb != plain.rgb).any() == (mine.rgb != swapped.rgb).any() == (remembered > 0)
        changed = np.flatnonzero((mine.rgb != plain.rgb).any(axis=(0, 2)))
        assert len(changed) < 0.9 * mine.rgb.shape[1]


def test_of_the_filmed_mouths_the_sound_takes_those_that_sounded_alike(fitted: Fitted, tmp_path: Path) -> None:
    """No networks here: the same lips with another sound show other mouths of the person, and none without a say of the sound."""
    engine = Emo(replace(TINY, sound_weight=0.02, fit=replace(TINY.fit, smallest=FRAMES + 1)))
    avatar = engine.fit(fitted.clip, fitted.track, tmp_path)
    assert load_learned(tmp_path).share == 0
    one, span = Fitted(engine, avatar, fitted.clip, fitted.track), Span(0, FRAMES)
    own, other = own_motion(one), own_motion(one, 1 - kinds())
    vowel = kinds() == 1
    difference = blueness(one, patches(one, own, span), span) - blueness(one, patches(one, other, span), span)
    assert difference[vowel].mean() > 3 and difference[~vowel].mean() < -3
    deaf = [replace(motion, extra={**motion.extra, "wishes": Wishes(2, -1.0, 0).array()}) for motion in (own, other)]
    for mine, yours in zip(*(patches(one, motion, span) for motion in deaf), strict=True):
        np.testing.assert_array_equal(mine.rgb, yours.rgb)


def test_chunks_agree(fitted: Fitted) -> None:
    motion = own_motion(fitted)
    motion = replace(motion, coefficients=np.roll(motion.coefficients, 5, axis=0))
    whole = patches(fitted, motion, Span(0, FRAMES))
    pieces = []
    for start, stop in pairwise([0, 7, 8, 20, 33, FRAMES]):
        # another worker: nothing remembered
        studio_of(fitted.avatar, replace(motion, weight=motion.weight * 0), fitted.track, TINY)
        pieces += patches(fitted, motion, Span(start, stop))
    for one, other in zip(whole, pieces, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_another_seed_gives_another_picture_and_the_same_seed_the_same(fitted: Fitted) -> None:
    span, motion = Span(10, 12), own_motion(fitted)
    made = [
        patches(fitted, replace(motion, extra={**motion.extra, "wishes": Wishes(2, 0.0, s).array()}), span) for s in (0, 0, 9)
    ]
    np.testing.assert_array_equal(made[0][0].rgb, made[1][0].rgb)
    assert (made[0][0].rgb != made[2][0].rgb).any()


def test_guidance_and_so_expression_makes_the_sound_say_more_or_nothing_in_the_picture(fitted: Fitted) -> None:
    span = Span(0, 20)
    told = {amount: told_wishes(made_motion(fitted, sound(kinds()), expression=amount)) for amount in (0.0, 1.0, 2.0)}
    assert [told[amount].guidance for amount in (0.0, 1.0, 2.0)] == [-1, 0, 1]
    assert wishes_of({"expression": 2, "guidance": 0.5}).guidance == 0.5, "who asks for guidance gets it"

    def apart(amount: float) -> float:
        motion = own_motion(fitted)
        found = patches(fitted, replace(motion, extra={**motion.extra, "wishes": told[amount].array()}), span)
        blue, vowel = blueness(fitted, found, span), kinds()[:20] == 1
        return float(blue[vowel].mean() - blue[~vowel].mean())

    nothing, once, twice = (apart(amount) for amount in (0.0, 1.0, 2.0))
    assert nothing < 0.5 * once < once < twice


def test_a_sung_note_holds_the_mouth_open_from_its_beginning_to_its_end(fitted: Fitted) -> None:
    start, stop, pitch = 0.6, 2.6, 440
    song = note(pitch, start, stop, FRAMES / 25)
    (found,) = held_notes(song)
    assert abs(found.start - start) < 0.06 and abs(found.stop - stop) < 0.06 and abs(found.pitch / pitch - 1) < 0.02
    motion = made_motion(fitted, song, singing=1)
    times, opening = fitted.clip.times(), LipSpace.load().aperture(motion.coefficients)
    inside, outside = (times > start + 0.1) & (times < stop - 0.1), (times < start - 0.2) | (times > stop + 0.2)
    assert opening[inside].min() > opening[outside].max() + 0.03
    assert np.ptp(opening[inside]) < 0.01, "held, not chewed"
    quiet = made_motion(fitted, song, singing=1, expression=0.3)
    assert LipSpace.load().aperture(quiet.coefficients)[inside].max() < opening[inside].min()
    middle, after = (gap(fitted, motion, frame) for frame in (int(25 * (start + stop) / 2), int(25 * (stop + 0.3))))
    assert middle > after + 0.02, "the drawn mouth, too"


def test_speech_is_not_held_and_an_instrument_only_when_it_is_told_to_be_sung() -> None:
    assert held_notes(speech_at_16k(synthesize("We were away all day, nobody knew where."))) == []
    rng = np.random.default_rng(0)
    assert held_notes(rng.standard_normal(32000).astype(np.float32)) == []
    assert held_notes(np.zeros(32000, np.float32)) == [] == held_notes(np.zeros(10, np.float32))
    song, times, mouth = note(220, 0.6, 2.6, FRAMES / 25), np.arange(FRAMES) / 25, generic_mouth()
    still = Motion(np.tile(mouth.rest, (FRAMES, 1)), np.ones(FRAMES, np.float32))
    left, moved = (sung(still, song, times, mouth, 1.0, told).coefficients for told in (False, True))
    np.testing.assert_array_equal(left, still.coefficients)
    assert (moved != left).any()


def test_an_avatar_whose_networks_are_of_no_use_is_drawn_training_free(fitted: Fitted, tmp_path: Path) -> None:
    usable = fitted.track.usable & (np.arange(FRAMES) < 12)
    track = replace(fitted.track, usable=usable)
    avatar = fitted.engine.fit(fitted.clip, track, tmp_path)
    assert load_learned(tmp_path).share == 0 and not (tmp_path / "denoiser.safetensors").exists()
    motion = Motion(track_coefficients(track, load_bank(tmp_path).stable), np.ones(FRAMES, np.float32))
    one, other = Fitted(fitted.engine, avatar, fitted.clip, track), Span(0, 4)
    for mine, base in zip(patches(one, motion, other), patches(one, motion, other, VideoRewrite()), strict=True):
        np.testing.assert_array_equal(mine.rgb, base.rgb)


def test_an_interrupted_fit_goes_on_and_ends_as_an_uninterrupted_one(fitted: Fitted, tmp_path: Path) -> None:
    def stop_at(name: str, step: int):
        def stop(stage: str, done: int, total: int) -> None:
            if stage.startswith(name) and done == step:
                raise Cancelled("stopped")

        return stop

    engine = Emo(replace(TINY, fit=replace(TINY.fit, code_steps=18, steps=12, check_every=4)))
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    whole = engine.fit(fitted.clip, fitted.track, straight)
    for name, step in (("autoencoder", 11), ("denoiser", 6)):
        with pytest.raises(Cancelled):
            engine.fit(fitted.clip, fitted.track, broken, stop_at(name, step))
        assert not (broken / META).is_file()
    assert engine.fit(fitted.clip, fitted.track, broken).digest == whole.digest
    assert not list(broken.glob("*.state"))
    for name in ("autoencoder.safetensors", "denoiser.safetensors", "ear.safetensors", META):
        assert (broken / name).read_bytes() == (straight / name).read_bytes(), name


def test_the_progress_of_a_fit_tells_the_loss(fitted: Fitted, tmp_path: Path) -> None:
    told: list[str] = []
    config = replace(TINY, fit=replace(TINY.fit, code_steps=2, steps=2))
    Emo(config).fit(fitted.clip, fitted.track, tmp_path, lambda stage, done, total: told.append(stage))
    assert any(stage.startswith("autoencoder (loss 0.") for stage in told) and any("denoiser (loss" in stage for stage in told)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "pickle"])
def test_bad_weights_are_refused_with_their_keys(fitted: Fitted, tmp_path: Path, fault: str) -> None:
    for file in fitted.avatar.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "denoiser.safetensors"
    tensors = load_file(path)
    if fault == "missing":
        del tensors["enter.weight"]
    elif fault == "unknown":
        tensors["ghost.weight"] = np.zeros(3, np.float32)
    elif fault == "shape":
        tensors["enter.weight"] = tensors["enter.weight"][1:]
    save_file(tensors, path)
    if fault == "pickle":
        torch.save({"enter.weight": torch.zeros(3)}, path)
    avatar = Avatar("emo", tmp_path, f"broken {fault}")
    word = {"unknown": "ghost.weight", "pickle": "expected a safetensors file"}.get(fault, "enter.weight")
    with pytest.raises(WeightsError, match=word):
        list(fitted.engine.render(avatar, own_motion(fitted), decode(fitted.clip, Span(0, 1)), fitted.track, Span(0, 1)))


def test_what_a_motion_carries_besides_the_lips_travels(fitted: Fitted, tmp_path: Path) -> None:
    speech = Speech(sound(kinds()), 48000)
    motion = fitted.engine.animate(
        speech, fitted.clip, fitted.track, fitted.avatar, {"seed": 123456789, "steps": 4, "guidance": 0.5}
    )
    save_motion(motion, tmp_path / "motion.safetensors")
    back = load_motion(tmp_path / "motion.safetensors")
    assert back.extra[HEARD].shape == (FRAMES, TINY.denoiser.heard)
    np.testing.assert_array_equal(back.extra[HEARD], motion.extra[HEARD])
    assert told_wishes(back) == Wishes(4, 0.5, 123456789)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 9}, {"guidance": -0.1}, {"guidance": 3.5}, {"seed": -1}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        wishes_of(options)


def test_singing_is_yes_or_no() -> None:
    assert [singing_of(options) for options in ({}, {"singing": 0.0}, {"singing": 1})] == [False, False, True]
    with pytest.raises(OptionError, match="singing of 0 or 1"):
        singing_of({"singing": 0.5})


def shots_of(config: EmoConfig, start: torch.Tensor) -> Shots:
    windows, frames, before = len(start), config.denoiser.window, config.denoiser.before
    size = start.shape[-2:]
    return Shots(
        start, torch.rand(windows, frames, 8, *size), torch.randn(windows, frames, 16),
        torch.randn(windows, frames, 5, config.denoiser.heard), torch.ones(windows), torch.randn(windows, before, 4, *size),
        torch.ones(windows, frames, before + frames, dtype=torch.bool), torch.ones(windows, frames, 2, dtype=torch.bool),
    )  # fmt: skip


def test_a_denoiser_that_has_learned_nothing_gives_the_training_free_picture() -> None:
    torch.manual_seed(0)
    start = torch.randn(2, 6, 4, 8, 12)
    model = Denoiser(TINY.latent, TINY.denoiser, (8, 12))
    for steps in (1, 2, 4):
        torch.testing.assert_close(sample(model, shots_of(TINY, start), torch.randn_like(start), 0.4, steps), start)


def test_every_row_is_predicted_by_windows_of_the_absolute_grid() -> None:
    config = DenoiserConfig(window=8, overlap=2)
    for row in range(60):
        firsts = windows_over(row, config)
        assert firsts == [k for k in range(0, 60, 6) if k <= row < k + 8]
    assert window_weights(config).min() > 0


def test_noise_belongs_to_the_clip_and_a_little_to_the_absolute_frame() -> None:
    flow = FlowConfig(shimmer=0.2)
    whole = noise_of(range(10, 20), (4, 8, 8), 3, flow)
    torch.testing.assert_close(noise_of([14, 17], (4, 8, 8), 3, flow), whole[[4, 7]])
    rows = whole.flatten(1)
    assert abs(float(torch.corrcoef(rows)[0, 1:].mean()) - 0.8) < 0.05
    assert abs(float(rows.std()) - 1) < 0.1
