"""The child of `check_media`: a question as JSON on stdin, facts or an error as JSON on stdout."""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from deployments.errors import LipSyncError, MediaError, NoFaceError, SpeechError
from serve_app.intake.check import MediaLimits

if TYPE_CHECKING:
    from deployments.contracts import Clip

VIDEO_FORMATS = {"mov": ".mp4", "matroska": ".mkv", "mpegts": ".ts", "mpeg": ".mpg", "avi": ".avi", "flv": ".flv"}
AUDIO_FORMATS = {"wav": ".wav", "mp3": ".mp3", "flac": ".flac", "ogg": ".ogg", "aac": ".aac", "aiff": ".aiff", "caf": ".caf"}
VIDEO_CODECS = (
    "h264 hevc av1 vp8 vp9 mpeg4 mpeg2video mpeg1video h263 prores dnxhd mjpeg ffv1 huffyuv theora flv1 rawvideo png qtrle "
    "msmpeg4v2 msmpeg4v3 vc1 wmv3 cfhd"
).split()
AUDIO_CODECS = "aac mp3 mp2 opus vorbis flac alac ac3 eac3 dts amr_nb amr_wb wmav2 speex wavpack".split()
PICTURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp"}
HEAD = 400
FACE_LOOKS = 8
FACE_REACH, FACE_PIXELS = 600, 5e9  # decoded to see one frame; to see all: some 20 s of work
MAX_BOXES = 1000
MAX_SEEK = 1 << 42
SLACK_SECONDS = 10.0  # a header may say this much more than the data; it may also say twice as much


