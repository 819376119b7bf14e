"""Smart rendering: where nothing changes, the source's own packets go on; new ones stand beside them.

Cuts lie where a closed group of pictures begins (an IDR picture). The new pictures bring parameter sets with a number
that the source does not use, and the file's header holds both: nothing has to be put between packets, and no picture
can be decoded by the sets of the other encoder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Span
from deployments.errors import OutputError, RenderError
from deployments.media.avc import (
    IDR,
    PPS,
    SET_IDS,
    SPS,
    Header,
    encoder_header,
    join_headers,
    parse_header,
    pps_id,
    sps_id,
    units_of,
)
from deployments.media.container import open_input
from deployments.media.encode import EncodeOptions, Match, Quality, open_encoder
from deployments.media.probe import video_stream

PROFILES = {66: "baseline", 77: "main", 100: "high"}
CONTAINERS = ("mov", "matroska")
FORMATS = ("yuv420p", "yuvj420p")
MOST_DELAY = 4  # frames that decoding may run ahead; as `fragments.DELAY`


@dataclass(frozen=True)
class Copying:
    """How a clip's packets can be used again."""

    match: Match  # what new pictures must be like
    entries: NDArray[np.int64]  # frames at which a closed group begins, in order
    whole: NDArray[np.bool_]  # [T] frames of groups that can be copied


class CannotCopy(Exception):
    """Why a clip's packets cannot stand beside new ones; one of the words that the result's comment says."""


def copying(clip: Clip, quality: Quality) -> Copying:
    """How packets of a clip can be copied beside new ones. Raises CannotCopy."""
    if clip.codec != "h264" or clip.pix_fmt not in FORMATS or clip.width % 2 or clip.height % 2:
        raise CannotCopy(f"source {clip.codec} {clip.pix_fmt}")
    if quality == "lossless":
        raise CannotCopy("lossless pictures have another profile")
    with open_input(clip.path) as container:
        stream = video_stream(container, clip.path)
        header = parse_header(bytes(stream.codec_context.extradata or b""))
        if header is None or not container.format.name.startswith(CONTAINERS):
            raise CannotCopy(f"source is not stored as in MP4 ({container.format.name})")
        if header.profile not in PROFILES or header.length_bytes != 4:
            raise CannotCopy(f"source profile {header.profile}")
        entries, whole, delay, used = scan(clip, container, stream, header)
    free = [number for number in range(SET_IDS - 1, 0, -1) if number not in used | header.set_ids()]
    if not free or delay > MOST_DELAY:
        raise CannotCopy("source with all parameter sets in use" if not free else f"source reorders {delay} frames")
    match = Match(free[0], PROFILES[header.profile], delay, b"")
    own = encoder_header(bytes(open_encoder(clip, EncodeOptions(quality, match)).extradata or b""))
    return Copying(replace(match, header=join_headers(header, own)), entries, whole)


def scan(
    clip: Clip, container: av.container.InputContainer, stream: av.VideoStream, header: Header
) -> tuple[NDArray[np.int64], NDArray[np.bool_], int, set[int]]:
    """Frames at which closed groups begin, which frames lie in whole groups, the reordering delay, and set numbers that
    packets bring. A group is not whole where an edit list hides one of its pictures: others may refer to it.

    Raises CannotCopy.
    """
    shown: list[int] = []
    groups: dict[int, bool] = {}  # by the time of the first picture: whether all are shown
    used: set[int] = set()
    current: int | None = None
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.pts is None:
            raise CannotCopy("source without time stamps")
        if packet.is_keyframe:
            kinds, found = read_units(bytes(packet), header)
            used |= found
            if IDR in kinds:
                current = None if packet.is_discard else packet.pts
        if current is not None:
            groups[current] = groups.get(current, True) and not packet.is_discard
        if not packet.is_discard:
            shown.append(packet.pts)
    if len(shown) != clip.frames or len(set(shown)) != clip.frames:
        raise CannotCopy("source with other than one packet per frame")
    ranks = np.searchsorted(clip.pts, shown)
    delay = int((np.arange(len(ranks)) - ranks).max(initial=0))
    entries = np.searchsorted(clip.pts, list(groups))
    return entries, whole_frames(clip.frames, entries.tolist(), list(groups.values())), delay, used


def read_units(packet: bytes, header: Header) -> tuple[set[int], set[int]]:
    """Kinds of the units of a packet, and the numbers of the parameter sets among them."""
    units = list(units_of(packet, header.length_bytes))
    used = {sps_id(unit) for unit in units if unit[0] & 31 == SPS} | {pps_id(unit) for unit in units if unit[0] & 31 == PPS}
    return {unit[0] & 31 for unit in units if unit}, used


def whole_frames(frames: int, entries: list[int], whole: list[bool]) -> NDArray[np.bool_]:
    """Mask [T] of the frames in whole groups; none begins among what an edit list shows of a single group."""
    mask = np.zeros(frames, np.bool_)
    for start, stop, kept in zip(entries, [*entries, frames][1:], whole, strict=True):
        mask[start:stop] = kept
    return mask


def copy_chunk(clip: Clip, span: Span, match: Match, out: Path) -> int:
    """The packets of whole closed groups as a chunk; returns how many frames.

    Raises RenderError where the span cuts a group, OutputError where `out` cannot be written.
    """
    part = out.with_name(f".{out.stem}.{os.getpid()}.part{out.suffix}")
    try:
        with open_input(clip.path) as source, av.open(str(part), "w", format="matroska") as target:
            stream = video_stream(source, clip.path)
            new = target.add_stream_from_template(stream)
            new.codec_context.extradata = match.header
            packets = group_packets(clip, source, stream, span)
            shown = np.array([packet.pts for packet in packets], np.int64)
            ranks = np.argsort(np.argsort(shown, kind="stable"), kind="stable")
            for place, (packet, rank) in enumerate(zip(packets, ranks, strict=True)):
                packet.stream, packet.time_base = new, 1 / clip.average_rate.limit_denominator(1001)
                packet.pts, packet.dts, packet.duration = int(rank) + match.reorder, place, 1
                target.mux(packet)
        if len(packets) != len(span):
            raise RenderError(f"expected {len(span)} frames from {span.start} on in whole groups, got {len(packets)}")
        os.replace(part, out)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"expected to write {out}, got: {error}; check the folder and the disk") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return len(packets)


def group_packets(clip: Clip, container: av.container.InputContainer, stream: av.VideoStream, span: Span) -> list[av.Packet[Any]]:
    """Packets from the group that begins with the span to the one that begins after it, in decoding order."""
    first = int(clip.pts[span.start])
    last = int(clip.pts[span.stop]) if span.stop < clip.frames else None
    if span.start > 0:
        container.seek(first, stream=stream, backward=True)
    packets: list[av.Packet[Any]] = []
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard or (not packets and packet.pts != first):
            continue
        if packet.pts == last:
            break
        packets.append(packet)
    return packets
