"""The hallo2 profile from files to frames: real parts of reduced width with random weights."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data
from torch import nn

from benchmarks.engines import hallo2
from deployments.contracts import Speech
from deployments.engines.emo.hallo2.config import Hallo2Config, ProfileConfig, SampleConfig, SpeechConfig, VaeConfig
from deployments.engines.emo.hallo2.face import Sitter, Square, levels_of, sit, square_of
from deployments.engines.emo.hallo2.net import Hallo2
from deployments.engines.emo.hallo2.pipeline import Performer
from deployments.engines.emo.hallo2.schedule import steps_of
from deployments.engines.emo.hallo2.speech import SpeechNet, hear
from deployments.engines.emo.hallo2.vae import Vae
from deployments.engines.emo.hallo2.weights import NET, SPEECH, VAE, Parts, load_parts
from deployments.engines.emo.portrait import PortraitOptions, posed, render_portrait, rim_share
from deployments.engines.registry import ENGINES
from deployments.errors import OptionError, WeightsError
from deployments.face.track import track_image
from deployments.portrait.controls import Controls
from serve_app.portrait import PortraitRequest, run_portrait
from serve_app.request import SpeechSource

TINY = ProfileConfig(
    Hallo2Config(
        channels=(8, 16, 16, 16), heads=2, groups=4, context=12, face=6,
        audio_layers=2, audio_hidden=8, audio_tokens=3, locator=(4, 4, 4, 4),
    ),
    VaeConfig(channels=(8, 16, 16, 16), groups=4),
    SpeechConfig(channels=8, hidden=12, feed=16, layers=2, heads=2, place_kernel=8, place_groups=2),
    half=False,
)  # fmt: skip
SAMPLE = SampleConfig(side=64, window=4, steps=3, decoded=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator's folder: random weights under the public names, the old ones where files have them."""
    folder: Path = tmp_path_factory.mktemp("hallo2")
    torch.manual_seed(0)
    net, vae, speech = Hallo2(TINY.net), Vae(TINY.vae), SpeechNet(TINY.speech)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.15)
    old = {name.replace("attentions.0.to_q.", "attentions.0.query."): t for name, t in vae.state_dict().items()}
    heard = {f"wav2vec2.{name}": t for name, t in speech.state_dict().items()}
    for name, tensors in ((NET, net.state_dict()), (VAE, old), (SPEECH, {**heard, "lm_head.bias": torch.zeros(32)})):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder


@pytest.fixture(scope="module")
def parts(files: Path) -> Parts:
    return load_parts(files, TINY)


@pytest.fixture(scope="module")
def sitter() -> Sitter:
    picture = np.ascontiguousarray(data.astronaut()[:320, 60:380])
    points = track_image(picture).landmarks[0]
    return sit(picture, points, square_of(points, (320, 320)), 64, np.linspace(-1, 1, 6, dtype=np.float32))


def spoken(parts: Parts, seconds: float) -> tuple[torch.Tensor, int]:
    time = np.arange(int(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9)) * np.hanning(len(time))
    return hear(parts.speech, tone.astype(np.float32), SAMPLE.window)


def played(parts: Parts, sitter: Sitter, seconds: float, config: SampleConfig = SAMPLE) -> torch.Tensor:
    return torch.stack(list(Performer(parts, sitter, config).frames(*spoken(parts, seconds))))


def test_speech_and_a_picture_give_frames_and_the_same_again(parts: Parts, sitter: Sitter) -> None:
    told: list[tuple[int, int]] = []
    heard, wanted = spoken(parts, 0.23)
    assert heard.shape == (8, 5, 2, 12) and wanted == 6, "two whole windows are heard, six frames are wanted"
    frames = torch.stack(
        list(Performer(parts, sitter, SAMPLE).frames(heard, wanted, lambda _, done, total: told.append((done, total))))
    )
    assert frames.shape == (6, 3, 64, 64) and float(frames.min()) >= 0 and float(frames.max()) <= 1
    assert float(frames.std()) > 0.01 and told == [(4, 8), (8, 8)]
    torch.testing.assert_close(played(parts, sitter, 0.23), frames, rtol=0, atol=0)
    assert (played(parts, sitter, 0.23, replace(SAMPLE, seed=1)) - frames).abs().max() > 1e-3


