"""A decoder of latent pictures and its parts: ours, eager torch and `torch.compile`, in one process, after one check.

Where the answers differ by more than rounding allows, no times are printed for that row and the exit code is 1.

    python -m benchmarks.kernels.latents [--device cuda] [--full] [--only WORD] [--seconds 4] [--save FILE.json]

Per frame. On a CPU the best processor time of one thread (other work on the machine would otherwise be counted), wall
time beside it; on a GPU the median by events. Turns are taken, so that a slow moment of the machine hits all alike.
Compiling is not counted. Eager torch is measured channels first and channels last. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.kernels.compact import emo_works, vasa1_works
from benchmarks.kernels.decoders import make_decoder
from benchmarks.kernels.gaussians import machine, time_cuda
from kernels.group_norm_silu import group_norm_silu
from kernels.latent_decode import accelerate, decode
from kernels.upsample_conv import fold, upsample_conv

WIDTHS = (128, 256, 512, 512)  # of Stable Diffusion 1.5
ROOM = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # of the spread; a decoder has 30 layers of rounding
Work = Callable[[], Tensor]


def agree(found: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Whether two answers are the same but for rounding: root mean square of the difference over the spread."""
    away = (found.float() - wanted.float()).square().mean().sqrt() / wanted.float().std()
    return {"relative_difference": away.item(), "same": bool(away <= ROOM[found.dtype])}


def time_turns(works: dict[str, Work], seconds: float) -> dict[str, dict[str, float]]:
    """Best processor and wall time in ms of each, by turns, over at least 3 rounds."""
    processor: dict[str, list[float]] = {name: [] for name in works}
    wall: dict[str, list[float]] = {name: [] for name in works}
    begin, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - begin < seconds:
        for name, work in works.items():
            start, start_wall = time.thread_time(), time.perf_counter()
            work()
            processor[name].append((time.thread_time() - start) * 1e3)
            wall[name].append((time.perf_counter() - start_wall) * 1e3)
        rounds += 1
    return {name: {"ms": min(processor[name]), "wall_ms": min(wall[name]), "runs": rounds} for name in works}


def measure(works: dict[str, Work], frames: int, device: str, seconds: float) -> dict[str, Any]:
    """Check every answer against eager's, then time; `works` begins with eager."""
    with torch.no_grad():
        wanted = works["eager"]()
        row: dict[str, Any] = {"check": {name: agree(work(), wanted) for name, work in works.items() if name != "eager"}}
        if not all(check["same"] for check in row["check"].values()):
            return row
        if device == "cuda":
            row["times"] = {name: time_cuda(work, frames) for name, work in works.items()}
        else:
            times = time_turns(works, seconds)
            row["times"] = {
                name: {key: value / frames if key != "runs" else value for key, value in each.items()}
                for name, each in times.items()
            }
    ours = min(row["times"][name]["ms"] for name in works if name.startswith("ours"))
    row["times_faster_than"] = {name: row["times"][name]["ms"] / ours for name in works if not name.startswith("ours")}
    return row