def main() -> None:
    """Answer one question."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not the answer
    asked: dict[str, Any] = json.load(sys.stdin)
    path, kind, face = Path(asked.pop("path")), asked.pop("kind"), asked.pop("face")
    limits = MediaLimits(**asked)
    bound(limits)
    try:
        if kind == "video":
            found = check_video(path, limits, face)
        else:
            found = {"audio": check_audio, "image": check_image}[kind](path, limits)
    except LipSyncError as error:
        found = {"type": type(error).__name__, "error": str(error)}
    except MemoryError:
        found = {"type": "MediaError", "error": f"{path.name} needs more memory than is given to a check"}
    json.dump(found, answer_to)
    answer_to.close()


def bound(limits: MediaLimits) -> None:
    """From here on the process has little to spend, and writes nothing."""
    seconds = math.ceil(limits.check_seconds)
    resource.setrlimit(resource.RLIMIT_AS, (limits.check_bytes, limits.check_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def check_video(path: Path, limits: MediaLimits, face: bool) -> dict[str, Any]:
    """First what the header says, then what the packets say."""
    from deployments.media.container import open_input
    from deployments.media.probe import check_size, probe, video_stream

    suffix = suffix_of(path, "video", VIDEO_FORMATS)
    with open_input(path) as container:
        check_count(container, path, limits)
        stream = video_stream(container, path)
        check_size(stream, path)
        width, height = stream.codec_context.width, stream.codec_context.height
        check_picture_size(path, width, height, limits)
        codec = codec_of(path, stream, "video", VIDEO_CODECS)
        told = max(seconds_told(container), movie_seconds(path) if suffix == ".mp4" else 0.0)
        check_seconds(path, told, limits)
    clip = probe(path)
    check_seconds(path, float(clip.duration), limits)
    check_rate(path, clip.average_rate, limits)  # not the header's: recordings of browsers say 1000
    if told > 2 * float(clip.duration) + SLACK_SECONDS and not has_more_sound(path, told):
        raise MediaError(
            f"{path.name}: expected {told:.0f} s as its header says, got {float(clip.duration):.1f} s; is it complete?"
        )
    if face:
        look_for_face(clip)
    return facts("video", suffix, codec, clip.duration, clip.width, clip.height, float(clip.average_rate), clip.frames)


def check_audio(path: Path, limits: MediaLimits) -> dict[str, Any]:
    """All samples are decoded, and none is kept. What a header says counts for nothing: of an MP3 it is a guess."""
    from deployments.media.container import open_input

    suffix = suffix_of(path, "audio", AUDIO_FORMATS | VIDEO_FORMATS)
    with open_input(path) as container:
        check_count(container, path, limits)
        if not container.streams.audio:
            raise SpeechError(f"{path.name}: expected a sound track, got none; give a file with sound")
        stream = container.streams.audio[0]
        codec = codec_of(path, stream, "audio", AUDIO_CODECS)
        seconds = count_samples(path, container.decode(stream), limits)
    if seconds == 0:
        raise SpeechError(f"{path.name}: expected sound, got no samples; give a file with sound")
    return facts("audio", suffix, codec, seconds)


def count_samples(path: Path, frames: Any, limits: MediaLimits) -> Fraction:
    """Length of decoded sound. Raises SpeechError for NaN samples, or more than is accepted."""
    import numpy as np

    seconds = Fraction(0)
    count = rate = 0
    for frame in frames:
        if frame.sample_rate != rate:
            seconds, count, rate = seconds + (Fraction(count, rate) if rate else 0), 0, frame.sample_rate
        count += frame.samples
        samples = frame.to_ndarray()
        if samples.dtype.kind == "f" and not np.isfinite(samples).all():
            raise SpeechError(f"{path.name}: expected finite samples, got NaN or infinity; export the sound again")
        check_seconds(path, count / rate, limits)
    return seconds + (Fraction(count, rate) if rate else 0)


def check_image(path: Path, limits: MediaLimits) -> dict[str, Any]:
    """A picture, decoded."""
    import cv2

    from serve_app.portrait import read_picture

    with path.open("rb") as file:
        head = file.read(HEAD)
    suffix = next((end for magic, end in PICTURES.items() if head.startswith(magic)), None)
    if suffix is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        suffix = ".webp"
    if suffix is None:
        raise MediaError(f"{path.name}: expected a picture (PNG, JPEG, WebP or BMP), got something else")
    try:
        picture = read_picture(path)
    except cv2.error:
        raise MediaError(
            f"{path.name}: expected a whole picture of at most {limits.max_side} pixels a side and "
            f"{limits.max_pixels} in all, got a larger or a broken one; scale it first"
        ) from None
    height, width = picture.shape[:2]
    check_picture_size(path, width, height, limits)
    if min(width, height) < 16:
        raise MediaError(f"{path.name}: expected a picture of at least 16x16 pixels, got {width}x{height}")
    return facts("image", suffix, "image", Fraction(0), width, height, frames=1)


def look_for_face(clip: Clip) -> None:
    """Raise NoFaceError if none of some frames, spread over the clip, shows a face.

    Keyframes come first: to see another frame, all from its keyframe on are decoded. Where those are very many it is
    not looked at, and the job finds out.
    """
    import numpy as np

    from deployments.contracts import Span
    from deployments.face.detect import FaceDetector
    from deployments.media.decode import decode

    even = np.linspace(0, clip.frames - 1, FACE_LOOKS).astype(int)
    before = clip.keyframes[np.maximum(np.searchsorted(clip.keyframes, even, "right") - 1, 0)]
    away = even - before
    near = even[(away <= FACE_REACH) & (np.cumsum(away) * clip.width * clip.height <= FACE_PIXELS)]
    places = list(dict.fromkeys([*before.tolist(), *near.tolist()]))
    detector = FaceDetector()
    for place in places:
        for picture in decode(clip, Span(place, place + 1)):
            if detector.faces(picture.rgb()):
                return
    if len(near) < len(even):
        return
    raise NoFaceError(
        f"{clip.path.name}: expected a face, got none in {len(places)} frames from start to end; choose another clip"
    )


def suffix_of(path: Path, kind: str, known: dict[str, str]) -> str:
    """The name's end for the format that the first bytes show. Raises MediaError for one that is not accepted."""
    from deployments.media.container import PLAYLISTS, sniff

    with path.open("rb") as file:
        name = sniff(file.read(HEAD))
    if name not in known:
        raise MediaError(f"{path.name}: expected a {kind} file ({', '.join(sorted(known))}), got {name or 'none'}; {PLAYLISTS}")
    return known[name]