def test_a_window_can_be_made_by_whoever_has_the_frames_before_it(parts: Parts, sitter: Sitter) -> None:
    heard, wanted = spoken(parts, 0.48)
    whole = torch.stack(list(Performer(parts, sitter, SAMPLE).frames(heard, wanted)))
    alone = Performer(parts, sitter, SAMPLE)
    torch.testing.assert_close(alone.window(2, heard[8:12], whole[6:8]), whole[8:12])
    torch.testing.assert_close(alone.window(0, heard[:4], alone.start()), whole[:4])
    assert (alone.window(2, heard[8:12], alone.start()) - whole[8:12]).abs().max() > 1e-4, "carried frames are seen"


def test_what_is_heard_moves_the_frames_and_expression_says_how_much(parts: Parts, sitter: Sitter) -> None:
    def change(expression: float) -> float:
        performer = Performer(parts, sitter, replace(SAMPLE, expression=expression))
        one, other = (performer.window(0, heard, performer.start()) for heard in sounds)
        return float((one - other).abs().mean())

    torch.manual_seed(3)
    sounds = torch.randn(2, 4, 5, 2, 12)
    still, natural = change(0.0), change(1.0)
    assert natural > 1e-4 and still < 0.2 * natural


def test_guidance_needs_two_passes_and_changes_the_frames(parts: Parts, sitter: Sitter) -> None:
    counts = {1.0: 0, 3.5: 0}
    frames = {}
    for guidance in counts:
        hook = parts.net.denoising_unet.register_forward_hook(
            lambda _, given, __, key=guidance: counts.__setitem__(key, counts[key] + len(given[0]))
        )
        frames[guidance] = played(parts, sitter, 0.1, replace(SAMPLE, guidance=guidance))
        hook.remove()
    assert counts == {1.0: 3 * 4, 3.5: 2 * 3 * 4}
    assert (frames[1.0] - frames[3.5]).abs().max() > 1e-3


def test_half_precision_gives_nearly_the_same_frames(files: Path, parts: Parts, sitter: Sitter) -> None:
    half = load_parts(files, replace(TINY, half=True))
    assert {parameter.dtype for parameter in half.net.parameters()} == {torch.bfloat16}
    fine, coarse = (played(one, sitter, 0.1, replace(SAMPLE, steps=2)) for one in (parts, half))
    assert float((fine - coarse).abs().mean()) < 0.1 * float(fine.std())


def test_exact_velocities_lead_from_noise_to_the_clean_latent() -> None:
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for count in (1, 7, 10):
        x = noise
        for step in steps_of(count):
            assert torch.allclose(x, step.now**0.5 * clean + (1 - step.now) ** 0.5 * noise, atol=1e-5)
            x = step.next(x, step.now**0.5 * noise - (1 - step.now) ** 0.5 * clean)
        torch.testing.assert_close(x, clean, rtol=0, atol=1e-5)
    assert [step.time for step in steps_of(10)] == list(range(999, 0, -100)) and steps_of(10)[0].now == 0


def test_the_parts_of_a_face_lie_where_they_are(sitter: Sitter) -> None:
    beside, face, lips = sitter.parts
    row, column = (int(part.mean()) for part in np.nonzero(lips > 0.9))
    assert 24 < column < 40 and 32 < row < 60, "the mouth is in the lower half, in the middle"
    assert face[row, column] < 0.1 < face[20, 32] and beside[0, 0] > 0 == beside[32, 32]
    assert sitter.region[32, 32] == 1 and sitter.region[0, 0] == 0
    fine, coarse = levels_of(sitter.parts, 8, 2)
    assert fine.shape == (3, 64) and coarse.shape == (3, 16)
    assert abs(float(fine[2].mean()) - float(lips.mean())) < 0.02


def test_a_square_stays_inside_the_picture() -> None:
    points = np.zeros((478, 3), np.float32)
    points[:, 0], points[:, 1] = 45, 55
    points[[10, 152], 1] = 10, 100
    assert square_of(points, (200, 300)) == Square(0, 0, 150)
    assert square_of(points, (120, 300)).side == 120


def test_long_speech_is_heard_in_parts_without_a_gap(parts: Parts) -> None:
    noise = np.random.default_rng(0).standard_normal(16000 * 61).astype(np.float32)
    heard, wanted = hear(parts.speech, noise, 16)
    assert wanted == 61 * 25 and len(heard) == 1536
    torch.testing.assert_close(heard[1499, 3], heard[1500, 2])
    first, _ = hear(parts.speech, noise[: 16000 * 60], 4)
    torch.testing.assert_close(heard[:1400], first[:1400])