def decoder_works(widths: tuple[int, ...], size: int, frames: int, dtype: torch.dtype, device: str) -> dict[str, Work]:
    """A whole decoder with random weights, pictures of size x size."""
    decoder: nn.Module = make_decoder(widths=widths).to(device, dtype)
    last = make_decoder(widths=widths).to(device, dtype)
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = accelerate(decoder)
    latent = torch.randn(frames, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    turned = latent.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(make_decoder(widths=widths).to(device, dtype).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    compiled_fast = torch.compile(accelerate(decoder))
    return {
        "eager": lambda: decoder(latent),
        "eager channels last": lambda: last(turned),
        "torch.compile channels last": lambda: compiled(turned),
        "ours": lambda: decode(fast, latent, frames),
        "ours under torch.compile": lambda: decode(compiled_fast, latent, frames),
    }


def norm_works(channels: int, size: int, frames: int, dtype: torch.dtype, device: str) -> dict[str, Work]:
    """Group normalisation in 32 groups and SiLU."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(frames, channels, size, size, generator=random).to(device, dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(channels, generator=random).to(device, dtype) for _ in range(2))

    def eager(y: Tensor) -> Tensor:
        return functional.silu(functional.group_norm(y, 32, weight, bias))

    compiled = torch.compile(eager)
    return {
        "eager": lambda: eager(x),
        "eager channels last": lambda: eager(last),
        "torch.compile channels last": lambda: compiled(last),
        "ours": lambda: group_norm_silu(last.movedim(1, -1), 32, weight, bias).movedim(-1, 1),
    }


def upsample_works(channels: int, size: int, frames: int, dtype: torch.dtype, device: str) -> dict[str, Work]:
    """Doubling and 3x3 convolution of a picture of size x size."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(frames, channels, size, size, generator=random).to(device, dtype)
    weight = (torch.randn(channels, channels, 3, 3, generator=random) / (9 * channels) ** 0.5).to(device, dtype)
    bias, folded = torch.randn(channels, generator=random).to(device, dtype), fold(weight)
    last, weight_last = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    folded = folded.contiguous(memory_format=torch.channels_last)

    def eager(y: Tensor, w: Tensor) -> Tensor:
        return functional.conv2d(functional.interpolate(y, scale_factor=2.0, mode="nearest"), w, bias, padding=1)

    compiled = torch.compile(eager)
    return {
        "eager": lambda: eager(x, weight),
        "eager channels last": lambda: eager(last, weight_last),
        "torch.compile channels last": lambda: compiled(last, weight_last),
        "ours": lambda: upsample_conv(last, folded, bias),
    }


def rows(device: str, full: bool) -> dict[str, tuple[int, Callable[[], dict[str, Work]]]]:
    """Name -> frames and how to make the works."""
    found: dict[str, tuple[int, Callable[[], dict[str, Work]]]] = {}
    gpu = device == "cuda"
    size, frames = (512, 8) if gpu else (256, 1)
    for dtype in (torch.bfloat16,) if gpu else (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        norm, up = (128, size, frames, dtype, device), (256, size // 4, frames, dtype, device)
        found[f"group_norm_silu, 128 x {size} x {size}, {kind}"] = (frames, partial(norm_works, *norm))
        found[f"upsample_conv, 256 x {size // 4} x {size // 4}, {kind}"] = (frames, partial(upsample_works, *up))
        found[f"compact decoder: emo, 96 x 96, {kind}"] = (frames, partial(emo_works, frames, dtype, device))
        found[f"compact decoder: vasa1, 128 x 128, {kind}"] = (frames, partial(vasa1_works, frames, dtype, device))
        small = (tuple(w // 4 for w in WIDTHS), size, frames, dtype, device)
        found[f"decoder, a quarter of the width, {size} x {size}, {kind}"] = (frames, partial(decoder_works, *small))
        if gpu or full:
            whole = (WIDTHS, size, frames, dtype, device)
            found[f"decoder of Stable Diffusion 1.5, {size} x {size}, {kind}"] = (frames, partial(decoder_works, *whole))
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("decoder")))  # what takes long comes last


def show(name: str, row: dict[str, Any]) -> None:
    if "times" not in row:
        print(f"{name}: ANSWERS DIFFER {row['check']}: no times", flush=True)
        return
    print(f"{name}: answers agree")
    for key, value in row["times"].items():
        wall = f"  wall {value['wall_ms']:9.2f}" if "wall_ms" in value else ""
        print(f"    {key:28} {value['ms']:9.2f} ms a frame{wall}  ({value['runs']} runs)")
    faster = ", ".join(f"{key} {value:.2f}" for key, value in row["times_faster_than"].items())
    print(f"    times faster than {faster}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--full", action="store_true", help="the decoder of Stable Diffusion 1.5 on a CPU, too (minutes)")
    parser.add_argument("--only", default="", help="rows whose name has this word; the others' figures stay as they are")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row on a CPU")
    parser.add_argument("--save", type=Path, default=Path("benchmarks/results/latents.json"), help="figures of each device")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(args.save.read_text(encoding="utf-8")) if args.save.exists() else {}
    known = before.get(args.device, {}).get("rows", {}) if args.only else {}
    whole = before[args.device]["machine"] if known else machine(args.device)  # rows of another run say their load themselves
    report: dict[str, Any] = {"machine": whole, "rows": dict(known)}
    for name, (frames, make) in rows(args.device, args.full).items():
        if args.only not in name:
            continue
        torch.compiler.reset()
        busy = {"load_average": os.getloadavg()[0], "niceness": os.nice(0)}
        report["rows"][name] = busy | measure(make(), frames, args.device, args.seconds)
        show(name, report["rows"][name])
        args.save.write_text(json.dumps({**before, args.device: report}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    return 0 if all("times" in row for row in report["rows"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
