"""Pictures to packets: chunks that can be joined without another encoding, and whole new videos."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from deployments.contracts import Clip
from deployments.errors import OptionError, OutputError, RenderError
from deployments.media.avc import encoder_header
from deployments.media.container import open_input
from deployments.media.decode import YuvPicture, working_format
from deployments.media.probe import video_stream
from deployments.media.sound import SoundPlan

Quality = Literal["high", "lossless", "small"]
CRF = {"high": 17, "small": 20}
CRF_10_BIT = {"high": 14, "small": 20}
FINE_BITS = 0.05  # bits a pixel of H.264 from which on a source is worth the finest encoding
THRIFT = {"hevc": 1.6, "vp9": 1.5, "av1": 2.0}  # what a bit of these is worth in H.264
COARSEST = 2  # steps of CRF, each a sixth of a doubling of the quantizer
KEYFRAME_SECONDS = 2
ENCODE_THREADS = 1
BT709, MPEG_RANGE = 1, 1
LARGEST_RATE_DENOMINATOR = 1001  # a mean rate over a long clip has terms that FFmpeg's 32 bits cannot hold


@dataclass(frozen=True)
class Match:
    """What new H.264 pictures must be like to stand beside a source's own packets; see `smart.py`."""

    set_id: int  # number of their parameter sets, which the source does not use
    profile: str
    reorder: int  # frames that the source decodes ahead
    header: bytes  # `avcC` with the parameter sets of both


@dataclass(frozen=True)
class EncodeOptions:
    """How pictures are encoded: near-transparent, bit-exact, or for sending around."""

    quality: Quality = "high"
    match: Match | None = None
    coarse: int = 0  # steps of CRF that the source itself allows; `encode_chunk` sets them

    def __post_init__(self) -> None:
        if self.quality not in (*CRF, "lossless"):
            raise OptionError(f"expected quality high, lossless or small, got {self.quality!r}")


def encode_chunk(clip: Clip, pictures: Iterable[YuvPicture], options: EncodeOptions, out: Path) -> int:
    """Encode pictures in the given order to one chunk (closed GOP, Matroska); returns how many.

    8 bits become H.264, 10 bits HEVC; size, pixel format and colour tags stay the clip's. Odd sizes are kept by 4:4:4,
    since H.264 cannot say them in 4:2:0. The chunk's time stamps mean nothing: `stitch` sets them.
    Raises OutputError where `out` cannot be written, RenderError where the encoder refuses.
    """
    frames = (picture.frame() for picture in pictures)
    return _encode(frames, *stored_shape(clip), clip.color, for_source(clip, options), out, pixel_shape(clip))


def for_source(clip: Clip, options: EncodeOptions) -> EncodeOptions:
    """The options with `coarse` for a clip: of one that was itself coded with very few bits, a finer encoding would mostly
    keep what its encoder left (1080x1920 at 0.7 Mbit/s: at CRF 17 seven times the bytes, at 19 five times, both above 51 dB)."""
    bits = 8 * clip.path.stat().st_size / max(1, clip.frames * clip.width * clip.height)
    spare = math.log2(FINE_BITS / max(bits * THRIFT.get(clip.codec, 1.0), 1e-6))
    return replace(options, coarse=min(COARSEST, max(0, round(spare))) if options.quality == "high" else 0)


def stored_shape(clip: Clip) -> tuple[tuple[int, int], str, Fraction]:
    """Size, pixel format and mean rate of a clip's stored frames."""
    turned = clip.rotation in (90, 270)
    size = (clip.height, clip.width) if turned else (clip.width, clip.height)
    return size, working_format(clip), clip.average_rate.limit_denominator(LARGEST_RATE_DENOMINATOR)


def open_encoder(clip: Clip, options: EncodeOptions) -> av.VideoCodecContext:
    """The encoder of `encode_chunk` by itself: its parameter sets are known before there are pictures."""
    container = av.open(io.BytesIO(), "w", format="matroska")
    stream = _add_stream(container, *stored_shape(clip), clip.color, for_source(clip, options))
    stream.codec_context.sample_aspect_ratio = pixel_shape(clip)
    stream.codec_context.open()
    return stream.codec_context


def pixel_shape(clip: Clip) -> Fraction:
    """Width of a stored pixel over its height; 1 where the source does not say."""
    with open_input(clip.path) as container:
        return video_stream(container, clip.path).sample_aspect_ratio or Fraction(1)


def encode_new(
    width: int,
    height: int,
    rate: Fraction,
    frames: Iterable[NDArray[np.uint8]],
    sound: SoundPlan | None,
    options: EncodeOptions,
    out: Path,
) -> None:
    """Write a new video from upright RGB frames [H, W, 3] uint8 at a constant `rate`, with sound from sample 0.

    BT.709, limited range. Raises OutputError where `out` cannot be written.
    """
    from deployments.media.stitch import stitch

    if rate <= 0:
        raise OptionError(f"expected a frame rate above 0, got {rate}")
    color = {"primaries": BT709, "trc": BT709, "space": BT709, "range": MPEG_RANGE}
    pix_fmt = "yuv444p" if options.quality == "lossless" else "yuv420p"
    with TemporaryDirectory(prefix="lipsync-") as folder:
        chunk = Path(folder) / "chunk.mkv"
        count = _encode(_from_rgb(frames, pix_fmt), (width, height), pix_fmt, rate, color, options, chunk)
        if count == 0:
            raise RenderError(f"expected at least one frame for {out.name}, got none")
        clip = Clip(
            path=chunk,
            width=width,
            height=height,
            rotation=0,
            codec="h264",
            pix_fmt=pix_fmt,
            bit_depth=8,
            time_base=1 / Fraction(rate),
            pts=np.arange(count),
            keyframes=np.array([0]),
            duration=count / Fraction(rate),
            average_rate=Fraction(rate),
            color=color,
        )
        stitch(clip, [chunk], clip.pts, sound, out)


