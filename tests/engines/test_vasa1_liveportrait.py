"""The published networks: their file's own names and shapes, folds that change nothing, loading strictly or not at all."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from benchmarks.engines.liveportrait import SMALL as TINY
from benchmarks.engines.liveportrait import SMALL_MOTION as TINY_MOTION
from benchmarks.engines.liveportrait import lively, random_nets
from deployments.engines.vasa1.liveportrait.config import MotionConfig
from deployments.engines.vasa1.liveportrait.enlarged import EnlargedConv
from deployments.engines.vasa1.liveportrait.layers import fold_all
from deployments.engines.vasa1.liveportrait.load import (
    PortraitNets,
    fill,
    load_motion_net,
    load_portrait_nets,
    load_template,
    new_portrait_nets,
    placed,
    tidied,
)
from deployments.engines.vasa1.liveportrait.names import APPEARANCE, GENERATOR, MOTION, STITCHING, Names
from deployments.engines.vasa1.liveportrait.sampling import signal_shares
from deployments.engines.vasa1.liveportrait.transformer import MotionNet
from deployments.engines.vasa1.liveportrait.warping import places
from deployments.errors import WeightsError

# tensors of each public file, and a digest of their sorted names and shapes, taken from the public definitions
PUBLISHED = {
    "appearance_feature_extractor": (107, "8ffe3a4eb733e654"),
    "motion_extractor": (212, "03076bbc0669460d"),
    "warping_module": (97, "2eb695bedff37e7e"),
    "spade_generator": (182, "40a0ddc9ae517a5c"),
    "stitching_retargeting_module": (28, "4ba43fdbd0a834c3"),
    "motion_generator": (369, "43e8b6943ac06201"),
}


@pytest.fixture(scope="module")
def nets() -> PortraitNets:
    return random_nets(TINY, torch.device("cpu"))


Net = TypeVar("Net", bound=nn.Module)


def folded(net: Net) -> Net:
    made = copy.deepcopy(net)
    fold_all(made)
    return made


def as_published(net: nn.Module, names: Names) -> dict[str, torch.Tensor]:
    """A network's tensors as the public file would hold them, norms of weights not carried out."""
    found: dict[str, torch.Tensor] = {}
    wanted = names.wanted(net.state_dict())
    for name, tensor in net.state_dict().items():
        public = names.public(name)
        if f"{public}_orig" in wanted:
            left, size, right = torch.linalg.svd(tensor.flatten(1))
            found |= {f"{public}_orig": tensor, f"{public}_u": left[:, 0], f"{public}_v": right[0]}
            assert size[0] > 0
        elif f"{public}_g" in wanted:
            found |= {f"{public}_g": torch.full(wanted[f"{public}_g"], 2.0), f"{public}_v": tensor}
        else:
            found[public] = tensor
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def written(folder: Path, nets: PortraitNets) -> Path:
    for net, names in nets.parts():
        save_file(as_published(net, names), folder / f"{names.file}.safetensors")
    return folder


def test_names_and_shapes_are_those_of_the_public_files() -> None:
    with torch.device("meta"):
        full = new_portrait_nets(where=torch.device("meta"))
        motion = MotionNet(MotionConfig())
    for net, names in [*full.parts(), (motion, MOTION)]:
        wanted = names.wanted(net.state_dict())
        text = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(wanted.items()))
        assert (len(wanted), hashlib.sha256(text.encode()).hexdigest()[:16]) == PUBLISHED[names.file], names.file


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_convolution_of_an_enlarged_map_is_the_same_on_the_small_one(times: int) -> None:
    torch.manual_seed(times)
    conv, x = nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 5, 4)
    want = conv(functional.interpolate(x, scale_factor=times))
    torch.testing.assert_close(EnlargedConv(conv.weight, conv.bias, times)(x), want, atol=1e-5, rtol=1e-5)