def check_count(container: Any, path: Path, limits: MediaLimits) -> None:
    """Raise MediaError for too many streams."""
    if len(container.streams) > limits.max_streams:
        raise MediaError(
            f"{path.name}: expected at most {limits.max_streams} streams, got {len(container.streams)}; export it again"
        )


def check_picture_size(path: Path, width: int, height: int, limits: MediaLimits) -> None:
    """Raise MediaError for too many pixels."""
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise MediaError(
            f"{path.name}: expected at most {limits.max_side} pixels a side and {limits.max_pixels} in all, "
            f"got {width}x{height}; scale it first"
        )


def check_rate(path: Path, rate: Fraction | None, limits: MediaLimits) -> None:
    """Raise MediaError for too many frames per second."""
    if rate is not None and rate > limits.max_fps:
        raise MediaError(
            f"{path.name}: expected at most {limits.max_fps:g} frames per second, got {float(rate):.4g}; export it with fewer"
        )


def check_seconds(path: Path, seconds: float, limits: MediaLimits) -> None:
    """Raise MediaError for too long a file."""
    if seconds > limits.max_seconds:
        raise MediaError(f"{path.name}: expected at most {limits.max_seconds:g} s, got {seconds:.0f} s or more; cut it")


def seconds_told(container: Any) -> float:
    """What the header says of the whole file's length; 0 if nothing."""
    return max(0.0, (container.duration or 0) / 1e6)


def movie_seconds(path: Path) -> float:
    """What the movie header of an MP4 says, which FFmpeg does not ask; players do. 0 if nothing or "unknown"."""
    with path.open("rb") as file:
        if not enter(file, b"moov") or not enter(file, b"mvhd"):
            return 0.0
        head = file.read(32).ljust(32, b"\0")
    scale, length = struct.unpack(">20xIQ" if head[0] == 1 else ">12xII12x", head)
    unknown = length in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return 0.0 if scale == 0 or unknown else float(length / scale)


def enter(file: BinaryIO, wanted: bytes) -> bool:
    """Move into the next box of a name, over the others of its level; False if there is none."""
    for _ in range(MAX_BOXES):
        head = file.read(8)
        if len(head) < 8:
            return False
        size, read = int.from_bytes(head[:4], "big"), 8
        if head[4:] == wanted:
            if size == 1:
                file.read(8)
            return True
        if size == 1:
            size, read = int.from_bytes(file.read(8), "big"), 16
        if size < read:
            return False
        file.seek(min(size - read, MAX_SEEK), os.SEEK_CUR)
    return False


def has_more_sound(path: Path, told: float) -> bool:
    """Whether the sound goes on so long after the picture that the header is right."""
    from deployments.media.container import open_input

    last = 0.0
    with open_input(path) as container:
        for packet in container.demux(*container.streams.audio) if container.streams.audio else ():
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return told <= 2 * last + SLACK_SECONDS


def codec_of(path: Path, stream: Any, kind: str, known: list[str]) -> str:
    """The codec's name. Raises MediaError for one that is not accepted."""
    context = stream.codec_context
    name = str(context.codec.canonical_name) if context is not None else "none"
    if name not in known and not (kind == "audio" and name.startswith(("pcm_", "adpcm_"))):
        raise MediaError(f"{path.name}: expected {kind} in a codec like {', '.join(known[:5])}, got {name}; export it again")
    return name


def facts(
    kind: str, suffix: str, codec: str, seconds: Fraction, width: int = 0, height: int = 0, fps: float = 0.0, frames: int = 0
) -> dict[str, Any]:
    """`MediaFacts` as JSON has them."""
    return {
        "kind": kind,
        "suffix": suffix,
        "codec": codec,
        "seconds": str(seconds),
        "width": width,
        "height": height,
        "fps": fps,
        "frames": frames,
    }


if __name__ == "__main__":
    main()
