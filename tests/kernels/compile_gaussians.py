"""Compiles the Triton kernels for an H100 on a machine without one and prints what ptxas made of them, as JSON.

A program of its own, without TRITON_INTERPRET: compiling and interpreting cannot share a process. The signatures are
those of a real launch, with pointers aligned to 16 bytes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.gaussian_bin import gpu as gaussian_bin
from kernels.gaussian_project import gpu as gaussian_project
from kernels.gaussian_raster import gpu as gaussian_raster

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {
    **dict.fromkeys(("entries", "starts", "counts", "keys"), "*i32"),
    **dict.fromkeys(("needed", "order", "ends"), "*i64"),
}
NUMBERS = {"near": "fp32", "far": "fp32", "blur": "fp32"}
INTEGERS = {"splats", "height", "width", "columns", "rows", "tiles", "capacity"}


def raster_constants(channels: int, tile: int, backward: bool) -> dict[str, int]:
    constants = {"TILE": tile, "C": channels, "ROW": -(-(6 + channels) // 16) * 16}
    return {**constants, "SLOTS": triton.next_power_of_2(6 + channels)} if backward else constants


def variants() -> dict[str, tuple[Any, dict[str, Any], int]]:
    """Kernel, constants and warps by name."""
    found: dict[str, tuple[Any, dict[str, Any], int]] = {
        "project_forward": (gaussian_project.project_forward, {"BLOCK": gaussian_project.BLOCK}, 4),
        "project_backward": (gaussian_project.project_backward, {"BLOCK": gaussian_project.BLOCK}, 4),
        "pack": (gaussian_raster.pack, {"C": 3, "ROW": 16, "BLOCK": 128}, 4),
    }
    for emit in (False, True):
        constants = {"TILE": 16, "EMIT": emit, "BLOCK": gaussian_bin.BLOCK}
        found["bin_emit" if emit else "bin_count"] = (gaussian_bin.walk_tiles, constants, 4)
    for channels, tile in ((3, 16), (3, 8), (16, 16)):
        name, warps = f"{channels}x{tile}", gaussian_raster.backward_warps(channels)
        found[f"raster_forward_{name}"] = (gaussian_raster.raster_forward, raster_constants(channels, tile, False), 1)
        found[f"raster_backward_{name}"] = (gaussian_raster.raster_backward, raster_constants(channels, tile, True), warps)
    return found


def build(kernel: Any, constants: dict[str, Any], warps: int) -> Any:
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in INTEGERS or name.endswith("_step"):
            signature[name] = "i32"
        else:
            signature[name] = NUMBERS.get(name, POINTERS.get(name, "*fp32"))
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name].startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": 3})


def hot_loop(lines: list[str]) -> int:
    """Instructions of the innermost loop that computes an exponential; 0 if there is none."""
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in lines:
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = len(code)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(instruction.group(1))
    loops = []
    for end, text in enumerate(code):
        jump = re.search(r"BRA.*?(\.L_x_\d+)", text)
        start = labels.get(jump.group(1), end + 1) if jump else end + 1
        if start <= end and any("EX2" in inner for inner in code[start : end + 1]):
            loops.append(end + 1 - start)
    return min(loops, default=0)


def measure(kernel: Any, constants: dict[str, Any], warps: int) -> dict[str, int]:
    built = build(kernel, constants, warps)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(built.asm["cubin"])
        usage, code = (
            subprocess.run([str(TOOLS / tool), flag, str(file)], capture_output=True, text=True, check=True).stdout
            for tool, flag in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    return {
        "registers": int(found.group(1)),
        "stack": int(found.group(2)),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "shared": built.metadata.shared,
        "loop": hot_loop(code.splitlines()),
    }


if __name__ == "__main__":
    json.dump({name: measure(*variant) for name, variant in variants().items()}, sys.stdout)