def test_folding_changes_no_answer(nets: PortraitNets) -> None:
    torch.manual_seed(3)
    picture, points = torch.rand(1, 3, 64, 64), torch.rand(1, 5, 3) - 0.5
    goals = points + 0.2 * torch.randn(2, 5, 3)
    volume = nets.appearance(picture)
    torch.testing.assert_close(folded(nets.appearance)(picture), volume, atol=1e-4, rtol=1e-4)
    features = nets.warping(volume, points, goals)
    assert features.std() > 0.01
    torch.testing.assert_close(folded(nets.warping)(volume, points, goals), features, atol=1e-4, rtol=1e-4)
    drawn = nets.generator(features)
    assert drawn.shape == (2, 3, 128, 128) and drawn.std() > 0.01
    torch.testing.assert_close(folded(nets.generator)(features), drawn, atol=1e-4, rtol=1e-4)
    motion = lively(MotionNet(TINY_MOTION))
    sound = torch.randn(1, 24, 16)
    for one, other in zip(folded(motion).listen(sound), motion.listen(sound), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_half_precision_gives_nearly_the_same_frame(nets: PortraitNets) -> None:
    low = copy.deepcopy(nets)
    for net in (low.warping, low.generator):
        fold_all(net)
    low = placed(low, torch.device("cpu"), torch.float16)
    torch.manual_seed(3)
    volume, points = nets.appearance(torch.rand(1, 3, 64, 64)), torch.rand(1, 5, 3) - 0.5
    goals = points + 0.2 * torch.randn(2, 5, 3)
    want = nets.generator(nets.warping(volume, points, goals))
    made = low.generator(low.warping(volume.half(), points, goals))
    assert made.dtype == torch.float16 and (made.float() - want).abs().mean() < 0.005 < want.std()


def test_a_layer_is_torchs_decoder_layer_that_sees_its_own_sound_only() -> None:
    motion = lively(MotionNet(TINY_MOTION))
    own = "denoising_net.transformer.layers.0."
    tensors = {MOTION.public(f"layers.0.{name}"): tensor for name, tensor in motion.layers[0].state_dict().items()}
    torchs = nn.TransformerDecoderLayer(16, 2, 32, activation="gelu", batch_first=True).eval()
    torchs.load_state_dict({name.removeprefix(own): tensor for name, tensor in tensors.items()})
    x, sound = torch.randn(1, 24, 16), torch.randn(1, 24, 16)
    want = torchs(x, sound, memory_mask=~torch.eye(24, dtype=torch.bool))
    torch.testing.assert_close(motion.layers[0](x, motion.listen(sound)[0]), want, atol=1e-5, rtol=1e-5)


def test_norms_of_weights_are_carried_out_as_torch_does() -> None:
    conv = nn.utils.spectral_norm(nn.Conv2d(6, 5, 3)).train()
    for _ in range(3):
        conv(torch.randn(1, 6, 8, 8))  # its singular vectors settle while training
    want = conv.eval()(torch.ones(1, 6, 3, 3)) - conv.bias[:, None, None]
    found = {f"G_middle_0.conv_0.{name}": tensor for name, tensor in conv.state_dict().items()}
    weight = GENERATOR.translated(found, {"middle.0.conv_in.weight": conv.weight_orig})["middle.0.conv_in.weight"]
    torch.testing.assert_close(weight.float().sum((1, 2, 3)), want[0, :, 0, 0])
    long = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 6, 4), dim=2)
    with torch.no_grad():
        long.parametrizations.weight.original0.uniform_(1, 2)
    found = {tidied(f"audio_encoder.encoder.pos_conv_embed.conv.{name}"): tensor for name, tensor in long.state_dict().items()}
    assert "audio_encoder.encoder.pos_conv_embed.conv.weight_g" in found
    weight = MOTION.translated(found, {"speech.where.weight": long.weight})["speech.where.weight"]
    torch.testing.assert_close(weight.float(), long.weight)


def test_points_that_stay_leave_the_volume_where_it_is(nets: PortraitNets) -> None:
    volume, points = torch.randn(1, 8, 4, 16, 16), torch.rand(1, 5, 3) - 0.5
    field, seen = nets.warping.field(volume, points, points)
    torch.testing.assert_close(field, places((4, 16, 16), volume)[None])
    assert seen.shape == (1, 1, 16, 16) and 0 < seen.min() < seen.max() < 1
    moved, _ = nets.warping.field(volume, points, points + 0.1)
    assert (moved - field).max() < 1e-6 and (moved - field).min() > -0.1 - 1e-6  # read from where it came from, not farther


def test_a_folder_of_published_files_is_loaded_with_their_norms_carried_out(nets: PortraitNets, tmp_path: Path) -> None:
    loaded = load_portrait_nets(written(tmp_path, nets), TINY)
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.appearance(picture), nets.appearance(picture), atol=1e-4, rtol=1e-4)
    for name, row in nets.pose(picture).items():
        torch.testing.assert_close(loaded.pose(picture)[name], row)
    points = torch.rand(1, 5, 3)
    torch.testing.assert_close(loaded.stitching(points, points + 0.1), nets.stitching(points, points + 0.1))
    for block in loaded.generator.middle:
        for conv in (block.conv_in, block.conv_out):  # type: ignore[union-attr]
            assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2) == pytest.approx(1, abs=1e-4)


def test_stitching_and_pose_files_of_several_gpus_are_read_too(nets: PortraitNets, tmp_path: Path) -> None:
    tensors = as_published(nets.stitching, STITCHING)
    save_file(
        {name.replace(".mlp", ".module.mlp"): t for name, t in tensors.items()},
        written(tmp_path, nets) / f"{STITCHING.file}.safetensors",
    )
    points = torch.rand(1, 5, 3)
    loaded = load_portrait_nets(tmp_path, TINY).stitching
    torch.testing.assert_close(loaded(points, 0.5 * points), nets.stitching(points, 0.5 * points))


