"""What an ONNX file from a stranger asks for, read from its bytes before any runtime sees it.

Protobuf by hand: fields are (number, value); of messages, only those that can lead to a tensor are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.errors import SpeechError

LARGEST = 256 << 20  # bytes: twice the largest published voice
MOST_PARTS = 2_000_000  # messages and their fields
OPSETS = range(9, 24)  # of the standard operators
STANDARD = (b"", b"ai.onnx")
PLAIN, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # fields of a tensor

# What may stand in what: message -> field -> message. Tensors hang on graphs, on attributes of nodes, on sparse tensors.
TREE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "tensor": {},
    "opset": {},
}


@dataclass(frozen=True)
class _Message:
    kind: str
    data: memoryview


def read_onnx(path: Path) -> bytes:
    """The bytes of a model that keeps to itself. Raises SpeechError for anything else."""
    size = path.stat().st_size
    if size > LARGEST:
        raise SpeechError(f"expected a voice of at most {LARGEST >> 20} MiB, got {size >> 20} MiB: {path.name}")
    data = path.read_bytes()
    try:
        check_model(data)
    except SpeechError as error:
        raise SpeechError(f"{path.name}: {error}") from None
    return data


def check_model(data: bytes) -> None:
    """Raise SpeechError for a model that is cut off, names other files, or asks for operators that are not the standard's."""
    waiting, parts, versions = [_Message("model", memoryview(data))], 0, []
    while waiting:
        message = waiting.pop()
        found = []
        for number, value in fields(message.data):
            parts += 1
            found.append((number, value))
            inner = TREE[message.kind].get(number)
            if inner is not None and isinstance(value, memoryview):
                waiting.append(_Message(inner, value))
        if parts > MOST_PARTS:
            raise SpeechError("expected the ONNX file of a voice, got one with millions of parts")
        match message.kind:
            case "tensor":
                check_tensor(found)
            case "node":
                check_node(found)
            case "opset":
                versions += opset_of(found)
    if not versions or any(version not in OPSETS for version in versions):
        told = ", ".join(map(str, versions)) or "none"
        raise SpeechError(f"expected an ONNX model of opset {OPSETS[0]} to {OPSETS[-1]}, got {told}; export the voice again")


def check_tensor(found: list[tuple[int, int | memoryview]]) -> None:
    """Raise SpeechError for a tensor whose numbers lie in another file: its path would be a stranger's."""
    if any(number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0) for number, value in found):
        raise SpeechError("expected a model in one file, got one whose weights lie in another; export it as a single file")


def check_node(found: list[tuple[int, int | memoryview]]) -> None:
    """Raise SpeechError for an operator that is not the standard's."""
    domain = next((bytes(value) for number, value in found if number == 7 and isinstance(value, memoryview)), b"")
    if domain not in STANDARD:
        raise SpeechError(f"expected standard ONNX operators, got one of {domain[:40].decode('utf-8', 'replace')!r}")


def opset_of(found: list[tuple[int, int | memoryview]]) -> list[int]:
    """Version of the standard operators, if it is told here."""
    domain = next((bytes(value) for number, value in found if number == 1 and isinstance(value, memoryview)), b"")
    return [value for number, value in found if number == 2 and isinstance(value, int)] if domain in STANDARD else []


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of one message. Raises SpeechError for bytes that are none."""
    place = 0
    while place < len(data):
        head, place = varint(data, place)
        kind, number = head & 7, head >> 3
        if kind == PLAIN:
            value, place = varint(data, place)
            yield number, value
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if kind == BYTES:
            size, place = varint(data, place)
        if size < 0 or place + size > len(data):
            raise SpeechError("expected an ONNX model, got a file that is cut off or something else; fetch the voice again")
        yield number, data[place : place + size]
        place += size


def varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it. Raises SpeechError."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise SpeechError("expected an ONNX model, got a file that is cut off or something else; fetch the voice again")
