"""Compiles the Triton kernels of group_norm_silu for an H100 and prints what ptxas made of them, as JSON."""

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

from kernels.group_norm_silu import gpu, gpu_backward

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS: dict[str, Any] = {
    "norm_once": gpu.norm_once,
    "norm_sums": gpu.norm_sums,
    "norm_apply": gpu.norm_apply,
    "norm_backward_sums": gpu_backward.norm_backward_sums,
    "norm_backward_apply": gpu_backward.norm_backward_apply,
}
PICTURES = ("x", "out", "grad", "dx")
POINTERS = (*PICTURES, "weight", "bias", "mean", "rstd", "partial", "totals")


def measure(kernel: Any, channels: int, picture: str, ones: tuple[str, ...] = ()) -> dict[str, int]:
    """`ones`: sizes of 1, which a launch turns into constants."""
    groups = 1 if "groups" in ones else 32
    constants = {"SILU": True, "CHUNKS": gpu.CHUNKS, **gpu.tile_of(channels, groups), **dict.fromkeys(ones, 1)}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    numbers = {name: picture if name in PICTURES else "*fp32" for name in POINTERS} | {"eps": "fp32"}
    types = {name: "constexpr" if name in constants else numbers.get(name, "i32") for name in kernel.arg_names}
    # widths of a real decoder are multiples of 16 channels, which a launch tells the compiler
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in POINTERS}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": gpu.WARPS, "num_stages": 3})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(built.asm["cubin"])
        usage, code = (
            subprocess.run([str(TOOLS / tool), flag, str(file)], capture_output=True, text=True, check=True).stdout
            for tool, flag in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return {"registers": int(found.group(1)), "stack": int(found.group(2)), "spills": spills, "shared": built.metadata.shared}


if __name__ == "__main__":
    found = {name: measure(kernel, 128, "*bf16") for name, kernel in KERNELS.items()}
    found["norm_once_of_ones"] = measure(KERNELS["norm_once"], 1, "*fp32", ("rows", "groups", "width"))
    json.dump(found, sys.stdout)