def test_another_checkpoint_is_refused_with_its_keys(nets: PortraitNets, tmp_path: Path) -> None:
    tensors = as_published(nets.generator, GENERATOR)
    del tensors["G_middle_1.conv_0.weight_u"]
    tensors["G_middle_9.ghost"] = torch.zeros(1)
    tensors["up_1.norm_s.mlp_gamma.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as caught:
        fill(new_portrait_nets(TINY).generator, tensors, GENERATOR, tmp_path)
    for word in (
        "1 missing: G_middle_1.conv_0.weight_u",
        "1 unknown: G_middle_9.ghost",
        "1 of another shape: up_1.norm_s.mlp_gamma.bias [5] instead of [16]",
        "README.md",
    ):
        assert word in str(caught.value)


def test_pickles_are_refused_whatever_they_are_called(nets: PortraitNets, tmp_path: Path) -> None:
    torch.save(nets.appearance.state_dict(), tmp_path / f"{APPEARANCE.file}.pth")
    with pytest.raises(WeightsError, match=r"There is appearance_feature_extractor\.pth: a pickle is never read"):
        load_portrait_nets(tmp_path, TINY)
    (tmp_path / f"{APPEARANCE.file}.pth").rename(tmp_path / f"{APPEARANCE.file}.safetensors")
    with pytest.raises(WeightsError, match="a pickle under that name"):
        load_portrait_nets(tmp_path, TINY)
    (tmp_path / f"{APPEARANCE.file}.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(WeightsError, match="convert or copy it again"):
        load_portrait_nets(tmp_path, TINY)
    with pytest.raises(WeightsError, match=r"got no motion_generator\.safetensors \(JoyVASA"):
        load_motion_net(tmp_path, TINY_MOTION)


def motion_file(net: MotionNet) -> dict[str, torch.Tensor]:
    return as_published(net, MOTION) | {
        "diffusion_sched.alpha_bars": torch.from_numpy(signal_shares(TINY_MOTION.steps)).float(),
        "denoising_net.alignment_mask": ~torch.eye(24, dtype=torch.bool),
        "denoising_net.TE.pe": torch.zeros(1, 3, 16),
    }


def test_the_motion_generators_file_is_loaded_with_or_without_its_speech_net(tmp_path: Path) -> None:
    net = lively(MotionNet(TINY_MOTION))
    tensors, own = motion_file(net), "audio_encoder."
    save_file(tensors, tmp_path / "motion_generator.safetensors")
    one = load_motion_net(tmp_path, TINY_MOTION)
    length = one.speech.where.weight.norm(dim=(0, 1))
    torch.testing.assert_close(length, torch.full_like(length, 2.0))  # the file's lengths
    save_file({k: t for k, t in tensors.items() if not k.startswith(own)}, tmp_path / "motion_generator.safetensors")
    load_motion_net.cache_clear()
    with pytest.raises(WeightsError, match=r"speech_encoder\.safetensors"):
        load_motion_net(tmp_path, TINY_MOTION)
    save_file({k.removeprefix(own): t for k, t in tensors.items() if k.startswith(own)}, tmp_path / "speech_encoder.safetensors")
    other, sound = load_motion_net(tmp_path, TINY_MOTION), 0.1 * torch.randn(1, 20 * 640)
    torch.testing.assert_close(other.hear(sound), one.hear(sound))
    assert one.hear(sound).shape == (1, 20, 16)


def test_window_steps_and_numbers_of_a_frame_are_what_the_file_says(tmp_path: Path) -> None:
    told = replace(TINY_MOTION, window=17, before=3, steps=9, extra=3)
    tensors = as_published(lively(MotionNet(told)), MOTION) | {
        "diffusion_sched.alpha_bars": torch.from_numpy(signal_shares(9)).float(),
        "denoising_net.alignment_mask": ~torch.eye(20, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "motion_generator.safetensors")
    assert load_motion_net(tmp_path, TINY_MOTION).config == told


@pytest.mark.parametrize("name", ["diffusion_sched.alpha_bars", "denoising_net.alignment_mask"])
def test_another_schedule_or_a_wider_mask_is_refused(name: str, tmp_path: Path) -> None:
    tensors = motion_file(lively(MotionNet(TINY_MOTION)))
    tensors[name] = tensors[name].flip(0).contiguous() if "alpha" in name else torch.zeros(24, 24, dtype=torch.bool)
    save_file(tensors, tmp_path / "motion_generator.safetensors")
    with pytest.raises(WeightsError, match=r"cosine schedule of 12 steps|own sound only"):
        load_motion_net(tmp_path, TINY_MOTION)


def test_a_template_without_a_range_is_refused(tmp_path: Path) -> None:
    tensors = {"mean_exp": torch.zeros(15), "std_exp": torch.ones(15), "max_R": torch.ones(9)}
    for name, size in {"scale": 1, "t": 3, "pitch": 1, "yaw": 1, "roll": 1}.items():
        tensors |= {f"min_{name}": torch.full((size,), -2.0), f"max_{name}": torch.full((size,), 2.0)}
    save_file(tensors, tmp_path / "motion_template.safetensors")
    template = load_template(tmp_path, points=5)
    assert template.offset.tolist() == [0.0] * 15 + [-2.0] * 7 and template.scale.tolist() == [1.0] * 15 + [4.0] * 7
    del tensors["min_yaw"]
    save_file(tensors, tmp_path / "motion_template.safetensors")
    with pytest.raises(WeightsError, match="1 missing: min_yaw"):
        load_template(tmp_path, points=5)
