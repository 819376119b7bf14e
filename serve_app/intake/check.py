"""Whether a stranger's file may be worked on, found out by a process that can be killed.

Decoders are large programs in C: what they do with a hostile file happens in a child with limits on memory, CPU and
time, without this process's environment and secrets.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from deployments.errors import InputError, LipSyncError, MediaError, NoFaceError, OutputError, SpeechError, WeightsError
from deployments.settings import cache_folder

Kind = Literal["video", "audio", "image"]
ROOT = Path(__file__).resolve().parents[2]
ERRORS: dict[str, type[LipSyncError]] = {
    kind.__name__: kind for kind in (MediaError, NoFaceError, SpeechError, OutputError, WeightsError)
}
FACE_MODELS = ("face_landmarker.task", "face_detection_full_range.tflite")  # those of deployments.face.detect
BYTES_PER_SECOND = 20 << 20  # a slow disk, read three times: it lengthens the time of large files


@dataclass(frozen=True)
class MediaLimits:
    """What is accepted, and what finding out may cost."""

    max_seconds: float = 3600
    max_side: int = 8192  # pixels
    max_pixels: int = 8192 * 4352
    max_fps: float = 120
    max_streams: int = 16
    check_seconds: float = 60  # of wall time and of CPU time
    check_bytes: int = 6 << 30  # of address space; libraries and threads reserve far more than they use


@dataclass(frozen=True)
class MediaFacts:
    """What an accepted file is."""

    kind: Kind
    width: int
    height: int
    fps: float
    seconds: Fraction
    frames: int
    codec: str  # "image" for pictures
    suffix: str


def check_media(path: Path, kind: Kind, limits: MediaLimits | None = None, *, face: bool = False) -> MediaFacts:
    """Facts of a file that can be worked on. With `face`, a video must show one in one of eight frames.

    Raises MediaError, SpeechError or NoFaceError, or WeightsError if it has to look for a face and cannot; messages
    name the file only by its last part.
    """
    path, limits = path.resolve(), limits or MediaLimits()
    size = path.stat().st_size if path.is_file() else 0
    if size == 0:
        raise MediaError(f"expected a {kind} file, got an empty one: {path.name}")
    if face and kind == "video":
        bring_models()
    asked = json.dumps({"path": str(path), "kind": kind, "face": face, **asdict(limits)})
    try:
        child = subprocess.run(
            [sys.executable, "-m", "serve_app.intake.probe_child"],
            input=asked.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders chatter about broken files
            cwd=ROOT,
            env=environment(limits),
            timeout=limits.check_seconds + size / BYTES_PER_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MediaError(f"expected a {kind} file that can be looked through in time, got one that cannot: {path.name}") from None
    return read_answer(child.stdout, path, kind)


def bring_models() -> None:
    """Fetch what finds faces, once: the child may not write, and shall not ask the network. Raises WeightsError."""
    from deployments.weights import weights_path

    for name in FACE_MODELS:
        weights_path(name)


def environment(limits: MediaLimits) -> dict[str, str]:
    """All that the child knows of this process."""
    return {
        "LC_ALL": "C.UTF-8",
        "LIPSYNC_CACHE": str(cache_folder()),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # OpenCV looks at a picture's header against these before it makes room for it
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(limits.max_pixels),
        "OPENCV_IO_MAX_IMAGE_WIDTH": str(limits.max_side),
        "OPENCV_IO_MAX_IMAGE_HEIGHT": str(limits.max_side),
    }


def read_answer(raw: bytes, path: Path, kind: Kind) -> MediaFacts:
    """What the child found. Raises what it found wrong."""
    try:
        found: dict[str, Any] = json.loads(raw)
    except ValueError:  # it was stopped by one of its limits, or by the decoder
        raise MediaError(
            f"expected a {kind} file that can be read within bounds, got one that cannot: {path.name}; export it again"
        ) from None
    if "error" in found:
        message = str(found["error"]).replace(f"file:{path}", path.name).replace(str(path), path.name)
        error = ERRORS.get(found["type"], MediaError)
        if issubclass(error, InputError) and "expected" not in message:
            message = f"expected a {kind} file, got one that cannot be used: {message}"
        raise error(message)
    return MediaFacts(**{**found, "seconds": Fraction(found["seconds"])})
