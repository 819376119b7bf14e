"""The paper's networks at the public size: the checkpoint's own names and shapes, loaded strictly or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deployments.engines.emo.hallo2.attention import Context
from deployments.engines.emo.hallo2.config import Hallo2Config
from deployments.engines.emo.hallo2.net import Hallo2
from deployments.engines.emo.hallo2.weights import load, same
from deployments.errors import WeightsError

TINY = Hallo2Config(
    channels=(8, 16, 16, 16),
    heads=2,
    groups=4,
    context=12,
    face=6,
    audio_layers=2,
    audio_hidden=8,
    audio_tokens=3,
    locator=(4, 4),
)
FRAMES, MOVED = 3, 2
SD_UNET, SD_OUTPUT = 859_520_964, 2 * 320 + 320 * 4 * 9 + 4  # parameters of Stable Diffusion 1.5; of its last two layers
PUBLIC_KEYS = (
    "reference_unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
    "denoising_unet.mid_block.audio_modules.0.transformer_blocks.0.attn2_1.to_k.weight",
    "denoising_unet.up_blocks.3.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe",
    "denoising_unet.down_blocks.1.audio_modules.0.transformer_blocks.0.zero_conv_lip.bias",
    "denoising_unet.up_blocks.0.upsamplers.0.conv.weight",
    "face_locator.blocks.5.weight",
    "imageproj.norm.weight",
    "audioproj.proj3.bias",
)


@pytest.fixture(scope="module")
def net() -> Hallo2:
    torch.manual_seed(0)
    made = Hallo2(TINY).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.15)
    return made


def generated(net: Hallo2, reference: torch.Tensor, audio: torch.Tensor, lips: torch.Tensor, **changed: object) -> torch.Tensor:
    """Prediction [3, 4, 16, 16] of a window of three frames with two motion frames."""
    torch.manual_seed(1)
    noisy, mask = torch.randn(FRAMES, 4, 16, 16), torch.rand(FRAMES, 3, 32, 32)
    face = net.imageproj(torch.ones(1, TINY.face))
    pages = 1 + MOVED
    _, kept = net.reference_unet(reference, torch.zeros(pages), Context(pages, face.repeat(pages, 1, 1)))
    nothing = [torch.zeros(FRAMES, (16 >> level) ** 2) for level in range(4)]
    masks = tuple((nothing[level], nothing[level], lips[:, None].repeat(1, (16 >> level) ** 2)) for level in range(4))
    bank = {name: part[None] for name, part in kept.items()}
    seen = Context(FRAMES, face.repeat(FRAMES, 1, 1), net.audioproj(audio), masks, reference=bank)
    located = torch.nn.functional.interpolate(net.face_locator(mask), size=(16, 16))
    found, _ = net.denoising_unet(noisy, torch.full((FRAMES,), 500), replace(seen, **changed), located)
    return torch.as_tensor(found)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(1 + MOVED, 4, 16, 16), torch.randn(FRAMES, 5, 2, 12), torch.ones(FRAMES)


def test_the_reference_net_has_the_size_of_stable_diffusion_and_the_names_are_the_checkpoints() -> None:
    with torch.device("meta"):
        full = Hallo2()
    keys = set(full.state_dict())
    assert sum(p.numel() for p in full.reference_unet.parameters()) == SD_UNET - SD_OUTPUT
    assert keys.issuperset(PUBLIC_KEYS)
    assert not any(key.startswith("reference_unet.conv_out") for key in keys)


@torch.no_grad()
def test_reference_motion_frames_and_sound_reach_the_prediction(net: Hallo2) -> None:
    reference, audio, lips = inputs()
    base = generated(net, reference, audio, lips)
    assert base.shape == (FRAMES, 4, 16, 16)
    for page in (0, 1 + MOVED - 1):
        other = reference.clone()
        other[page] += 1
        assert (generated(net, other, audio, lips) - base).abs().max() > 1e-4, f"page {page}"
    assert (generated(net, reference, audio + 1, lips) - base).abs().max() > 1e-4
    torch.testing.assert_close(generated(net, reference, audio + 1, 0 * lips), generated(net, reference, audio, 0 * lips))


@torch.no_grad()
def test_frames_that_do_not_look_at_the_reference_do_not_change_with_it(net: Hallo2) -> None:
    reference, audio, lips = inputs()
    other = reference.clone()
    other[0] += 1
    alone = torch.ones(FRAMES, dtype=torch.bool)
    one, two = (generated(net, picture, audio, lips, alone=alone) for picture in (reference, other))
    torch.testing.assert_close(one, two)


def test_what_was_saved_is_loaded(net: Hallo2, tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, tmp_path / "net.safetensors")
    loaded = load(lambda: Hallo2(TINY), tmp_path / "net.safetensors", same, torch.float32)
    for one, other in zip(loaded.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_another_checkpoint_is_refused_with_its_keys(net: Hallo2, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    del tensors["imageproj.norm.weight"]
    tensors["module.ghost"] = torch.zeros(1)
    tensors["audioproj.proj3.bias"] = torch.zeros(5)
    save_file(tensors, path)
    with pytest.raises(WeightsError) as caught:
        load(lambda: Hallo2(TINY), path, same, torch.float32)
    for word in ("1 missing: imageproj.norm.weight", "1 unknown: module.ghost", "1 of another shape: audioproj.proj3.bias"):
        assert word in str(caught.value)


def test_a_pickle_is_refused(net: Hallo2, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load(lambda: Hallo2(TINY), tmp_path / "net.pth", same, torch.float32)
