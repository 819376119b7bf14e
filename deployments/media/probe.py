"""What a clip is: every frame's time, where decoding can start, colours, rotation, sound."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from deployments.contracts import AudioStream, Clip
from deployments.errors import MediaError
from deployments.media.container import open_input

MAX_PIXELS = 8192 * 4352
MAX_STREAMS = 64
MAX_FRAMES = 60 * 60 * 60 * 4  # four hours at 60 per second
MIN_SIDE = 16
WHOLE = 0.95  # of the frames that a file announces: with fewer it was cut off
SLACK = 0.5  # seconds that the last picture and rounding may take
LIMITED_RANGE = 1  # what a silent file means
UNSPECIFIED = 2  # FFmpeg's "unspecified" for primaries, transfer and matrix


def probe(path: Path) -> Clip:
    """Probe a video file. Raises MediaError if it is not one that can be worked on."""
    path = Path(path)
    with open_input(path) as container:
        stream = video_stream(container, path)
        check_size(stream, path)
        pts, keys = packet_times(container, stream, path)
        audio = tuple(audio_stream(s) for s in container.streams.audio)
        base = stream.time_base or Fraction(1, 1000)
        announced, lasting = stream.frames, announced_seconds(stream)
        rate = stream.average_rate or stream.guessed_rate
    if len(pts) < WHOLE * announced and (held := stored_frames(path)) < WHOLE * announced:
        raise MediaError(f"{path.name} announces {announced} frames and holds {held}; it is truncated")
    if (end := float(pts[-1] * base)) < WHOLE * lasting - SLACK:
        raise MediaError(f"{path.name} announces pictures up to {lasting:.1f} s and holds them to {end:.1f} s; it is truncated")
    first = first_frame(path)
    if rate is None or rate <= 0 or len(pts) > 1:
        rate = mean_rate(pts, base) or rate or Fraction(25)
    rotation, mirrored = orientation(first)
    width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
    return Clip(
        path=path,
        width=width,
        height=height,
        rotation=rotation,
        codec=stream.codec_context.name,
        pix_fmt=first.format.name,
        bit_depth=max(component.bits for component in first.format.components),
        time_base=base,
        pts=pts,
        keyframes=keys,
        duration=(int(pts[-1] - pts[0])) * base + last_duration(pts, base, rate),
        average_rate=rate,
        color=colors(stream, first),
        audio=audio,
        digest=file_digest(path),
        mirrored=mirrored,
    )


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first real video stream (cover pictures do not count)."""
    if len(container.streams) > MAX_STREAMS:
        raise MediaError(f"{path.name} has {len(container.streams)} streams; at most {MAX_STREAMS} are accepted")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise MediaError(f"{path.name} has no video stream; expected a video of a talking person")


def check_size(stream: VideoStream, path: Path) -> None:
    """Bounds before the first frame is decoded."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < MIN_SIDE or height < MIN_SIDE:
        raise MediaError(f"{path.name} is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed to show a face")
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path.name} is {width}x{height} pixels; at most {MAX_PIXELS} pixels a frame are accepted")


def packet_times(container: InputContainer, stream: VideoStream, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """pts of all frames in display order [T] and the indices of frames where decoding can start."""
    times: list[int] = []
    keys: list[int] = []
    complete = True
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None:
            complete = False
            break
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        if len(times) > MAX_FRAMES:
            raise MediaError(f"{path.name} has more than {MAX_FRAMES} frames; cut it into parts")
    if not complete:
        times, keys = decoded_times(path)
    if not times:
        raise MediaError(f"{path.name} has a video stream without frames")
    pts = np.unique(np.array(times, np.int64))
    return pts, np.searchsorted(pts, np.unique(np.array(keys, np.int64)))


def decoded_times(path: Path) -> tuple[list[int], list[int]]:
    """Times from decoding, for streams whose packets do not tell them."""
    times, keys = [], []
    with open_input(path) as container:
        for frame in container.decode(video_stream(container, path)):
            if frame.pts is None:
                raise MediaError(f"{path.name} has frames without timestamps; remux it first")
            times.append(frame.pts)
            if frame.key_frame:
                keys.append(frame.pts)
    return times, keys


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Degrees counter-clockwise by which a stored frame is turned to be shown (0, 90, 180, 270), and whether it is mirrored
    after that, left for right, as some cameras that look at their user ask for."""
    beside: Any = frame.side_data  # the stubs know other keys
    if "DISPLAYMATRIX" not in beside:
        return 0, False
    a, b, _, c, d = np.frombuffer(beside["DISPLAYMATRIX"], np.int32)[:5].astype(np.float64)
    mirrored = a * d - b * c < 0
    turn = -np.degrees(np.arctan2(b, -a if mirrored else a))
    return round(turn / 90) * 90 % 360, bool(mirrored)


def announced_seconds(stream: VideoStream) -> float:
    """When the pictures of a Matroska file end by its own words, in seconds on its clock; 0 where it does not tell."""
    told = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return 3600 * float(told[1]) + 60 * float(told[2]) + float(told[3]) if told else 0.0


def stored_frames(path: Path) -> int:
    """How many frames a file holds, those too that are not shown: a clip that was trimmed without being encoded again keeps
    them behind an edit list."""
    with open_input(path, hidden=True) as container:
        return sum(packet.size > 0 for packet in container.demux(video_stream(container, path)))


def first_frame(path: Path) -> av.VideoFrame:
    """The first decodable frame."""
    with open_input(path) as container:
        for frame in container.decode(video_stream(container, path)):
            return frame
    raise MediaError(f"{path.name} has a video stream of which no frame can be decoded")


def audio_stream(stream: av.audio.stream.AudioStream) -> AudioStream:
    """Record of an audio stream."""
    base = stream.time_base or Fraction(1, stream.rate or 48000)
    return AudioStream(
        index=stream.index,
        codec=stream.codec_context.name,
        rate=stream.rate or 0,
        channels=stream.channels,
        start=(stream.start_time or 0) * base,
        duration=(stream.duration or 0) * base,
    )


def mean_rate(pts: NDArray[np.int64], base: Fraction) -> Fraction | None:
    """Frames per second over the whole clip."""
    span = int(pts[-1] - pts[0]) * base
    return Fraction(len(pts) - 1) / span if len(pts) > 1 and span > 0 else None


def last_duration(pts: NDArray[np.int64], base: Fraction, rate: Fraction) -> Fraction:
    """How long the last frame shows: as long as the one before."""
    return int(pts[-1] - pts[-2]) * base if len(pts) > 1 else 1 / rate


def colors(stream: VideoStream, frame: av.VideoFrame) -> dict[str, int]:
    """FFmpeg's integers for primaries, transfer, matrix and range."""
    context = stream.codec_context
    return {
        "primaries": int(context.color_primaries or UNSPECIFIED),
        "trc": int(context.color_trc or UNSPECIFIED),
        "space": int(context.colorspace if context.colorspace is not None else UNSPECIFIED),
        "range": int(frame.color_range or context.color_range or LIMITED_RANGE),
    }


def file_digest(path: Path) -> str:
    """sha256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
