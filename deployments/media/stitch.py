"""Chunks to one file: packets are only moved, never encoded again; time stamps come from the list of frames."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
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
from deployments.media.lengthen import lengthen
from deployments.media.sound import (
    AAC_BLOCK,
    SoundPlan,
    cross_fade,
    decode_track,
    encode_blocks,
    fit_channels,
    frames_of,
    place,
    resample,
    track_rate,
)

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
SOUND_BIT_RATE = 192_000
FADE_SECONDS = Fraction(1, 100)
PRE_ROLL_BLOCKS = 3
PLAYABLE = {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus"}  # codecs that players expect in MP4
LARGEST_TIMESCALE = 10_000_000

Packets = Iterator["av.Packet[Any]"]


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
    track = plan_track(clip, pts, sound) if ready is None else _ready_track(ready)
    options = muxer_options(clip, kind, track.rate if track else 0)
    taken = inherited(clip, kind, sound_is_new=track is not None)
    with av.open(str(part), "w", format=kind, options=options) as container:
        sources: list[Packets] = [_video_packets(clip, chunks, pts, container)]
        notes = [taken.comment, metadata.get("comment", "")]
        if track is None:
            copied, changed = _copied_tracks(clip, container, kind)
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


def _copied_tracks(clip: Clip, container: av.container.OutputContainer, kind: str) -> tuple[list[Packets], list[str]]:
    """Every sound track of the source, packet by packet; AAC and a note where the container cannot hold the codec."""
    tracks: list[Packets] = []
    notes: list[str] = []
    if not clip.audio:
        return tracks, notes
    with open_input(clip.path) as source:
        for place_in_clip, found in enumerate(clip.audio):
            if not _can_hold(kind, found.codec):
                tracks.append(_encoded_again(clip, place_in_clip).packets(container))
                notes.append(f"sound track {place_in_clip} encoded again as a whole (source {found.codec})")
                continue
            original = audio_track(source, found.index)
            stream = container.add_stream_from_template(original)
            stream.metadata.update(original.metadata)
            tracks.append(_copied_packets(clip.path, found.index, stream, None))
    return tracks, notes


def audio_track(container: av.container.InputContainer, index: int) -> av.AudioStream:
    """The stream of a sound track by its number in the file."""
    stream = container.streams[index]
    assert isinstance(stream, av.AudioStream), f"expected stream {index} to be sound, as it was probed, got {stream.type}"
    return stream


def _can_hold(kind: str, codec: str) -> bool:
    """Whether players expect this sound codec in this container."""
    plain = codec.removesuffix("float").removesuffix("_fixed").removeprefix("lib")
    return kind == "matroska" or plain in PLAYABLE or (kind == "mov" and plain.startswith("pcm_"))


def _encoded_again(clip: Clip, place_in_clip: int) -> _Track:
    """A source track as AAC, at its own time."""
    source = decode_track(clip.path, place_in_clip)
    rate = track_rate(source.rate)
    samples = fit_channels(source.samples, min(source.samples.shape[1], 2))
    return _whole_track(samples, rate, source.start, Fraction(len(samples), source.rate), "", source.rate)


def _copied_packets(path: Path, index: int, stream: av.AudioStream, replaced: dict[int, av.Packet[Any]] | None) -> Packets:
    """The source's packets, except those whose pts (1/rate) is in `replaced`."""
    with open_input(path) as container:
        source = audio_track(container, index)
        rate = source.codec_context.sample_rate
        for packet in container.demux(source):
            if packet.size == 0 or (packet.pts is None and packet.dts is None):
                continue
            chosen = packet
            if replaced is not None and packet.pts is not None:
                stamp = round(packet.pts * packet.time_base * rate)
                chosen = replaced.get(stamp, packet)
            chosen.stream = stream
            yield chosen


class _Track:
    """A new sound track: what adds its stream and yields its packets, and what the file should say about it."""

    def __init__(self, rate: int, note: str, packets: Callable[[av.container.OutputContainer], Packets]) -> None:
        self.rate, self.note, self.packets = rate, note, packets


def typical_step(clip: Clip, pts: NDArray[np.int64]) -> int:
    """Ticks between two frames, mostly."""
    return int(np.median(np.diff(pts))) if len(pts) > 1 else max(1, round(1 / (clip.average_rate * clip.time_base)))


def plan_track(clip: Clip, pts: NDArray[np.int64], plan: SoundPlan | None) -> _Track | None:
    """The new sound track of a plan; None where the source's tracks are to be copied."""
    if plan is None:
        return None
    start = int(pts[0]) * clip.time_base
    step = int(np.median(np.diff(pts))) if len(pts) > 1 else 1 / (clip.average_rate * clip.time_base)
    length = (int(pts[-1] - pts[0]) + step) * clip.time_base
    if not plan.segments:
        rate = track_rate(plan.rate)
        new = resample(plan.samples, plan.rate, rate)
        return _whole_track(fit_channels(new, 1 if new.ndim == 1 else min(new.shape[1], 2)), rate, start, length, "")
    if not clip.audio or not plan.keep_source:
        rate = track_rate(plan.rate)
        new = fit_channels(resample(plan.samples, plan.rate, rate), 1)
        total = round(length * rate)
        mixed = cross_fade(
            np.zeros((total, 1), np.float32), place(new, 0, total), _spans(plan, rate, 0, total), round(FADE_SECONDS * rate)
        )
        return _whole_track(mixed, rate, start, length, "")
    return _mixed_track(clip, plan, start, length)


