"""Compiles the Triton kernel of decode_out for an H100 on a machine without one and prints what ptxas made of it, as JSON."""

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

from kernels.decode_out import gpu
from kernels.nv12 import Nv12

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def measure(features: str, nv12: Nv12 | None) -> dict[str, int]:
    kernel: Any = gpu.decode_out_forward
    numbers = tuple(number for row in nv12.rows() for number in row) if nv12 else ()
    constants = {"BLOCK": gpu.BLOCK, "CHANNELS": gpu.CHANNELS, "COLOURS": numbers, "NV12": nv12 is not None}
    pointers = ("x", "scale", "offset", "kernel", "shift", "out")
    special = {"x": features, "out": "*u8"} | dict.fromkeys(constants, "constexpr")
    types = {n: special.get(n, "*fp32" if n in pointers else "i32") for n in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in pointers}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 3})
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
    kinds = {"fp32": ("*fp32", None), "bf16": ("*bf16", None), "bf16, nv12": ("*bf16", Nv12())}
    json.dump({name: measure(*how) for name, how in kinds.items()}, sys.stdout)
