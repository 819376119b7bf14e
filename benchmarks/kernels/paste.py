"""Pasting patches into full-size frames: `kernels.paste_back` and eager torch, in one process, after one check.

Eager torch is what one would write without a kernel: `affine_grid`, `grid_sample` and a blend; once over the whole frame and
once over the box in which the patch lies, as a careful person would. Where a byte differs by more than a rounding, no times
are given for that row and the exit code is 1.

    python -m benchmarks.kernels.paste [--device cuda] [--seconds 4] [--save FILE.json]

Per frame. On a CPU the best processor time of one thread, wall time beside it; on a GPU the median by events, in batches.
The last rows are the compact decoder of the engine `emo` followed by the pasting. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.compact import EMO_SIDE, emo_code
from benchmarks.kernels.gaussians import machine, time_cuda
from benchmarks.kernels.latents import time_turns
from deployments.engines.emo.config import LatentConfig
from kernels.latent_decode import accelerate
from kernels.paste_back import Nv12, feather, paste_back
from kernels.paste_back.reference import RADIUS, SIGMA

HEIGHT, WIDTH = 1080, 1920
Work = Callable[[], Tensor]
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Scene:
    """A batch of noise frames, patches of bytes and where they lie: turned by 7 degrees, 1.1 times their size."""

    def __init__(self, side: int, frames: int, device: str, nv12: Nv12 | None = None, gain: float = 0.0) -> None:
        random = torch.Generator().manual_seed(0)
        shape = (frames, HEIGHT * 3 // 2, WIDTH) if nv12 else (frames, HEIGHT, WIDTH, 3)
        self.frames = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8).to(device)
        pictures = torch.randint(0, 256, (2, frames, side, side, 3), generator=random, dtype=torch.uint8).to(device)
        self.patches, self.texture = pictures[0], pictures[1] if gain else None
        self.mask, self.nv12, self.gain, self.side = feather(side, side, side / 6).to(device), nv12, gain, side
        turn = 1.1 * np.exp(1j * np.radians(7))
        place = torch.tensor([[turn.real, -turn.imag, 700.3], [turn.imag, turn.real, 300.6]], dtype=torch.float64)
        self.matrices = place.repeat(frames, 1, 1)

    def ours(self, match: bool = False) -> Tensor:
        how: dict[str, Any] = {"texture": self.texture, "gain": self.gain, "nv12": self.nv12}
        paste_back(self.frames, self.patches, self.mask, self.matrices, match=match, **how)
        return self.frames

    def box(self) -> Box:
        """What the patch covers, as even numbers."""
        ends = torch.tensor([[-1.0, self.side, -1, self.side], [-1, -1, self.side, self.side], [1, 1, 1, 1]], dtype=torch.float64)
        corners = self.matrices[0] @ ends
        low, high = (corners.amin(1) / 2).floor() * 2, (corners.amax(1) / 2 + 1).floor() * 2
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def eager(self, box: Box, window: Tensor) -> Tensor:
        """A window [B, h, w, 3] of RGB frames, or of Y, U, V planes, with the patch in it, float32."""
        pictures = self.patches.permute(0, 3, 1, 2).float()
        if self.texture is not None:
            apart = pictures - self.texture.permute(0, 3, 1, 2)
            pictures = pictures + self.gain * (blurred(apart) - apart)
        if self.nv12:
            rows = pictures.new_tensor(self.nv12.rows())
            pictures = functional.conv2d(pictures, rows[:, :3, None, None], rows[:, 3])
        grid = self.grid(box)
        read = partial(functional.grid_sample, grid=grid, align_corners=True)
        alpha = read(self.mask[:, None].expand(len(grid), -1, -1, -1)).permute(0, 2, 3, 1)
        colours = read(pictures, padding_mode="border").permute(0, 2, 3, 1).clamp(0, 255)
        return torch.lerp(window.float(), colours, alpha)

    def grid(self, box: Box) -> Tensor:
        """`affine_grid` from places of the box to places of the patch."""
        left, top, right, bottom = box
        last = self.matrices.new_tensor([[[0, 0, 1]]]).expand(len(self.matrices), 1, 3)
        back = torch.linalg.inv(torch.cat([self.matrices, last], 1))
        half, middle = ((right - left - 1) / 2, (bottom - top - 1) / 2), ((right + left - 1) / 2, (bottom + top - 1) / 2)
        into = back.new_tensor([[half[0], 0, middle[0]], [0, half[1], middle[1]], [0, 0, 1]])
        scale = 2 / (self.side - 1)
        out = back.new_tensor([[scale, 0, -1], [0, scale, -1], [0, 0, 1]])
        theta = (out @ back @ into)[:, :2].float().to(self.frames.device)
        return functional.affine_grid(theta, [len(theta), 3, bottom - top, right - left], align_corners=True)

    def eager_rgb(self, box: Box) -> Tensor:
        left, top, right, bottom = box
        window = self.frames[:, top:bottom, left:right]
        window.copy_((self.eager(box, window) + 0.5).to(torch.uint8))
        return self.frames

    def eager_nv12(self, box: Box) -> Tensor:
        left, top, right, bottom = box
        luma = self.frames[:, top:bottom, left:right]
        chroma = self.frames[:, HEIGHT:].unflatten(2, (WIDTH // 2, 2))[:, top // 2 : bottom // 2, left // 2 : right // 2]
        planes = torch.cat([luma[..., None], chroma.repeat_interleave(2, 1).repeat_interleave(2, 2)], 3)
        found = self.eager(box, planes)
        luma.copy_((found[..., 0] + 0.5).to(torch.uint8))
        means = functional.avg_pool2d(found[..., 1:].permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        chroma.copy_((means + 0.5).to(torch.uint8))
        return self.frames


def blurred(pictures: Tensor) -> Tensor:
    """Separable Gaussian of [B, 3, h, w]."""
    distance = torch.arange(-RADIUS, RADIUS + 1, device=pictures.device)
    kernel = torch.exp(-(distance**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    wide = functional.pad(pictures, (RADIUS,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(wide, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def paste_works(side: int, frames: int, device: str, nv12: Nv12 | None, gain: float) -> dict[str, Work]:
    scene = Scene(side, frames, device, nv12, gain)
    eager = scene.eager_nv12 if nv12 else scene.eager_rgb
    return {
        "eager, whole frame": lambda: eager((0, 0, WIDTH, HEIGHT)),
        "eager, box": lambda: eager(scene.box()),
        "ours": scene.ours,
        "ours, colours matched": lambda: scene.ours(match=True),
    }


def chain_works(frames: int, dtype: torch.dtype, device: str, nv12: Nv12 | None) -> dict[str, Work]:
    """Latent picture -> emo's decoder -> bytes -> into the frame."""
    scene, code, fast = Scene(EMO_SIDE, frames, device, nv12), emo_code(dtype, device), emo_code(dtype, device)
    fast.decoder = accelerate(fast.decoder)
    random = torch.Generator().manual_seed(1)
    latent = torch.randn(frames, LatentConfig().channels, EMO_SIDE // 4, EMO_SIDE // 4, generator=random).to(device, dtype)
    paste_eager = scene.eager_nv12 if nv12 else scene.eager_rgb

    def painted(decode: Callable[[Tensor], Tensor]) -> None:
        scene.patches = (decode(latent).permute(0, 2, 3, 1).clamp(0, 1) * 255 + 0.5).to(torch.uint8).contiguous()

    def eager() -> Tensor:
        painted(code.decode)
        return paste_eager(scene.box())

    def ours(decoder: Callable[[Tensor], Tensor], match: bool) -> Tensor:
        painted(decoder)
        return scene.ours(match)

    return {
        "eager, box": eager,
        "ours": lambda: ours(fast.decode, False),
        "ours, colours matched": lambda: ours(fast.decode, True),
        "our paste, eager decoder": lambda: ours(code.decode, False),
    }


def measure(works: dict[str, Work], frames: int, device: str, seconds: float) -> dict[str, Any]:
    """Check every answer but the matched one against the first, then time. All begin with the frames as they are then."""
    row: dict[str, Any] = {"load_average": os.getloadavg()[0]}
    with torch.no_grad():
        at = works["ours"]()
        start = torch.randint(0, 256, at.shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
        found = {}
        for name, work in works.items():
            at.copy_(start)
            found[name] = work().cpu().int()
        first = next(iter(found.values()))
        row["most_levels_apart"] = max(int((f - first).abs().max()) for n, f in found.items() if "matched" not in n)
        row["changed"] = float((first != start).float().mean())
        if row["most_levels_apart"] > 1 or not row["changed"]:
            return row
        if device == "cuda":
            row["times"] = {name: time_cuda(work, frames) for name, work in works.items()}
        else:
            times = time_turns(works, seconds)
            row["times"] = {n: {k: v / frames if k != "runs" else v for k, v in each.items()} for n, each in times.items()}
    ours = row["times"]["ours"]["ms"]
    row["times_faster_than"] = {name: t["ms"] / ours for name, t in row["times"].items() if name.startswith("eager")}
    row["load_average_after"] = os.getloadavg()[0]
    return row


def rows(device: str) -> dict[str, tuple[int, Callable[[], dict[str, Work]]]]:
    """Name -> frames and how to make the works."""
    found: dict[str, tuple[int, Callable[[], dict[str, Work]]]] = {}
    frames = 16 if device == "cuda" else 1
    for nv12, kind in ((None, "RGB"), (Nv12(), "NV12")):
        for side in (256, 512):
            found[f"{side} x {side} into 1920 x 1080 {kind}"] = (frames, partial(paste_works, side, frames, device, nv12, 0.0))
        found[f"256 x 256 with texture, {kind}"] = (frames, partial(paste_works, 256, frames, device, nv12, 0.6))
    for dtype in (torch.bfloat16,) if device == "cuda" else (torch.float32,):
        kind = str(dtype).removeprefix("torch.")
        found[f"emo's decoder and paste, RGB, {kind}"] = (frames, partial(chain_works, frames, dtype, device, None))
        found[f"emo's decoder and paste, NV12, {kind}"] = (frames, partial(chain_works, frames, dtype, device, Nv12()))
    return found


def show(name: str, row: dict[str, Any]) -> None:
    if "times" not in row:
        print(f"{name}: FRAMES DIFFER by {row['most_levels_apart']} levels: no times", flush=True)
        return
    print(f"{name}: frames agree to {row['most_levels_apart']} level; load {row['load_average']:.1f}")
    for key, value in row["times"].items():
        wall = f"  wall {value['wall_ms']:9.2f}" if "wall_ms" in value else ""
        print(f"    {key:24} {value['ms']:9.3f} ms a frame, {1e3 / value['ms']:8.0f} frames/s{wall}  ({value['runs']} runs)")
    print("    times faster than", ", ".join(f"{key} {value:.2f}" for key, value in row["times_faster_than"].items()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row on a CPU")
    parser.add_argument("--save", type=Path, default=Path("benchmarks/results/paste.json"), help="figures of each device")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(args.save.read_text(encoding="utf-8")) if args.save.exists() else {}
    report: dict[str, Any] = {"machine": machine(args.device), "niceness": os.nice(0), "rows": {}}
    for name, (frames, make) in rows(args.device).items():
        report["rows"][name] = measure(make(), frames, args.device, args.seconds)
        show(name, report["rows"][name])
        args.save.write_text(json.dumps({**before, args.device: report}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    return 0 if all("times" in row for row in report["rows"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
