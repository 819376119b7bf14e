"""Is this file the media that it is said to be? A process of its own looks, with little memory, time and no secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from deployments.errors import InputError, LipSyncError, MediaError, SpeechError

Kind = Literal["video", "audio", "image"]
ROOT = Path(__file__).resolve().parents[2]  # where the child finds this package, however we were started
ERRORS: dict[str, type[LipSyncError]] = {kind.__name__: kind for kind in (InputError, MediaError, SpeechError)}


@dataclass(frozen=True)
class MediaLimits:
    """What media may be, and what looking at it may cost."""

    max_seconds: float = 3600
    max_side: int = 8192  # pixels
    max_pixels: int = 8192 * 4352  # of a video's frame
    max_image_pixels: int = 8192 * 8192
    max_fps: float = 240
    max_streams: int = 16
    check_seconds: float = 120  # wall clock and CPU time of the look
    check_bytes: int = 4 << 30  # address space


@dataclass(frozen=True)
class MediaFacts:
    """What a file is. Sound: no width, height and fps; pictures: one frame, no seconds, codec "image"."""

    kind: Kind
    width: int  # upright
    height: int
    fps: Fraction
    seconds: Fraction
    frames: int
    codec: str
    suffix: str  # of the format found, like ".mp4", whatever the file is called


def check_media(path: Path, kind: Kind, limits: MediaLimits = MediaLimits()) -> MediaFacts:
    """Facts of a media file that can be worked on. Raises MediaError or SpeechError."""
    command = [sys.executable, "-P", "-s", "-m", "serve_app.intake.probe_child"]
    request = {"path": str(Path(path).resolve()), "kind": kind, "limits": asdict(limits)}
    # A bare environment: secrets stay here, and libraries start one thread.
    bare = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=limits.check_seconds,
            env=bare,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MediaError(f"{path.name} takes more than {limits.check_seconds:g} s to look at; convert it to MP4 first") from None
    return read_answer(ended.stdout, path)


def read_answer(said: bytes, path: Path) -> MediaFacts:
    """Facts from the child's JSON. Raises what it found wrong; MediaError if it died."""
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise MediaError(f"{path.name} needs more memory or time to read than such a file should; convert it first") from None
    if "error" in answer:
        raise ERRORS[answer["error"]](answer["message"])
    return MediaFacts(**{**answer, "fps": Fraction(answer["fps"]), "seconds": Fraction(answer["seconds"])})
