"""Compiles the Triton kernels of group_norm_silu for an H100 on a machine without one and prints what ptxas made of them."""

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

from kernels.group_norm_silu import gpu

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
HALF = {"x", "weight", "bias", "out", "grad"}
SINGLE = {"mean", "rstd", "means", "squares", "sums", "first_pull", "second_pull"}
WIDE = {"ROWS": gpu.ROWS, "CHANNELS": gpu.MOST_CHANNELS}
CONSTANTS: dict[str, dict[str, Any]] = {
    "norm_small": {"ROWS": 1024, "SIZE": 8, "SILU": True},
    "chunk_statistics": WIDE,
    "combine": {"CHUNKS": 256, "SIZE": 8},
    "apply": {**WIDE, "SILU": True},
    "backward_sums": {**WIDE, "SILU": True},
    "backward_apply": {**WIDE, "SILU": True},
}


def kind(name: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in HALF:
        return "*bf16"
    return "*fp32" if name in SINGLE else "fp32" if name == "eps" else "i32"


def measure(name: str) -> dict[str, int]:
    kernel: Any = getattr(gpu, name)
    constants = CONSTANTS[name]
    types = {argument: kind(argument, constants) for argument in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, a in enumerate(kernel.arg_names) if types[a].startswith("*") or a == "channels"
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    built = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8 if name == "norm_small" else 4, "num_stages": 3}
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(built.asm["cubin"])
        usage, code = (
            subprocess.run([str(TOOLS / tool), flag, str(file)], capture_output=True, text=True, check=True).stdout
            for tool, flag in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    wide = len(re.findall(r"\bLDG\.E\.(?:\w+\.)*128\b|\bLDGSTS\b", code))
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return {"registers": int(found.group(1)), "stack": int(found.group(2)), "spills": spills, "wide": wide}


if __name__ == "__main__":
    json.dump({name: measure(name) for name in CONSTANTS}, sys.stdout)