def _ready_track(path: Path) -> _Track:
    """A track that was encoded before, packet by packet."""
    with open_input(path) as source:
        stream = source.streams.audio[0]
        rate, index, note = stream.codec_context.sample_rate, stream.index, source.metadata.get("comment", "")

    def packets_of(container: av.container.OutputContainer) -> Packets:
        with open_input(path) as source:
            target = container.add_stream_from_template(audio_track(source, index))
            target.bit_rate = SOUND_BIT_RATE  # the header says what was asked for, as without the detour
        return _copied_packets(path, index, target, None)

    return _Track(rate, note, packets_of)


def _spans(plan: SoundPlan, rate: int, offset: int, total: int) -> list[tuple[int, int]]:
    """The segments as sample ranges of a track whose sample `offset` plays with the first frame."""
    spans = [(round(s.start * rate) + offset, round(s.end * rate) + offset) for s in plan.segments]
    return [(max(a, 0), min(b, total)) for a, b in spans if max(a, 0) < min(b, total)]


def _mixed_track(clip: Clip, plan: SoundPlan, start: Fraction, length: Fraction) -> _Track:
    """The source's first track with the new sound inside the segments."""
    source = lengthen(decode_track(clip.path, 0), start, plan.inserted)
    rate, channels = source.rate, source.samples.shape[1]
    lead = round((start - source.start) * rate)
    needed = max([lead + round(s.end * rate) for s in plan.segments] + [len(source.samples)])
    longest = max(len(source.samples), min(needed, lead + round(length * rate)))
    front = max(0, -lead)
    total = longest + front
    below = place(source.samples, front, total)
    new = fit_channels(resample(plan.samples, plan.rate, rate), channels)
    spans = _spans(plan, rate, lead + front, total)
    mixed = cross_fade(below, place(new, lead + front, total), spans, round(FADE_SECONDS * rate))
    origin = source.start - Fraction(front, rate)
    outside = not spans or min(a for a, _ in spans) < front or max(b for _, b in spans) > front + len(source.samples)
    if outside or plan.inserted or not _can_splice(clip, channels, total):
        why = "a slot is longer than it was filmed" if plan.inserted else f"source {clip.audio[0].codec}"
        note = f"sound encoded again as a whole ({why})"
        return _whole_track(
            mixed if channels <= 2 else fit_channels(mixed, 2),
            rate if rate in (44100, 48000) else track_rate(rate),
            origin,
            Fraction(total, rate),
            note,
            rate,
        )
    return _spliced_track(clip, mixed, rate, channels, origin, spans)


def _can_splice(clip: Clip, channels: int, total: int) -> bool:
    """AAC-LC on an even grid of 1024 samples, mono or stereo."""
    track = clip.audio[0]
    if track.codec != "aac" or channels > 2:
        return False
    with open_input(clip.path) as container:
        stream = audio_track(container, track.index)
        config = bytes(stream.codec_context.extradata or b"")
        if not config or config[0] >> 3 != 2 or stream.codec_context.sample_rate != track.rate:
            return False
        stamps = [round(p.pts * p.time_base * track.rate) for p in container.demux(stream) if p.size and p.pts is not None]
    return len(stamps) > 2 and bool(np.all(np.diff(stamps) == AAC_BLOCK))


def _spliced_track(
    clip: Clip, mixed: NDArray[np.float32], rate: int, channels: int, origin: Fraction, spans: list[tuple[int, int]]
) -> _Track:
    """Source packets, with new ones around the segments. The pre-roll repeats the source's own sound, so that the
    overlap of neighbouring AAC blocks cancels as it did before."""
    index = clip.audio[0].index
    with open_input(clip.path) as container:
        stream = audio_track(container, index)
        first = next(round(p.pts * p.time_base * rate) for p in container.demux(stream) if p.size and p.pts is not None)
        bit_rate = max(stream.codec_context.bit_rate or 0, SOUND_BIT_RATE)
    base = round(origin * rate)
    layout = "mono" if channels == 1 else "stereo"
    replaced: dict[int, av.Packet[Any]] = {}
    for start, stop in spans:
        low = first + ((base + start - first) // AAC_BLOCK - 1) * AAC_BLOCK
        high = first + ((base + stop - first) // AAC_BLOCK + 2) * AAC_BLOCK
        feed = low - PRE_ROLL_BLOCKS * AAC_BLOCK
        count = high + PRE_ROLL_BLOCKS * AAC_BLOCK - feed
        packets = encode_blocks(place(mixed, base - feed, count), rate, layout, feed, bit_rate)
        replaced.update({stamp: packet for stamp, packet in packets.items() if low <= stamp < high})

    def packets_of(container: av.container.OutputContainer) -> Packets:
        with open_input(clip.path) as source:
            original = audio_track(source, index)
            target = container.add_stream_from_template(original)
            target.metadata.update(original.metadata)
        return _copied_packets(clip.path, index, target, replaced)

    return _Track(rate, "", packets_of)


def _whole_track(
    samples: NDArray[np.float32], rate: int, start: Fraction, length: Fraction, note: str, source_rate: int | None = None
) -> _Track:
    """AAC of [N, C] samples, cut or padded to `length` seconds, sample 0 at `start` on the clip's clock."""
    fitted = place(resample(samples, source_rate or rate, rate), 0, round(length * rate))

    def packets_of(container: av.container.OutputContainer) -> Packets:
        layout = "mono" if fitted.shape[1] == 1 else "stereo"
        stream = container.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = SOUND_BIT_RATE
        return _encoded(stream, layout)

    def _encoded(stream: av.AudioStream, layout: str) -> Packets:
        for frame in [*frames_of(fitted, rate, round(start * rate), layout, AAC_BLOCK), None]:
            yield from stream.encode(frame)

    return _Track(rate, note, packets_of)
