"""Pieces of a fragmented MP4, made chunk by chunk in any order: what a viewer plays while later chunks still render.

ISO/IEC 14496-12: `moof` boxes carry a sequence number (mfhd) and, per track, the time of their first sample (tfdt).
The muxer is run once per chunk and knows neither, so both are set here. Piece 0 begins with the header (ftyp, moov).
"""

from __future__ import annotations

import heapq
import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deployments.aside import aside
from deployments.contracts import Clip, Span
from deployments.errors import OutputError, RenderError
from deployments.media.container import open_input
from deployments.media.sound import SoundPlan
from deployments.media.stitch import Packets, muxer_options, packet_seconds, plan_track, typical_step

DELAY = 4  # frames that decoding runs ahead of display: more than our encoders reorder, and the same in every piece
MUXER = {"movflags": "+empty_moov+default_base_moof+frag_keyframe+skip_trailer", "use_editlist": "0"}
HEADER_BOXES = (b"ftyp", b"moov")
CONTAINER_BOXES = (b"moof", b"traf")


def prepare_sound(clip: Clip, pts: NDArray[np.int64], sound: SoundPlan, out: Path) -> Path | None:
    """Encode a job's sound once (MP4, at its own times), for all pieces to take packets from; None without any.

    Raises OutputError where `out` cannot be written.
    """
    if out.is_file():
        return out
    track = plan_track(clip, pts, sound)
    if track is None:
        return None
    try:
        options = muxer_options(clip, "mp4", track.rate)
        with aside(out) as part, av.open(str(part), "w", format="mp4", options=options) as container:
            packets = track.packets(container)
            if track.note:
                container.metadata["comment"] = track.note
            for packet in packets:
                container.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"expected to write {out}, got: {error}; check the folder and the disk") from error
    return out