@pytest.mark.parametrize("name", [NET, VAE, SPEECH])
def test_files_that_are_not_there_are_named(files: Path, tmp_path: Path, name: str) -> None:
    for file in files.iterdir():
        if file.name != name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(WeightsError, match=f"got no {name}"):
        load_parts(tmp_path, TINY)


def test_other_weights_are_refused_with_their_keys_and_pickles_are_not_opened(files: Path, tmp_path: Path) -> None:
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / VAE).unlink()
    tensors = dict(Vae(TINY.vae).state_dict())
    del tensors["quant_conv.bias"]
    tensors |= {"ghost.weight": torch.zeros(1), "decoder.conv_out.bias": torch.zeros(4)}
    save_file(tensors, tmp_path / VAE)
    with pytest.raises(WeightsError) as caught:
        load_parts(tmp_path, TINY)
    for words in ("1 missing: quant_conv.bias", "1 unknown: ghost.weight", "1 of another shape: decoder.conv_out.bias"):
        assert words in str(caught.value)
    torch.save(tensors, tmp_path / VAE)
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_parts(tmp_path, TINY)


def test_the_full_sizes_are_the_public_ones() -> None:
    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        vae, speech = Vae(), SpeechNet()
    assert count(vae) == 83_653_863, "Stable Diffusion's auto-encoder"
    assert count(speech) == 94_371_712 - 768, "wav2vec2-base without the vector that masks frames in training"


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"guidance": 0.5}, {"expression": 2.1}, {"side": 500}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        SampleConfig(**wrong)


def test_a_portrait_talks_inside_its_square_and_keeps_the_photo_around_it(files: Path) -> None:
    photo = np.ascontiguousarray(data.astronaut()[:320, 60:380])
    speech = Speech(np.sin(np.arange(1920) / 20).astype(np.float32), 16000)
    options = PortraitOptions(SAMPLE, controls=Controls("happy"))
    rate, frames = render_portrait(photo, speech, options, folder=files, profile=TINY)
    found = list(frames)
    square = square_of(track_image(photo).landmarks[0], (320, 320))
    assert rate == 25 and len(found) == 3 and all(frame.shape == photo.shape for frame in found)
    happy = posed(photo, options)
    changed = (found[0] != happy).any(-1)
    assert changed[square.y + square.side // 2, square.x + square.side // 2]
    changed[square.y : square.y + square.side, square.x : square.x + square.side] = False
    assert not changed.any(), "around the square is the photo"
    assert (happy != photo).any(), "the emotion is drawn into what the networks read"
    np.testing.assert_array_equal(posed(photo, PortraitOptions()), photo)


def test_the_rim_fades_except_where_the_photo_ends() -> None:
    share = rim_share((100, 200), Square(50, 0, 100))
    assert share[50, 50] == 1 and share[0, 50] == share[99, 50] == 1 and share[50, 0] < 0.05 and share[50, 99] < 0.05


def test_a_portrait_without_the_profiles_files_says_which_ones_it_wants(tmp_path: Path) -> None:
    photo = np.ascontiguousarray(data.astronaut()[:320, 60:380])
    with pytest.raises(WeightsError, match=r"net.safetensors .* vae.safetensors .* speech.safetensors"):
        render_portrait(photo, Speech(np.ones(1600, np.float32), 16000), folder=tmp_path)


def test_a_portrait_by_name_is_refused_in_words_where_its_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    assert ENGINES["emo"].pictures, "an API takes a picture for it, too"
    photo, sound, out = tmp_path / "photo.png", tmp_path / "sound.wav", tmp_path / "out.mp4"
    cv2.imwrite(str(photo), np.ascontiguousarray(data.astronaut()[:320, 60:380, ::-1]))
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((9000 * np.sin(np.arange(8000) / 9)).astype("<i2").tobytes())
    request = PortraitRequest(photo, SpeechSource(audio=sound), out, engine="emo")
    with pytest.raises(WeightsError, match=r"net.safetensors .* vae.safetensors .* speech.safetensors") as caught:
        run_portrait(request)
    assert caught.value.http_status == 503 and not out.exists()


def test_the_benchmark_times_only_on_a_gpu(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    once = replace(SAMPLE, guidance=1.0, steps=1)
    ticks = iter([5.0, 7.0])
    public = hallo2.Public(parts, hallo2.nobody(once, TINY), once)
    assert hallo2.timed(public, hallo2.heard(TINY, once), once, 2, lambda: next(ticks)) == 2 * 4 / 2.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(hallo2.speed(TINY, once, 1, False)) == ["not_measured"]
