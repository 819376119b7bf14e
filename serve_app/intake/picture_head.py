"""The size of a picture from its first bytes: a small file can unfold to gigabytes, so this is asked before decoding."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from deployments.errors import MediaError

JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers of a frame; the three others are tables
JPEG_PLAIN = {0x01, *range(0xD0, 0xD8)}  # markers without a length
ACCEPTED = "expected a picture (PNG, JPEG, WebP, BMP, GIF)"


def picture_size(path: Path) -> tuple[str, int, int]:
    """Suffix, width and height. Raises MediaError for all other formats."""
    with path.open("rb") as file:
        head = file.read(32)
        try:
            return known_size(head, file)
        except (struct.error, IndexError):
            raise MediaError(f"{path.name}: {ACCEPTED}, got one that ends in its head; is it complete?") from None
        except LookupError:
            raise MediaError(f"{path.name}: {ACCEPTED}, got something else") from None


def known_size(head: bytes, file: BinaryIO) -> tuple[str, int, int]:
    """As `picture_size`. Raises KeyError for an unknown format, struct.error for a short one."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png", *struct.unpack(">II", head[16:24])
    if head.startswith(b"GIF8"):
        return ".gif", *struct.unpack("<HH", head[6:10])
    if head.startswith(b"BM"):
        width, height = struct.unpack("<ii", head[18:26])
        return ".bmp", abs(width), abs(height)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp", *webp_size(head)
    if head.startswith(b"\xff\xd8\xff"):
        file.seek(2)
        return ".jpg", *jpeg_size(file)
    raise KeyError("no known picture")


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of the three kinds of WebP."""
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise KeyError("no known WebP")


def jpeg_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height from the first frame marker."""
    while True:
        byte, marker = struct.unpack(">BB", file.read(2))
        while marker == 0xFF:  # padding
            (marker,) = struct.unpack(">B", file.read(1))
        if byte != 0xFF:
            raise KeyError("no JPEG marker")
        if marker in JPEG_SIZES:
            _, _, height, width = struct.unpack(">HBHH", file.read(7))
            return width, height
        if marker not in JPEG_PLAIN:
            (length,) = struct.unpack(">H", file.read(2))
            file.seek(max(0, length - 2), 1)
