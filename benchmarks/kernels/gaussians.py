"""Gaussian rasterizer against a peer, in one process, on the same scene, after the same check.

On a CPU the peer of the raster is eager torch; on a GPU the peer of the whole chain is gsplat (PyPI, compiled there).
Where the two pictures, or the gradients, differ by more than rounding allows, no times are printed for that scene and the
exit code is 1. Without a GPU, `--device cuda` says so and measures nothing.

    python -m benchmarks.kernels.gaussians [--device cuda] [--full] [--tile 8] [--save benchmarks/results/gaussians_cpu.json]

Times are the best of several runs, per frame. On a CPU they are processor time of one thread, because other work on
the machine would otherwise be counted; wall time stands beside it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.eager import raster_eager
from benchmarks.kernels.scenes import Head, make_head
from kernels.gaussian_bin import bin_splats
from kernels.gaussian_project import project
from kernels.gaussian_raster import rasterize
from kernels.gaussians import render
from kernels.splats import Splats

APART = 0.02  # of a gradient's length: splats at the threshold count in one picture and not in the other
FLIP = 1 / 255 + 1e-3  # rounding may let one splat at the threshold count or not
SMALL, FLIPS = 1e-4, 0.01  # and does so in few pixels; all others agree this well
Times = dict[str, float]
Picture = Callable[[list[Tensor]], Tensor]


def agree(one: Tensor, two: Tensor) -> dict[str, Any]:
    """Whether two pictures are the same but for rounding, and how far they are apart."""
    apart = (one - two).abs().amax(-1)
    found = {"largest": apart.max().item(), "share_above_1e-4": (apart > SMALL).float().mean().item()}
    return {**found, "same": bool(found["largest"] <= FLIP and found["share_above_1e-4"] <= FLIPS)}


def agree_both_ways(ours: Picture, peer: Picture, inputs: list[Tensor]) -> dict[str, Any]:
    """Whether two ways to a picture have the same picture and the same gradients of its weighted sum."""
    pictures, gradients = [], []
    for way in (ours, peer):
        leaves = [t.detach().clone().requires_grad_() for t in inputs]
        pictures.append(way(leaves))
        weights = torch.linspace(-1, 1, pictures[0].numel(), device=pictures[0].device).view_as(pictures[0])
        gradients.append(torch.autograd.grad((pictures[-1] * weights).sum(), leaves))
    found = agree(pictures[0].detach(), pictures[1].detach())
    apart = [((one - two).norm() / two.norm().clamp(min=1e-12)).item() for one, two in zip(*gradients, strict=True)]
    return {**found, "gradients_apart": apart, "same": bool(found["same"] and max(apart) <= APART)}


def time_cpu(work: Callable[[], object], least: int, seconds: float) -> Times:
    """Best processor and wall time in ms over at least `least` runs and `seconds`."""
    processor, wall, begin = [], [], time.perf_counter()
    work()
    while len(wall) < least or time.perf_counter() - begin < seconds:
        start, start_wall = time.thread_time(), time.perf_counter()
        work()
        processor.append(time.thread_time() - start)
        wall.append(time.perf_counter() - start_wall)
    return {"ms": min(processor) * 1e3, "wall_ms": min(wall) * 1e3, "runs": len(wall)}


def time_cuda(work: Callable[[], object], frames: int) -> Times:
    """Median of 30 runs in ms per frame, by events on the device."""
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(30)]
    for start, end in events:
        start.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return {"ms": sorted(start.elapsed_time(end) for start, end in events)[15] / frames, "runs": 30}


def with_backward(work: Picture, inputs: list[Tensor]) -> Callable[[], object]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    weights = torch.rand_like(work(leaves))
    return lambda: torch.autograd.grad((work(leaves) * weights).sum(), leaves)


def measure_cpu(splats: int, height: int, width: int, seconds: float) -> dict[str, Any]:
    """Raster of one frame: numba and eager torch; and the other steps of the chain."""
    head = make_head(1, splats, height, width)
    screen = project(*head.inputs()[:4], head.camera)
    tiles = bin_splats(screen, head.opacities, height, width)

    def ours(leaves: list[Tensor]) -> Tensor:
        return rasterize(Splats(leaves[0], leaves[1], *rest), leaves[2], leaves[3], tiles).colours

    def eager(leaves: list[Tensor]) -> Tensor:
        return raster_eager(Splats(leaves[0], leaves[1], *rest), leaves[2], leaves[3], tiles)[0]

    rest = (screen.depths, screen.extents)
    inputs = [screen.means, screen.conics, head.opacities, head.colours]
    row: dict[str, Any] = {"entries": int(tiles.needed), "check": agree_both_ways(ours, eager, inputs)}
    if not row["check"]["same"]:
        return row
    with torch.no_grad():
        row["raster"] = time_cpu(lambda: ours(inputs), 5, seconds)
        row["raster_eager"] = time_cpu(lambda: eager(inputs), 2, 0)
        row["project"] = time_cpu(lambda: project(*head.inputs()[:4], head.camera), 5, seconds / 2)
        row["bin"] = time_cpu(lambda: bin_splats(screen, head.opacities, height, width), 5, seconds / 2)
        row["render"] = time_cpu(lambda: render(*head.inputs(), head.camera), 5, seconds)
    row["raster_both_ways"] = time_cpu(with_backward(ours, inputs), 5, seconds)
    row["raster_both_ways_eager"] = time_cpu(with_backward(eager, inputs), 1, 0)
    row["render_both_ways"] = time_cpu(with_backward(lambda t: render(*t, head.camera).colours, head.inputs()), 5, seconds)
    row["times_faster"] = row["raster_eager"]["ms"] / row["raster"]["ms"]
    row["times_faster_both_ways"] = row["raster_both_ways_eager"]["ms"] / row["raster_both_ways"]["ms"]
    return row


def gsplat_picture(head: Head, leaves: list[Tensor]) -> Tensor:
    """The peer's whole chain. Its pixel centres lie at halves, so that its principal point moves by one half."""
    from gsplat import rasterization  # the peer is only needed here

    frames, camera = head.means.shape[0], head.camera
    means, quats, scales, opacities, colours = (t.expand(frames, *t.shape[1:]) for t in leaves)
    fx, fy, cx, cy = camera.intrinsics[0].tolist()
    matrix = torch.tensor([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]], device=means.device)
    last = torch.tensor([[[0.0, 0, 0, 1]]], device=means.device)
    view = torch.cat([camera.view, last], 1).expand(frames, 4, 4)
    colours_out, _, _ = rasterization(
        *(means, quats, scales, opacities, colours, view[:, None], matrix.expand(frames, 1, 3, 3)),
        *(camera.width, camera.height),
        packed=False,
    )
    return colours_out[:, 0]