def make_fragment(
    clip: Clip, chunk: Path, span: Span, pts: NDArray[np.int64], sound: Path | None, out: Path, *, first: bool
) -> None:
    """Write the piece of one chunk; frame k of the output is shown at `pts[k]` (units of clip.time_base).

    Pieces joined in order play from time 0. Raises RenderError where the chunk does not fit, OutputError for the disk.
    """
    buffer = io.BytesIO()
    clock = _Clock(clip, pts, sound)
    with av.open(buffer, "w", format="mp4", options=MUXER | _scales(clip)) as container:
        sources = [_pictures(clip, chunk, span, clock, container)]
        if sound is not None:
            sources.append(_sounds(sound, span, clock, container))
        begins: dict[int, Fraction] = {}
        for packet in heapq.merge(*sources, key=packet_seconds):
            # the muxer gets every track from 0 on: of a later start it would make one long first sample
            begin = begins.setdefault(packet.stream.index, packet.dts * packet.time_base)
            start = int(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            container.mux(packet)
        # the muxer chose the time scales with its header: 1/24000 also where the clip counts in 1001/24000
        starts = {index + 1: round(begin / container.streams[index].time_base) for index, begin in begins.items()}
    data = _numbered(buffer.getvalue(), starts, span.start, keep_header=first)
    try:
        with aside(out) as part:
            part.write_bytes(data)
    except OSError as error:
        raise OutputError(f"expected to write {out}, got: {error}; check the folder and the disk") from error


def _scales(clip: Clip) -> dict[str, str]:
    return {"video_track_timescale": str(clip.time_base.denominator)}


class _Clock:
    """Decoding times of all frames, and the shift that makes the first time stamp of the stream 0."""

    def __init__(self, clip: Clip, pts: NDArray[np.int64], sound: Path | None) -> None:
        step = typical_step(clip, pts)
        self.base = clip.time_base
        self.decoding = np.concatenate([pts[0] - step * np.arange(DELAY, 0, -1), pts])[: len(pts)]
        self.steps = np.append(np.diff(pts), step)
        self.pts = pts
        first = int(self.decoding[0]) * self.base
        self.shift = -min(first, _first_time(sound) if sound is not None else first)

    def ticks(self, base: Fraction) -> int:
        """The shift in units of a time base."""
        return round(self.shift / base)


def _first_time(sound: Path) -> Fraction:
    with open_input(sound) as container:
        stream = container.streams.audio[0]
        return next(Fraction(p.pts * p.time_base) for p in container.demux(stream) if p.size and p.pts is not None)


def _pictures(clip: Clip, chunk: Path, span: Span, clock: _Clock, container: av.container.OutputContainer) -> Packets:
    """The chunk's packets with their final times; the stream is added before the first is asked for."""
    with open_input(chunk) as source:
        stream = container.add_stream_from_template(source.streams.video[0])
    stream.time_base = clip.time_base
    if stream.codec_context.name == "hevc":
        stream.codec_context.codec_tag = "hvc1"
    if clip.rotation:
        stream.set_display_rotation(clip.rotation if clip.rotation <= 180 else clip.rotation - 360)
    return _timed(chunk, span, clock, stream)


def _timed(chunk: Path, span: Span, clock: _Clock, stream: av.VideoStream) -> Packets:
    with open_input(chunk) as source:
        packets = [p for p in source.demux(source.streams.video[0]) if p.size]
        shown = np.array([p.pts for p in packets], np.int64)
        ranks = np.argsort(np.argsort(shown, kind="stable"), kind="stable")
        late = int((np.arange(len(ranks)) - ranks).max(initial=0))
        if len(packets) != len(span) or late > DELAY:
            raise RenderError(
                f"expected {len(span)} frames at most {DELAY} out of order in {chunk.name}, got {len(packets)} and {late}"
            )
        shift = clock.ticks(clock.base)
        for place, (packet, rank) in enumerate(zip(packets, ranks, strict=True)):
            packet.time_base = clock.base
            packet.pts = int(clock.pts[span.start + rank]) + shift
            packet.dts = int(clock.decoding[span.start + place]) + shift
            packet.duration = int(clock.steps[span.start + rank])
            packet.stream = stream
            yield packet


def _sounds(sound: Path, span: Span, clock: _Clock, container: av.container.OutputContainer) -> Packets:
    """The packets that begin while the chunk is shown; the first chunk takes the earlier ones, the last the later."""
    with open_input(sound) as source:
        stream = container.add_stream_from_template(source.streams.audio[0])
    return _sounding(sound, span, clock, stream)


def _sounding(sound: Path, span: Span, clock: _Clock, stream: av.AudioStream) -> Packets:
    begin = None if span.start == 0 else int(clock.pts[span.start]) * clock.base
    end = None if span.stop == len(clock.pts) else int(clock.pts[span.stop]) * clock.base
    with open_input(sound) as source:
        for packet in source.demux(source.streams.audio[0]):
            if packet.size == 0 or packet.pts is None:
                continue
            time = packet.pts * packet.time_base
            if (begin is not None and time < begin) or (end is not None and time >= end):
                continue
            packet.pts = packet.dts = packet.pts + clock.ticks(packet.time_base)
            packet.stream = stream
            yield packet


def _numbered(data: bytes, starts: dict[int, int], number: int, keep_header: bool) -> bytes:
    """The file with rising fragment numbers from `number` + 1 on and true times; without its header if not wanted.

    `starts`: decoding time of the first packet of every track (track id = stream index + 1), in the track's time scale.
    """
    out = bytearray()
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind in HEADER_BOXES and not keep_header:
            continue
        box = bytearray(data[begin:end])
        if kind == b"moof":
            number += 1
            _set_times(box, starts, number)
        out += box
    return bytes(out)


def _set_times(moof: bytearray, starts: dict[int, int], number: int) -> None:
    track = 0
    for kind, begin, _ in _walk(moof, 0, len(moof)):
        if kind == b"mfhd":
            struct.pack_into(">I", moof, begin + 12, number)
        elif kind == b"tfhd":
            (track,) = struct.unpack_from(">I", moof, begin + 12)
        elif kind == b"tfdt":
            code = ">Q" if moof[begin + 8] == 1 else ">I"
            (time,) = struct.unpack_from(code, moof, begin + 12)
            struct.pack_into(code, moof, begin + 12, time + starts[track])


def _walk(data: bytes | bytearray, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """All boxes inside a range, those inside container boxes too: kind, first and last byte."""
    for kind, start, stop in _boxes(data, begin, end):
        yield kind, start, stop
        if kind in CONTAINER_BOXES:
            yield from _walk(data, start + 8, stop)


def _boxes(data: bytes | bytearray, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin + 8)
        if size < 8 or begin + size > end:
            raise RenderError(f"expected whole boxes from the muxer, got {size} bytes of {kind!r} at {begin}")
        yield kind, begin, begin + size
        begin += size
