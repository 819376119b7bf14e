"""The process that looks at a stranger's file: request as JSON on stdin, facts or an error as JSON on stdout."""

from __future__ import annotations

import json
import math
import resource
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from serve_app.intake.check import ERRORS, MediaFacts, MediaLimits

SUFFIXES = {"mov": ".mp4", "matroska": ".mkv", "mpegts": ".ts", "mpeg": ".mpg", "mpegvideo": ".mpg"}


def main() -> None:
    """One look."""
    request = json.load(sys.stdin)
    limits = MediaLimits(**request["limits"])
    bound_process(limits)
    try:
        answer = look(Path(request["path"]), request["kind"], limits)
    except tuple(ERRORS.values()) as error:
        kind = next(name for name, known in reversed(ERRORS.items()) if isinstance(error, known))
        answer = {"error": kind, "message": str(error)}
    json.dump(answer, sys.stdout, default=str)


def bound_process(limits: MediaLimits) -> None:
    """No more memory or CPU time than that, no core file, nothing written to disk."""
    seconds = math.ceil(limits.check_seconds)
    resource.setrlimit(resource.RLIMIT_AS, (limits.check_bytes, limits.check_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def look(path: Path, kind: str, limits: MediaLimits) -> dict[str, Any]:
    """Facts of a file as plain values. Raises MediaError or SpeechError."""
    known = {"video": look_at_video, "audio": look_at_sound, "image": look_at_picture}
    return asdict(known[kind](path, limits))


def look_at_video(path: Path, limits: MediaLimits) -> MediaFacts:
    """Facts of a video: from its packets' times, not from what its header claims."""
    from deployments.errors import MediaError
    from deployments.media.probe import probe

    suffix = check_streams(path, limits)
    clip = probe(path)
    if max(clip.width, clip.height) > limits.max_side or clip.width * clip.height > limits.max_pixels:
        raise MediaError(
            f"{path.name}: expected at most {limits.max_side} pixels a side, got {clip.width}x{clip.height}; scale it"
        )
    check_length(path, clip.duration, limits)
    # one frame has no rate of its own
    if clip.frames > 1 and clip.average_rate > limits.max_fps:
        rate = float(clip.average_rate)
        raise MediaError(f"{path.name}: expected at most {limits.max_fps:g} frames per second, got {rate:g}; convert it")
    return MediaFacts("video", clip.width, clip.height, clip.average_rate, clip.duration, clip.frames, clip.codec, suffix)


def check_streams(path: Path, limits: MediaLimits) -> str:
    """The suffix of a file's format. Raises MediaError for too many streams, or a frame that is too large to decode."""
    from deployments.errors import MediaError
    from deployments.media.container import open_input

    with open_input(path) as container:
        if len(container.streams) > limits.max_streams:
            raise MediaError(
                f"{path.name}: expected at most {limits.max_streams} streams, got {len(container.streams)}; remux it"
            )
        for stream in container.streams.video:
            width, height = stream.codec_context.width, stream.codec_context.height
            if max(width, height) > limits.max_side:
                raise MediaError(f"{path.name}: expected at most {limits.max_side} pixels a side, got {width}x{height}; scale it")
    with path.open("rb") as file:
        return suffix_of(file.read(400))


def suffix_of(head: bytes) -> str:
    """The usual suffix of a container."""
    from deployments.media.container import sniff

    name = sniff(head) or ""
    return SUFFIXES.get(name, f".{name}")


def check_length(path: Path, seconds: Fraction, limits: MediaLimits) -> None:
    """Raise MediaError for a file that plays for too long."""
    from deployments.errors import MediaError

    if seconds > limits.max_seconds:
        raise MediaError(f"{path.name}: expected at most {limits.max_seconds:g} s, got {float(seconds):.1f} s; cut it into parts")


def look_at_sound(path: Path, limits: MediaLimits) -> MediaFacts:
    """Facts of a sound file, or of a video's first sound track: decoded to its end, block by block."""
    import numpy as np

    from deployments.errors import SpeechError
    from deployments.media.container import open_input

    suffix = check_streams(path, limits)
    seconds, first = Fraction(0), None
    with open_input(path) as container:
        if not container.streams.audio:
            raise SpeechError(f"{path.name}: expected sound, got a file without a sound track; record one, or send a text")
        track = container.streams.audio[0]
        for frame in container.decode(track):
            block = frame.to_ndarray()
            if block.dtype.kind == "f" and not np.isfinite(block).all():
                raise SpeechError(f"{path.name}: expected finite samples, got NaN or infinity; export the sound again")
            seconds += Fraction(frame.samples, frame.sample_rate)
            if frame.pts is not None and frame.time_base:
                start = frame.pts * Fraction(frame.time_base)
                first = start if first is None else first
                # gaps are filled with silence later: they count
                check_length(path, start - first, limits)
            check_length(path, seconds, limits)
        codec = track.codec_context.name
    if seconds == 0:
        raise SpeechError(f"{path.name}: expected sound, got a track without samples; export it again")
    return MediaFacts("audio", 0, 0, Fraction(0), seconds, 0, codec, suffix)


def look_at_picture(path: Path, limits: MediaLimits) -> MediaFacts:
    """Facts of a still picture: its size is read from its head before it is decoded."""
    from deployments.errors import MediaError
    from serve_app.intake.picture_head import picture_size

    suffix, width, height = picture_size(path)
    if max(width, height) > limits.max_side or width * height > limits.max_image_pixels:
        raise MediaError(f"{path.name}: expected at most {limits.max_side} pixels a side, got {width}x{height}; scale it first")
    from serve_app.portrait import read_picture

    picture = read_picture(path)
    return MediaFacts("image", picture.shape[1], picture.shape[0], Fraction(0), Fraction(0), 1, "image", suffix)


if __name__ == "__main__":
    main()
