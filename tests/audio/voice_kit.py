"""A voice at its smallest, in Piper's format: a real ONNX model written byte by byte.

Every id becomes `length * 400` samples of a tone of its own (`hertz_of`), silence for pad, start, end and blank, and noise
times `scales[0]` lies over all of it. With `speakers`, `sid` raises every tone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE, SAMPLES, STEP = 16000, 400, 0.02
SIGNS = ["_", "^", "$", " ", ".", ",", "!", "?", *"abdefhijklmnoprstuvwyzæðŋɑɔəɚɛɜɡɪɹɾʃʊʌʒθˈˌː"]
FLOAT, INT64 = 1, 7


def hertz_of(sign: str, speaker: int = 0) -> float:
    """What a sound sounds like."""
    return STEP * (SIGNS.index(sign) + 10 * speaker) * RATE / (2 * np.pi)


def number(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(place: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(data)) + data


def tensor(name: str, values: Sequence[float], kind: int, *extra: bytes, scalar: bool = False) -> bytes:
    raw = struct.pack(f"<{len(values)}{'f' if kind == FLOAT else 'q'}", *values)
    dims = b"" if scalar else field(1, len(values))
    return dims + field(2, kind) + field(8, name) + field(9, raw) + b"".join(extra)


def node(kind: str, inputs: str, out: str, domain: str = "", **attributes: int) -> bytes:
    told = b"".join(field(1, name) for name in inputs.split()) + field(2, out) + field(4, kind)
    told += b"".join(field(5, field(1, name) + field(3, value) + field(20, 2)) for name, value in attributes.items())
    return told + (field(7, domain) if domain else b"")


def value_info(name: str, kind: int, dims: Sequence[int | str]) -> bytes:
    shape = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def model(speakers: int = 1, opset: int = 15, domain: str = "", tensor_extra: bytes = b"", inputs: str = "input") -> bytes:
    """The bytes of the ONNX file."""
    nodes = [
        node("Cast", inputs, "ids", to=FLOAT),
        node("Gather", "scales one", "length"),
        node("Gather", "scales zero", "noise"),
        node("Mul", "length samples", "count"),
        node("Range", "nothing count unit", "time", domain),
        *([node("Cast", "sid", "speaker", to=FLOAT), node("Mul", "speaker ten", "up")] if speakers > 1 else []),
        node("Add", "ids up", "raised"),
        node("Mul", "raised step", "speed"),
        node("Unsqueeze", "speed last", "speeds"),
        node("Mul", "speeds time", "phase"),
        node("Sin", "phase", "tones"),
        node("Greater", "ids blank", "heard"),
        node("Cast", "heard", "loud", to=FLOAT),
        node("Unsqueeze", "loud last", "louder"),
        node("Mul", "tones louder", "said"),
        node("RandomNormalLike", "said", "random"),
        node("Mul", "random noise", "hiss"),
        node("Mul", "hiss little", "hissing"),
        node("Add", "said hissing", "sound"),
        node("Reshape", "sound shape", "output"),
    ]
    tensors = [
        tensor("one", [1], INT64, scalar=True),
        tensor("zero", [0], INT64, scalar=True),
        *(tensor("up", [0], FLOAT, scalar=True) for _ in range(speakers == 1)),
        *(
            tensor(name, [value], FLOAT, scalar=True)
            for name, value in {
                "samples": SAMPLES, "nothing": 0, "unit": 1, "ten": 10, "step": STEP, "blank": 3.5, "little": 0.01
            }.items()
        ),
        tensor("last", [2], INT64),
        tensor("shape", [1, 1, 1, -1], INT64, tensor_extra),
    ]  # fmt: skip
    given = [value_info(inputs, INT64, ["batch", "phonemes"]), value_info("input_lengths", INT64, ["batch"])]
    given += [value_info("scales", FLOAT, [3])] + ([value_info("sid", INT64, ["batch"])] if speakers > 1 else [])
    graph = b"".join(field(1, one) for one in nodes) + field(2, "voice") + b"".join(field(5, one) for one in tensors)
    graph += b"".join(field(11, one) for one in given) + field(12, value_info("output", FLOAT, ["batch", 1, 1, "time"]))
    return field(1, 8) + field(7, graph) + field(8, field(2, opset))


def settings(**changes: Any) -> dict[str, Any]:
    """What the JSON file says."""
    return {
        "audio": {"sample_rate": RATE, "quality": "medium"},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_map": {},
        "phoneme_id_map": {sign: [number] for number, sign in enumerate(SIGNS)},
        "num_symbols": 256,
        "num_speakers": 1,
        "speaker_id_map": {},
        **changes,
    }


def write_voice(folder: Path, name: str = "tiny", data: bytes | None = None, **changes: Any) -> Path:
    """Both files of a voice; the path of the ONNX file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(model(changes.get("num_speakers", 1)) if data is None else data)
    (folder / f"{name}.onnx.json").write_text(json.dumps(settings(**changes)), encoding="utf-8")
    return folder / f"{name}.onnx"
