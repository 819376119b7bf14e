"""Chunks to one file: packets are only moved, never encoded again; time stamps come from the list of frames."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deployments.aside import aside
from deployments.contracts import Clip
from deployments.errors import LipSyncError, OutputError, RenderError
from deployments.media.container import open_input
from deployments.media.inherit import inherited, orient, shifted
from deployments.media.sound import SoundPlan
from deployments.media.splice import plan_track
from deployments.media.tracks import Packets, copied_tracks, ready_track

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
LARGEST_TIMESCALE = 10_000_000


def stitch(
    clip: Clip,
    chunks: Sequence[Path],
    pts: NDArray[np.int64],
    sound: SoundPlan | None,
    out: Path,
    metadata: dict[str, str] | None = None,
    ready: Path | None = None,
) -> None:
    """Join encoded chunks to `out`; frame k is shown at `pts[k]` (units of clip.time_base, strictly increasing).

    `sound` None copies every packet of every sound track of the source; `ready` is the sound as `fragments.prepare_sound`
    encoded it already. Rotation and colour are the clip's.
    Where a track must be encoded as a whole (to splice: source codec not AAC-LC; to copy: a codec that the container
    cannot hold), the file's `comment` says so.
    The file appears under its name only when it is complete.
    Raises OutputError where `out` cannot be written, RenderError where the chunks do not fit together.
    """
    out = Path(out)
    kind = _check_output(clip, out)
    pts = np.asarray(pts, np.int64)
    if len(pts) == 0 or np.any(np.diff(pts) <= 0):
        raise RenderError(f"expected strictly increasing time stamps, got {len(pts)} with steps that do not rise")
    try:
        with aside(out) as part:
            _write(clip, [Path(chunk) for chunk in chunks], pts, sound, part, kind, metadata or {}, ready)
    except LipSyncError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"expected to write {out}, got: {error}; check the folder, the disk and the format") from error


def _check_output(clip: Clip, out: Path) -> str:
    kind = CONTAINERS.get(out.suffix.lower())
    if kind is None:
        raise OutputError(f"expected an output name ending in {', '.join(CONTAINERS)}, got {out.name}; rename it")
    if not out.parent.is_dir():
        raise OutputError(f"expected an existing folder for the output, got {out.parent}; create it first")
    if not os.access(out.parent, os.W_OK) or (out.exists() and not out.is_file()):
        raise OutputError(f"expected a writable place for the output, got {out}; choose another folder")
    if out.exists() and clip.path.exists() and os.path.samefile(out, clip.path):
        raise OutputError(f"expected an output beside the input, got the input itself: {out}; choose another name")
    return kind


def _write(
    clip: Clip,
    chunks: list[Path],
    pts: NDArray[np.int64],
    sound: SoundPlan | None,
    part: Path,
    kind: str,
    metadata: dict[str, str],
    ready: Path | None,
) -> None:
    track = plan_track(clip, pts, sound) if ready is None else ready_track(ready)
    options = muxer_options(clip, kind, track.rate if track else 0)
    taken = inherited(clip, kind, sound_is_new=track is not None)
    with av.open(str(part), "w", format=kind, options=options) as container:
        sources: list[Packets] = [_video_packets(clip, chunks, pts, container)]
        notes = [taken.comment, metadata.get("comment", "")]
        if track is None:
            copied, changed = copied_tracks(clip, container, kind)
            sources += copied
            notes += changed
        else:
            sources.append(track.packets(container))
            notes.append(track.note)
        container.metadata.update({**taken.tags, **metadata})
        if np.array_equal(pts, clip.pts):
            container.set_chapters(taken.chapters)
        if any((*notes, taken.left_out)):
            container.metadata["comment"] = "; ".join(filter(None, (*notes, taken.left_out)))
        for packet in heapq.merge(*sources, key=packet_seconds):
            container.mux(shifted(packet, taken.begin))


def packet_seconds(packet: av.Packet[Any]) -> float:
    """Decoding time, to interleave packets by."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    return float(stamp * packet.time_base) if stamp is not None else 0.0


def muxer_options(clip: Clip, kind: str, rate: int) -> dict[str, str]:
    """Time scales in which every time stamp and edit list is a whole number."""
    if kind == "matroska":
        return {}
    ticks = clip.time_base.denominator
    rates = [rate] if rate else [track.rate for track in clip.audio]
    common = math.lcm(ticks, *[r for r in rates if r])
    movie = common if common <= LARGEST_TIMESCALE else ticks
    return {"movflags": "+faststart", "video_track_timescale": str(ticks), "movie_timescale": str(movie)}


def _video_packets(clip: Clip, chunks: list[Path], pts: NDArray[np.int64], container: av.container.OutputContainer) -> Packets:
    """Packets in decoding order with their final time stamps; the stream is added before the first is asked for."""
    order, delay = _decoding_order(chunks, len(pts))
    with open_input(chunks[0]) as first:
        source = first.streams.video[0]
        stream = container.add_stream_from_template(source)
        extradata = bytes(source.codec_context.extradata or b"")
        if source.codec_context.name == "hevc" and container.format.name in ("mp4", "mov"):
            stream.codec_context.codec_tag = "hvc1"
    stream.time_base = clip.time_base
    orient(stream, clip)
    return _timed_packets(clip, chunks, pts, stream, extradata, order, delay)


def _decoding_order(chunks: list[Path], frames: int) -> tuple[list[NDArray[np.int64]], int]:
    """For each chunk the display rank of every packet, and the largest reordering delay in frames."""
    order: list[NDArray[np.int64]] = []
    for chunk in chunks:
        with open_input(chunk) as container:
            shown = np.array([p.pts for p in container.demux(container.streams.video[0]) if p.size], np.int64)
        order.append(np.argsort(np.argsort(shown, kind="stable"), kind="stable"))
    found = sum(len(rank) for rank in order)
    if found != frames:
        raise RenderError(f"expected {frames} frames in {len(chunks)} chunks, got {found}; render the chunks again")
    return order, max(int((np.arange(len(rank)) - rank).max(initial=0)) for rank in order)


def _timed_packets(
    clip: Clip,
    chunks: list[Path],
    pts: NDArray[np.int64],
    stream: av.VideoStream,
    extradata: bytes,
    order: list[NDArray[np.int64]],
    delay: int,
) -> Packets:
    typical = typical_step(clip, pts)
    lead = pts[0] - typical * np.arange(delay, 0, -1)
    decoding = np.concatenate([lead, pts])
    steps = np.append(np.diff(pts), typical)
    offset = 0
    for chunk, ranks in zip(chunks, order, strict=True):
        with open_input(chunk) as container:
            source = container.streams.video[0]
            if bytes(source.codec_context.extradata or b"") != extradata:
                raise RenderError(f"expected equal encoder settings in all chunks, got others in {chunk.name}; render again")
            packets = (p for p in container.demux(source) if p.size)
            for place_in_chunk, (packet, rank) in enumerate(zip(packets, ranks, strict=True)):
                packet.time_base = clip.time_base
                packet.pts = int(pts[offset + rank])
                packet.dts = int(decoding[offset + place_in_chunk])
                packet.duration = int(steps[offset + rank])
                packet.stream = stream
                yield packet
        offset += len(ranks)


def typical_step(clip: Clip, pts: NDArray[np.int64]) -> int:
    """Ticks between two frames, mostly."""
    return int(np.median(np.diff(pts))) if len(pts) > 1 else max(1, round(1 / (clip.average_rate * clip.time_base)))