def _from_rgb(frames: Iterable[NDArray[np.uint8]], pix_fmt: str) -> Iterator[av.VideoFrame]:
    for rgb in frames:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        yield frame.reformat(format=pix_fmt, dst_colorspace=BT709, dst_color_range=MPEG_RANGE)


def _encode(
    frames: Iterable[av.VideoFrame],
    size: tuple[int, int],
    pix_fmt: str,
    rate: Fraction,
    color: dict[str, int],
    options: EncodeOptions,
    out: Path,
    shape: Fraction = Fraction(1),
) -> int:
    """Encode to `out`, which appears under its name only when it is complete."""
    count = 0
    if out.exists() and not out.is_file():
        raise OutputError(f"expected a plain file for the chunk, got {out}, a folder or a device; choose another name")
    part = out.with_name(f".{out.stem}.{os.getpid()}.part{out.suffix}")
    try:
        with av.open(str(part), "w", format="matroska") as container:
            stream = _add_stream(container, size, pix_fmt, rate, color, options)
            stream.codec_context.sample_aspect_ratio = shape
            for frame in frames:
                frame.pts, frame.time_base = count, 1 / Fraction(rate)
                frame.pict_type = PictureType.NONE
                container.mux(stream.encode(frame))
                count += 1
            if count:
                container.mux(stream.encode(None))
        if options.match is not None:
            _set_header(part, options.match)
        os.replace(part, out)
    except OSError as error:
        raise OutputError(f"expected to write {out}, got: {error.strerror}; check the folder and the disk") from error
    except av.error.FFmpegError as error:
        raise RenderError(f"expected the encoder to take {size[0]}x{size[1]} {pix_fmt}, got: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def _set_header(chunk: Path, match: Match) -> None:
    """Give a chunk the header that it shares with copied ones. Raises RenderError where its own sets are not in it."""
    aside = chunk.with_name(f"{chunk.stem}.own{chunk.suffix}")
    os.replace(chunk, aside)
    try:
        with open_input(aside) as source, av.open(str(chunk), "w", format="matroska") as target:
            made = source.streams.video[0]
            own = encoder_header(bytes(made.codec_context.extradata or b""))
            if not all(unit in match.header for unit in own.sps + own.pps):
                raise RenderError("expected the encoder to make the parameter sets it announced, got others; render again")
            stream = target.add_stream_from_template(made)
            stream.codec_context.extradata = match.header
            for packet in source.demux(made):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    finally:
        aside.unlink(missing_ok=True)


def _add_stream(
    container: av.container.OutputContainer,
    size: tuple[int, int],
    pix_fmt: str,
    rate: Fraction,
    color: dict[str, int],
    options: EncodeOptions,
) -> av.VideoStream:
    deep = pix_fmt.endswith("10le")
    odd = size[0] % 2 or size[1] % 2
    stream = container.add_stream("libx265" if deep else "libx264", rate=Fraction(rate))
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt.replace("420p", "444p").replace("422p", "444p") if odd else pix_fmt
    context = stream.codec_context
    context.time_base = 1 / Fraction(rate)
    context.thread_count = ENCODE_THREADS
    context.color_primaries = color.get("primaries", 2)
    context.color_trc = color.get("trc", 2)
    context.colorspace = color.get("space", 2)
    context.color_range = color.get("range", 0)
    period = max(1, round(KEYFRAME_SECONDS * rate))
    context.options = _hevc_options(options, period) if deep else _h264_options(options, period)
    return stream


def _h264_options(options: EncodeOptions, period: int) -> dict[str, str]:
    params = f"keyint={period}:open-gop=0:stitchable=1"
    extra: dict[str, str] = {}
    if options.match is not None:
        order = {0: ":bframes=0", 1: ":b-pyramid=none"}.get(options.match.reorder, "")
        params += f":sps-id={options.match.set_id}{order}"
        extra = {"profile": options.match.profile}
    if options.quality == "lossless":
        return {"preset": "superfast", "qp": "0", "x264-params": params}
    if options.quality == "small":
        return {"preset": "veryfast", "crf": str(CRF["small"]), "x264-params": params, **extra}
    # a third less time for twice the bits, and a fifth less again without looking ahead (frames of one shot are alike)
    # and a sixth less with one quantizer for all blocks: so fine, nothing hides in busy ones, whose worst gain 3 dB
    fixed = ":b-adapt=0:scenecut=0:weightp=0:aq-mode=0"
    return {"preset": "superfast", "crf": str(CRF["high"] + options.coarse), "x264-params": params + fixed, **extra}


def _hevc_options(options: EncodeOptions, period: int) -> dict[str, str]:
    params = f"keyint={period}:open-gop=0:info=0:log-level=error"
    if options.quality == "lossless":
        return {"preset": "ultrafast", "x265-params": params + ":lossless=1"}
    return {"preset": "superfast", "crf": str(CRF_10_BIT[options.quality]), "x265-params": params}
