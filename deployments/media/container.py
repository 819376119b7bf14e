"""Open a stranger's media file: known formats only, local files only, errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer

from deployments.errors import MediaError

FORMATS = {
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpeg", "mpegts", "avi", "asf", "flv", "mpegvideo", "nut", "gif",
    "wav", "mp3", "flac", "ogg", "aac", "aiff", "w64", "au", "caf", "amr",
}  # fmt: skip
PLAYLISTS = "playlists and concat scripts are refused: they can name other files and hosts"


@contextmanager
def open_input(path: Path) -> Iterator[InputContainer]:
    """A media file open for reading. Raises MediaError for anything that is not one."""
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"expected a media file at {path}, found {'a folder' if path.is_dir() else 'nothing'}")
    if path.stat().st_size == 0:
        raise MediaError(f"{path.name} is empty (0 bytes)")
    try:
        container = av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(f"{path.name} is not a media file that can be read ({error}); is it complete?") from error
    try:
        if container.format.name not in FORMATS:
            raise MediaError(f"{path.name} is of format '{container.format.name}', which is not accepted; {PLAYLISTS}")
        yield container
    except av.error.FFmpegError as error:
        raise MediaError(f"{path.name} cannot be decoded ({error}); is it complete?") from error
    finally:
        container.close()
