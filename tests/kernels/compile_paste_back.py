"""Compiles the Triton kernels of paste_back for an H100 on a machine without one and prints what ptxas made of them, as JSON."""

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

from kernels.paste_back import gpu, gpu_rim

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {"frames": "*u8", "mask": "*fp32", "plan": "*fp32", "moments": "*fp32", "out": "*fp32"}


def measure(kernel: Any, pictures: str, constants: dict[str, Any]) -> dict[str, int]:
    pointers = POINTERS | {"patches": pictures, "texture": pictures}
    types = {n: pointers.get(n, "fp32" if n == "gain" else "i32") for n in kernel.arg_names} | dict.fromkeys(
        constants, "constexpr"
    )
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


def main() -> None:
    found = {}
    for nv12, kind in ((False, "rgb"), (True, "nv12")):
        found[f"rim, {kind}"] = measure(gpu_rim.rim_parts, "*u8", {"BLOCK": gpu_rim.BLOCK, "NV12": nv12})
        tile = {"ROWS": gpu.ROWS, "COLUMNS": gpu.COLUMNS, "TEXTURE": False, "MATCH": True, "NV12": nv12}
        found[f"paste, {kind}"] = measure(gpu.paste, "*u8", tile)
    found["paste textured, nv12"] = measure(gpu.paste, "*bf16", tile | {"TEXTURE": True})
    # sizes of one become constants where a launch has them
    ones = dict.fromkeys(("height", "width", "tall", "wide", "across"), 1)
    found["paste, one pixel"] = measure(gpu.paste, "*fp32", tile | ones | {"NV12": False})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
