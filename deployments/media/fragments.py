"""Pieces of a fragmented MP4, made chunk by chunk in any order: what a viewer plays while later chunks still render.

ISO/IEC 14496-12: `moof` boxes carry a sequence number (mfhd) and, per track, the time of their first sample (tfdt).
The muxer is run once per chunk and knows neither, so both are set here. Piece 0 begins with the header (ftyp, moov);
an edit list (elst) in it says where in each track the presentation begins: after the frames' reordering, and after the
samples with which an AAC decoder warms up. It cannot tell a length: nobody knows it yet.
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
from deployments.media.inherit import orient
from deployments.media.sound import SoundPlan
from deployments.media.splice import plan_track
from deployments.media.stitch import muxer_options, packet_seconds, typical_step
from deployments.media.tracks import Packets

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
    clip: Clip,
    chunk: Path,
    span: Span,
    pts: NDArray[np.int64],
    sound: Path | None,
    out: Path,
    *,
    first: bool,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write the piece of one chunk; frame k of the output is shown at `pts[k]` (units of clip.time_base).

    Pieces joined in order play from time 0, with their first frame. `metadata` goes into the first piece's header.
    Raises RenderError where the chunk does not fit, OutputError for the disk.
    """
    buffer = io.BytesIO()
    clock = _Clock(clip, pts, sound)
    with av.open(buffer, "w", format="mp4", options=MUXER | _scales(clip)) as container:
        container.metadata.update(_tags(metadata or {}, sound))
        sources = [_pictures(clip, chunk, span, clock, container)]
        leads = [clock.picture_lead]
        if sound is not None:
            sources.append(_sounds(sound, span, clock, container))
            leads.append(clock.sound_lead)
        begins: dict[int, Fraction] = {}
        for packet in heapq.merge(*sources, key=packet_seconds):
            # the muxer gets every track from 0 on: of a later start it would make one long first sample
            decoded, base = int(packet.dts or 0), Fraction(packet.time_base or 1)
            start = int(begins.setdefault(packet.stream.index, decoded * base) / base)
            packet.pts, packet.dts = int(packet.pts or 0) - start, decoded - start
            container.mux(packet)
        # the muxer chose the time scales with its header: 1/24000 also where the clip counts in 1001/24000
        bases = [Fraction(stream.time_base or 1) for stream in container.streams]
        starts = {index + 1: round(begin / bases[index]) for index, begin in begins.items()}
        edits = {index + 1: round(lead / bases[index]) for index, lead in enumerate(leads)}
    data = numbered(buffer.getvalue(), starts, span.start, edits if first else None)
    try:
        with aside(out) as part:
            part.write_bytes(data)
    except OSError as error:
        raise OutputError(f"expected to write {out}, got: {error}; check the folder and the disk") from error


def _scales(clip: Clip) -> dict[str, str]:
    return {"video_track_timescale": str(clip.time_base.denominator)}


def _tags(metadata: dict[str, str], sound: Path | None) -> dict[str, str]:
    """What the whole file will say of itself, as `stitch` puts it together."""
    note = ""
    if sound is not None:
        with open_input(sound) as source:
            note = source.metadata.get("comment", "")
    comment = "; ".join(filter(None, (metadata.get("comment", ""), note)))
    return {**metadata, "comment": comment} if comment else dict(metadata)


class _Clock:
    """Decoding times of all frames, and how far into each track the first frame is shown.

    Every track begins at 0 and is shown from its lead on; a sound that begins later than the picture begins later than 0.
    """

    def __init__(self, clip: Clip, pts: NDArray[np.int64], sound: Path | None) -> None:
        step = typical_step(clip, pts)
        self.base = clip.time_base
        self.decoding = np.concatenate([pts[0] - step * np.arange(DELAY, 0, -1), pts])[: len(pts)]
        self.steps = np.append(np.diff(pts), step)
        self.pts = pts
        self.begin = int(pts[0]) * self.base  # the presentation's, on the clip's clock
        self.picture_lead = int(pts[0] - self.decoding[0]) * self.base
        self.sound_lead = max(Fraction(0), self.begin - _first_time(sound)) if sound is not None else Fraction(0)

    def shift(self, lead: Fraction, base: Fraction) -> int:
        """From the clip's clock to a track's, in units of a time base."""
        return round((lead - self.begin) / base)


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
    orient(stream, clip)
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
        shift = clock.shift(clock.picture_lead, clock.base)
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
            packet.pts = packet.dts = packet.pts + clock.shift(clock.sound_lead, packet.time_base)
            packet.stream = stream
            yield packet


def numbered(data: bytes, starts: dict[int, int], number: int, edits: dict[int, int] | None) -> bytes:
    """The file with rising fragment numbers from `number` + 1 on and true times.

    `starts`: decoding time of the first packet of every track (track id = stream index + 1), in the track's time scale;
    `edits`: where each track's presentation begins, likewise, or None for a piece without its header.
    """
    out = bytearray()
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind in HEADER_BOXES and edits is None:
            continue
        box = bytearray(data[begin:end])
        if kind == b"moov" and edits is not None:
            box = _with_edits(box, edits)
        if kind == b"moof":
            number += 1
            _set_times(box, starts, number)
        out += box
    return bytes(out)


def _with_edits(moov: bytearray, edits: dict[int, int]) -> bytearray:
    """The header with an edit list in every track that is not shown from its first sample on."""
    out = bytearray()
    for kind, begin, end in _boxes(moov, 8, len(moov)):
        box = moov[begin:end]
        if kind == b"trak" and (edit := edits[_track_id(box)]):
            rest = len(box) - 8
            shown = struct.pack(">I4sIIIiI", 28, b"elst", 0, 1, 0, edit, 1 << 16)  # one edit, up to the end, at speed 1
            edts = struct.pack(">I4s", 8 + len(shown), b"edts") + shown
            box = bytearray(struct.pack(">I4s", 8 + rest + len(edts), b"trak")) + box[8:] + edts
        out += box
    return bytearray(struct.pack(">I4s", 8 + len(out), b"moov")) + out


def _track_id(trak: bytearray) -> int:
    begin = next(start for kind, start, _ in _boxes(trak, 8, len(trak)) if kind == b"tkhd")
    (found,) = struct.unpack_from(">I", trak, begin + (28 if trak[begin + 8] == 1 else 20))
    return int(found)


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
