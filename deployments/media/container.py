"""Open a stranger's media file: known formats only, local files only, errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer

from deployments.errors import MediaError

PLAYLISTS = "playlists and scripts are refused: they can name other files and hosts"
MAGIC = (
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"\x00\x00\x01\xb3", "mpegvideo"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"FORM", "aiff"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"RF64", "wav"),
    (0, b"FLV\x01", "flv"),
    (0, b"GIF8", "gif"),
    (8, b"AVI ", "avi"),
    (8, b"WAVE", "wav"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"free", "mov"),
    (4, b"wide", "mov"),
    (4, b"skip", "mov"),
)
SYNC, PACKET, PACKET_WITH_CLOCK = b"\x47", 188, 192


def sniff(head: bytes) -> str | None:
    """FFmpeg's name of the container by its first 400 bytes; None for all others, playlists among them."""
    for offset, magic, name in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    for start, step in ((0, PACKET), (4, PACKET_WITH_CLOCK)):
        if head[start : start + 1] == SYNC and head[start + step : start + step + 1] == SYNC:
            return "mpegts"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    return None


@contextmanager
def open_input(path: Path, hidden: bool = False) -> Iterator[InputContainer]:
    """A media file open for reading, with what an edit list hides if `hidden`. Raises MediaError for anything that is not one."""
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"expected a media file at {path}, found {'a folder' if path.is_dir() else 'nothing'}")
    if path.stat().st_size == 0:
        raise MediaError(f"{path.name} is empty (0 bytes)")
    try:
        with path.open("rb") as file:
            name = sniff(file.read(400))
        if name is None:
            raise MediaError(f"{path.name} is not a media file of an accepted format (mp4, mov, mkv, webm, ...); {PLAYLISTS}")
        address = f"file:{path.resolve()}"
        options = {"protocol_whitelist": "file", **({"ignore_editlist": "1"} if hidden else {})}
        container = av.open(address, format=name, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(f"{path.name} is not a media file that can be read ({error}); is it complete?") from error
    try:
        yield container
    except av.error.FFmpegError as error:
        raise MediaError(f"{path.name} cannot be decoded ({error}); is it complete?") from error
    finally:
        container.close()
