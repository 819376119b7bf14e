"""Compiles the Triton kernel of warp3d for an H100 on a machine without one and prints what ptxas made of it, as JSON."""

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

from kernels.warp3d import gpu

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def measure(channels: int) -> dict[str, int]:
    kernel: Any = gpu.warp_forward
    constants = {"BLOCK": gpu.BLOCK, "CHANNELS": gpu.channel_block(channels)}
    pointers = ("volume", "grid", "out")
    types = {name: "constexpr" if name in constants else "*fp32" if name in pointers else "i32" for name in kernel.arg_names}
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
    json.dump({str(channels): measure(channels) for channels in (3, 32, 64)}, sys.stdout)
