"""A whole latent decoder on the fast parts paints what it painted before, whatever the type of its numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.kernels.decoders import Decoder, make_decoder
from deployments.engines.emo.autoencoder import Autoencoder, Residual
from deployments.engines.emo.config import LatentConfig
from kernels.checks import DtypeError, KernelError, ShapeError
from kernels.latent_decode import LayoutError, accelerate, decode
from kernels.latent_decode.modules import FoldedUpsample, FusedNorm, FusedResidual, Widened, multiplies


def small() -> Decoder:
    return make_decoder(latent=3, widths=(8, 12, 16), groups=4, layers=2)


def latents(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 5, 7, generator=torch.Generator().manual_seed(2))


# share of the picture's spread by which a pixel may be off: twenty layers of rounding
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_the_accelerated_decoder_paints_the_same_picture(dtype: torch.dtype, share: float) -> None:
    decoder = small().to(dtype)
    latent = latents().to(dtype)
    with torch.no_grad():
        wanted = small().to(dtype).double()(latent.double())  # what these weights mean, without rounding on the way
        eager = decoder(latent).double() - wanted
    found = decode(accelerate(decoder), latent)
    assert found.dtype == dtype and found.shape == (3, 3, 20, 28)
    away = found.double() - wanted
    assert away.abs().max() <= share * wanted.std()
    assert away.square().mean() <= 1.5**2 * eager.square().mean()  # not less true than eager


def test_every_pair_is_swapped_and_the_original_is_not_touched() -> None:
    decoder = small()
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    fast = accelerate(decoder)
    kinds = [type(part) for part in fast.modules()]
    norms = sum(isinstance(part, nn.GroupNorm) for part in decoder.modules())
    assert norms == 2 * 2 + 1 + 3 * 2 * 2 + 1 and kinds.count(FusedNorm) == norms
    assert kinds.count(FoldedUpsample) == 2 and nn.GroupNorm not in kinds and nn.SiLU not in kinds
    after = decoder.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    fast.conv_in.weight.zero_()
    assert decoder.conv_in.weight.abs().max() > 0


def test_what_is_built_otherwise_is_left_alone_and_still_right() -> None:
    decoder = small()
    decoder.up_blocks[0].upsamplers[0].conv = nn.Conv2d(16, 16, 5, padding=2)
    decoder.up_blocks[1].upsamplers[0].conv.padding_mode = "reflect"
    decoder.up_blocks[1].upsamplers[0].conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    decoder.mid_block.resnets[0].norm1 = nn.BatchNorm2d(16).eval()
    decoder.mid_block.resnets[1].time_emb_proj = nn.Linear(1, 1)
    decoder.conv_act = nn.Tanh()
    fast = accelerate(decoder)
    kinds = [type(part) for part in fast.modules()]
    assert kinds.count(FoldedUpsample) == 0 and kinds.count(nn.GroupNorm) == 1 + 2 + 1
    with torch.no_grad():
        torch.testing.assert_close(decode(fast, latents()), decoder(latents()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_decoder_of_emo_paints_the_same_picture(dtype: torch.dtype, share: float) -> None:
    torch.manual_seed(4)
    code = Autoencoder(LatentConfig()).eval()
    for part in code.modules():
        if isinstance(part, nn.GroupNorm):
            torch.nn.init.normal_(part.weight, 1, 0.2), torch.nn.init.normal_(part.bias, 0, 0.2)
    decoder = code.decoder.to(dtype)
    latent = torch.randn(2, LatentConfig().channels, 6, 5).to(dtype)
    fast = accelerate(decoder)
    assert [type(part) for part in fast.modules()].count(FusedResidual) == 3
    assert not any(isinstance(part, nn.GroupNorm) for part in fast.modules())
    with torch.no_grad():
        found, wanted = decode(fast, latent), decoder.double()(latent.double())
    assert found.dtype == dtype and found.shape == (2, 3, 24, 20)
    assert (found.double() - wanted).abs().max() <= share * wanted.std()
    wired = Autoencoder(LatentConfig())
    wired.decoder = accelerate(wired.decoder)  # as the engine would: everything around it stays
    assert wired.decode(torch.randn(1, LatentConfig().channels, 4, 4)).shape == (1, 3, 16, 16)


def test_bfloat16_is_multiplied_where_a_cpu_says_that_it_can() -> None:
    cpu, half = torch.device("cpu"), torch.bfloat16
    assert not multiplies(half, cpu, {"avx512_f": True, "avx512_vnni": True, "amx_bf16": False})
    assert multiplies(half, cpu, {"avx512_bf16": True}) and multiplies(half, cpu, {"amx_bf16": True})
    assert multiplies(half, cpu, {"architecture": "arm64", "bf16": True})
    assert multiplies(torch.float32, cpu, {}) and multiplies(half, torch.device("cuda"), {})
    assert not multiplies(half, cpu, {})  # nothing known: float32 is right everywhere


def test_a_widened_layer_takes_and_gives_its_own_type_and_is_no_less_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(16, 5, 3, padding=1).bfloat16(), torch.randn(2, 16, 9, 7).bfloat16()
    with torch.no_grad():
        wanted = copy.deepcopy(layer).double()(x.double())
        away = layer(x).double() - wanted
        found = Widened(copy.deepcopy(layer))(x)
    assert found.dtype == torch.bfloat16
    assert (found.double() - wanted).abs().max() <= min(away.abs().max(), 2**-8 * wanted.abs().max())
    for can, kind in ((False, Widened), (True, nn.Conv2d)):
        monkeypatch.setattr("kernels.latent_decode.multiplies", lambda *_, can=can: can)
        fast = accelerate(small().bfloat16())
        assert type(fast.conv_in) is kind and type(fast.conv_out) is kind
        assert decode(fast, latents().bfloat16()).dtype == torch.bfloat16
        with pytest.raises(DtypeError, match="bfloat16 like the decoder"):
            decode(fast, latents())


def test_a_block_that_is_told_something_stays_as_it_is() -> None:
    told, plain = Residual(16, told=3), Residual(16)
    fast = accelerate(nn.Sequential(plain, told))
    assert type(fast[0]) is FusedResidual and type(fast[1]) is Residual
    with pytest.raises(LayoutError):
        accelerate(nn.Sequential(told))


def test_a_batch_of_any_size_gives_the_same_frames() -> None:
    fast = accelerate(small())
    torch.testing.assert_close(decode(fast, latents(), batch=2), decode(fast, latents()), atol=1e-5, rtol=1e-5)


def test_the_accelerated_decoder_compiles_in_one_piece() -> None:
    fast = accelerate(small())
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(decode(compiled, latents()), decode(fast, latents()), atol=1e-5, rtol=1e-5)


def test_the_door_says_what_it_wants() -> None:
    fast = accelerate(small())
    with pytest.raises(LayoutError, match="Sequential has no conv_in"):
        accelerate(nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU()))
    with pytest.raises(ShapeError, match=r"\[B, C, h, w\]"):
        decode(fast, latents()[0])
    with pytest.raises(ShapeError, match="batch"):
        decode(fast, latents(), batch=0)
    with pytest.raises(DtypeError, match="bfloat16"):
        decode(fast, latents().bfloat16())
    with pytest.raises(KernelError, match="this upsampler doubles"):
        fast.up_blocks[0].upsamplers[0](latents(), output_size=(3, 3))