def measure_cuda(frames: int, splats: int, height: int, width: int, tile: int) -> dict[str, Any]:
    """Whole chain for a batch of frames: ours with fixed buffers, and gsplat's."""
    head = make_head(frames, splats, height, width, "cuda")
    screen = project(*head.inputs()[:4], head.camera)
    capacity = int(bin_splats(screen, head.opacities, height, width, tile=tile).needed * 1.25)

    def ours(leaves: list[Tensor]) -> Tensor:
        return render(*leaves, head.camera, capacity=capacity, tile=tile).colours

    def peer(leaves: list[Tensor]) -> Tensor:
        return gsplat_picture(head, leaves)

    inputs = head.inputs()
    row: dict[str, Any] = {"capacity": capacity, "check": agree_both_ways(ours, peer, inputs)}
    if not row["check"]["same"]:
        return row
    with torch.no_grad():
        row["render"] = time_cuda(lambda: ours(inputs), frames)
        row["render_gsplat"] = time_cuda(lambda: peer(inputs), frames)
    row["render_both_ways"] = time_cuda(with_backward(ours, inputs), frames)
    row["render_both_ways_gsplat"] = time_cuda(with_backward(peer, inputs), frames)
    row["times_faster"] = row["render_gsplat"]["ms"] / row["render"]["ms"]
    row["times_faster_both_ways"] = row["render_both_ways_gsplat"]["ms"] / row["render_both_ways"]["ms"]
    return row


def lacks() -> str:
    """What a comparison on a GPU misses here; empty where nothing is."""
    if not torch.cuda.is_available():
        return "no GPU"
    return "" if importlib.util.find_spec("gsplat") else "gsplat is not installed (pip install gsplat==1.5.3)"


def machine(device: str) -> dict[str, Any]:
    """What the times depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    found = {"cpu": model.partition(":")[2].strip() or platform.processor(), "cores": os.cpu_count()}
    found |= {"load_average": os.getloadavg()[0], "torch": torch.__version__, "threads": torch.get_num_threads()}
    return {**found, "gpu": torch.cuda.get_device_name()} if device == "cuda" else found


def show(name: str, row: dict[str, Any]) -> None:
    if not row["check"]["same"]:
        print(f"{name}: PICTURES OR GRADIENTS DIFFER {row['check']}: no times")
        return
    check = row["check"]
    print(f"{name}: pictures agree within {check['largest']:.1e}, gradients within {max(check['gradients_apart']):.1e}")
    for key, value in row.items():
        if isinstance(value, dict) and "ms" in value:
            wall = f"  wall {value['wall_ms']:9.2f}" if "wall_ms" in value else ""
            print(f"    {key:24} {value['ms']:9.3f} ms a frame{wall}  ({value['runs']} runs)")
    print(f"    faster than the peer: {row['times_faster']:.2f} forward, {row['times_faster_both_ways']:.2f} both ways")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--full", action="store_true", help="all sizes, up to 150k Gaussians and 1080x1920")
    parser.add_argument("--tile", type=int, default=16, help="tile size on the GPU: 8 or 16")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each CPU measurement")
    parser.add_argument("--save", type=Path, help="the JSON; benchmarks/results/gaussians_DEVICE.json if not given")
    args = parser.parse_args()
    missing = lacks() if args.device == "cuda" else ""
    if missing:
        print(f"{missing}: nothing was measured, there are no times and no ratio")
        return 1
    torch.set_num_threads(1)
    sizes = [(512, 512), (1920, 1080)] if args.full or args.device == "cuda" else [(512, 512)]
    counts = (20_000, 50_000, 150_000) if args.full or args.device == "cuda" else (20_000, 50_000)
    rows: dict[str, Any] = {}
    for height, width in sizes:
        for count in counts:
            for frames in (1, 8, 32) if args.device == "cuda" else (1,):
                name = f"{width}x{height}, {count} Gaussians, batch {frames}"
                if args.device == "cuda":
                    rows[name] = measure_cuda(frames, count, height, width, args.tile)
                else:
                    rows[name] = measure_cpu(count, height, width, args.seconds)
                show(name, rows[name])
    report = json.dumps({"machine": machine(args.device), "tile": args.tile, "rows": rows})
    place = args.save or Path(f"benchmarks/results/gaussians_{args.device}.json")
    place.write_text(report + "\n", encoding="utf-8")
    print(report)
    return 0 if all(row["check"]["same"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
