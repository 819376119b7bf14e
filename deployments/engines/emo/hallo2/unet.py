"""The reference net and the denoiser: one UNet of SD 1.5, without and with sound and time, under the checkpoint's names.

Pictures of all frames lie in the batch: [N = B F, C, h, w].
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.emo.hallo2.attention import AudioBlock, Context, ImageBlock, Motion, Transformer
from deployments.engines.emo.hallo2.config import Hallo2Config


class Resnet(nn.Module):
    """Residual block that is told the time step."""

    def __init__(self, channels: int, out: int, told: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels, eps=1e-5), nn.GroupNorm(groups, out, eps=1e-5)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(told, out)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """x [N, C, h, w], told [N, D]."""
        y = self.conv1(functional.silu(self.norm1(x))) + self.time_emb_proj(functional.silu(told))[..., None, None]
        y = self.conv2(functional.silu(self.norm2(y)))
        return torch.as_tensor((x if self.conv_shortcut is None else self.conv_shortcut(x)) + y)


class Resize(nn.Module):
    """Half or double size."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Stride 2 halves; stride 1 doubles first."""
        if self.conv.stride == (1, 1):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.as_tensor(self.conv(x))


class Stage(nn.Module):
    """Residual blocks of one level with what stands behind each of them. `sizes`: channels in and out of every block.

    `inner`: width inside every audio block, where the checkpoint takes the input's width, not the level's own.
    """

    attentions: nn.ModuleList
    audio_modules: nn.ModuleList
    motion_modules: nn.ModuleList
    downsamplers: nn.ModuleList
    upsamplers: nn.ModuleList

    def __init__(
        self, config: Hallo2Config, sizes: list[tuple[int, int]], level: int, attends: bool, moves: bool, inner: list[int]
    ) -> None:
        super().__init__()
        told, heads, groups = 4 * config.channels[0], config.heads, config.groups
        self.level, self.moves = level, moves
        self.resnets = nn.ModuleList(Resnet(a, b, told, groups) for a, b in sizes)
        widths = [width for _, width in sizes]
        if attends:
            self.attentions = nn.ModuleList(
                Transformer(w, w, groups, ImageBlock(w, heads, config.context)) for w in widths[: len(inner)]
            )
        if attends and moves:
            self.audio_modules = nn.ModuleList(
                Transformer(w, i, groups, AudioBlock(i, heads, config.context)) for w, i in zip(widths, inner, strict=False)
            )
        if moves:
            self.motion_modules = nn.ModuleList(Motion(w, heads, groups, config.positions) for w in widths[: len(inner)])

    def behind(self, x: torch.Tensor, place: int, name: str, seen: Context, kept: dict[str, torch.Tensor]) -> torch.Tensor:
        """What stands behind the residual block `place`: reference and face, sound, time."""
        if not hasattr(self, "attentions"):  # the public pipeline does not run the temporal layers here, though they have weights
            return x
        key = f"{name}.{place}"
        bank = None if seen.reference is None else seen.reference[key]
        attention = self.attentions[place]
        assert isinstance(attention, Transformer)
        x, kept[key] = attention.image(x, seen, bank)
        if not self.moves:
            return x
        sound = self.audio_modules[place]
        assert isinstance(sound, Transformer)
        x = sound.audio(x, seen, self.level)
        return torch.as_tensor(self.motion_modules[place](x, seen.frames, None if bank is None else bank[:, 1:]))


class UNet(nn.Module):
    """`moves`: the denoiser with sound, time and an output; else the reference net, of which only features are used."""

    def __init__(self, config: Hallo2Config, moves: bool) -> None:
        super().__init__()
        widths, first = config.channels, config.channels[0]
        self.config, self.moves = config, moves
        self.conv_in = nn.Conv2d(config.latent, first, 3, padding=1)
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(first, 4 * first), "linear_2": nn.Linear(4 * first, 4 * first)}
        )
        self.down_blocks = nn.ModuleList(self._down(level) for level in range(len(widths)))
        self.up_blocks = nn.ModuleList(self._up(level) for level in reversed(range(len(widths))))
        last = widths[-1]
        self.mid_block = Stage(config, [(last, last)] * 2, len(widths) - 1, True, moves, [last])
        if moves:
            self.conv_norm_out = nn.GroupNorm(config.groups, first, eps=1e-5)
            self.conv_out = nn.Conv2d(first, config.latent, 3, padding=1)

    def _down(self, level: int) -> Stage:
        config, widths = self.config, self.config.channels
        before, width = widths[max(0, level - 1)], widths[level]
        sizes = [(before, width)] + [(width, width)] * (config.layers - 1)
        stage = Stage(config, sizes, level, level < len(widths) - 1, self.moves, [a for a, _ in sizes])
        if level < len(widths) - 1:
            stage.downsamplers = nn.ModuleList([Resize(width, 2)])
        return stage

    def _up(self, level: int) -> Stage:
        config, widths = self.config, self.config.channels
        below, width, above = widths[min(level + 1, len(widths) - 1)], widths[level], widths[max(0, level - 1)]
        count = config.layers + 1
        sizes = [((below if k == 0 else width) + (above if k == count - 1 else width), width) for k in range(count)]
        stage = Stage(config, sizes, level, level < len(widths) - 1, self.moves, [above] * count)
        if level > 0:
            stage.upsamplers = nn.ModuleList([Resize(width, 1)])
        return stage

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, seen: Context, located: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """x [N, 4, h, w] at time steps [N]: prediction [N, 4, h, w], and features [N, L, C] by the place they were found at."""
        kept: dict[str, torch.Tensor] = {}
        told = self._tell(time)
        x = self.conv_in(x)
        x = x if located is None else x + located
        skips = [x]
        for number, stage in enumerate(self.down_blocks):
            assert isinstance(stage, Stage)
            for place, resnet in enumerate(stage.resnets):
                x = stage.behind(resnet(x, told), place, f"down_blocks.{number}", seen, kept)
                skips.append(x)
            if hasattr(stage, "downsamplers"):
                x = stage.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, told)
        x = self.mid_block.resnets[1](self.mid_block.behind(x, 0, "mid_block", seen, kept), told)
        for number, stage in enumerate(self.up_blocks):
            assert isinstance(stage, Stage)
            for place, resnet in enumerate(stage.resnets):
                x = resnet(torch.cat([x, skips.pop()], 1), told)
                x = stage.behind(x, place, f"up_blocks.{number}", seen, kept)
            if hasattr(stage, "upsamplers"):
                x = stage.upsamplers[0](x)
        if self.moves:
            x = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return x, kept

    def _tell(self, time: torch.Tensor) -> torch.Tensor:
        half = self.config.channels[0] // 2
        pitch = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000.0) / half))
        angle = time[:, None].float() * pitch
        wave = torch.cat([angle.cos(), angle.sin()], 1).to(self.conv_in.weight.dtype)
        return torch.as_tensor(self.time_embedding["linear_2"](functional.silu(self.time_embedding["linear_1"](wave))))
