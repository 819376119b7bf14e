"""The sound track that a plan asks for: new as a whole, or new packets among the source's own."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip
from deployments.media.container import open_input
from deployments.media.lengthen import lengthen
from deployments.media.sound import (
    AAC_BLOCK,
    SoundPlan,
    cross_fade,
    decode_track,
    encode_blocks,
    fit_channels,
    place,
    resample,
    track_rate,
)
from deployments.media.tracks import SOUND_BIT_RATE, Packets, Track, audio_track, sound_packets, whole_track

FADE_SECONDS = Fraction(1, 100)
PRE_ROLL_BLOCKS = 3
STAMP_SECONDS = Fraction(2, 1000)  # Matroska's time stamps are whole milliseconds
LC = 2  # MPEG-4's number of the plain AAC
SYNC, PLAIN_HEADER = 0xFFF, 7  # of ADTS, in which a broadcast wraps each packet


@dataclass(frozen=True)
class Grid:
    """A track of AAC-LC packets, 1024 samples each without a hole. Sample 0 begins with the first packet."""

    rate: int
    first: int  # pts of sample 0, 1/rate
    skipped: int  # samples at the beginning that are not heard
    bit_rate: int
    wrapper: bytes  # ADTS header of the first packet; b"" where the packets have none


def plan_track(clip: Clip, pts: NDArray[np.int64], plan: SoundPlan | None) -> Track | None:
    """The new sound track of a plan; None where the source's tracks are to be copied."""
    if plan is None:
        return None
    start = int(pts[0]) * clip.time_base
    step = int(np.median(np.diff(pts))) if len(pts) > 1 else 1 / (clip.average_rate * clip.time_base)
    length = (int(pts[-1] - pts[0]) + step) * clip.time_base
    if not plan.segments:
        rate = track_rate(plan.rate)
        new = resample(plan.samples, plan.rate, rate)
        return whole_track(fit_channels(new, 1 if new.ndim == 1 else min(new.shape[1], 2)), rate, start, length, "")
    if not clip.audio or not plan.keep_source:
        rate = track_rate(plan.rate)
        new = fit_channels(resample(plan.samples, plan.rate, rate), 1)
        total = round(length * rate)
        mixed = cross_fade(
            np.zeros((total, 1), np.float32), place(new, 0, total), _spans(plan, rate, 0, total), round(FADE_SECONDS * rate)
        )
        return whole_track(mixed, rate, start, length, "")
    return _mixed_track(clip, plan, start, length)


def _spans(plan: SoundPlan, rate: int, offset: int, total: int) -> list[tuple[int, int]]:
    """The segments as sample ranges of a track whose sample `offset` plays with the first frame."""
    spans = [(round(s.start * rate) + offset, round(s.end * rate) + offset) for s in plan.segments]
    return [(max(a, 0), min(b, total)) for a, b in spans if max(a, 0) < min(b, total)]


def _mixed_track(clip: Clip, plan: SoundPlan, start: Fraction, length: Fraction) -> Track:
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
    grid = None if outside or plan.inserted else _grid(clip, channels)
    if grid is not None:
        return _spliced_track(clip, grid, mixed, channels, front, spans)
    wide = f", {channels} channels as stereo" if channels > 2 else ""
    why = "a slot is longer than it was filmed" if plan.inserted else f"source {clip.audio[0].codec}{wide}"
    return whole_track(
        mixed if channels <= 2 else fit_channels(mixed, 2),
        rate if rate in (44100, 48000) else track_rate(rate),
        origin,
        Fraction(total, rate),
        f"sound encoded again as a whole ({why})",
        rate,
    )


def _grid(clip: Clip, channels: int) -> Grid | None:
    """How the source's first track can be spliced; None where it is not AAC-LC without holes, mono or stereo."""
    track = clip.audio[0]
    if track.codec != "aac" or channels > 2:
        return None
    with open_input(clip.path) as container:
        stream = audio_track(container, track.index)
        bit_rate = max(stream.codec_context.bit_rate or 0, SOUND_BIT_RATE)
        config, wrapper = bytes(stream.codec_context.extradata or b""), b""
        begins: list[float] = []
        first = skipped = None
        for number, packet in enumerate(sound_packets(container, track.index)):
            if number == 0 and not config:
                wrapper = _adts_header(bytes(packet))
            time = packet.pts if packet.pts is not None else packet.dts
            assert time is not None  # sound_packets yields no others
            begins.append(float(time * packet.time_base * track.rate) - number * AAC_BLOCK)
            heard = stream.decode(packet) if first is None else []
            if heard and heard[0].pts is not None:  # the time of what is heard first is the one that is rounded least
                skipped = (number + 1) * AAC_BLOCK - heard[0].samples
                first = round(heard[0].pts * Fraction(packet.time_base) * track.rate) - skipped
    plain = config[0] >> 3 == LC if config else bool(wrapper)
    even = len(begins) > 2 and max(begins) - min(begins) <= STAMP_SECONDS * track.rate
    if not plain or not even or first is None or skipped is None:
        return None
    return Grid(track.rate, first, skipped, bit_rate, wrapper)


def _adts_header(packet: bytes) -> bytes:
    """The header that a packet of AAC-LC begins with; b"" for another packet, or one of several blocks."""
    plain = len(packet) > PLAIN_HEADER and (packet[0] << 4 | packet[1] >> 4) == SYNC and packet[1] & 1
    return packet[:PLAIN_HEADER] if plain and packet[2] >> 6 == LC - 1 and not packet[6] & 3 else b""


def _wrapped(packet: av.Packet[Any], header: bytes) -> av.Packet[Any]:
    """The packet behind an ADTS header that tells its length; as it is for no header."""
    if not header:
        return packet
    size = len(header) + packet.size
    length = bytes([header[3] & 0xFC | size >> 11, size >> 3 & 0xFF, (size & 7) << 5 | header[5] & 0x1F])
    return av.Packet(header[:3] + length + header[6:] + bytes(packet))


def _spliced_track(
    clip: Clip, grid: Grid, mixed: NDArray[np.float32], channels: int, before: int, spans: list[tuple[int, int]]
) -> Track:
    """Source packets, with new ones around the segments; `mixed` begins `before` samples earlier than what is heard of
    the source. The pre-roll repeats the source's own sound, so that the overlap of neighbouring AAC blocks cancels as
    it did before."""
    index = clip.audio[0].index
    base = grid.skipped - before
    replaced: dict[int, av.Packet[Any]] = {}  # by the packet's number
    for start, stop in spans:
        low, high = (base + start) // AAC_BLOCK - 1, (base + stop) // AAC_BLOCK + 2
        feed = (low - PRE_ROLL_BLOCKS) * AAC_BLOCK
        count = (high + PRE_ROLL_BLOCKS) * AAC_BLOCK - feed
        layout = "mono" if channels == 1 else "stereo"
        packets = encode_blocks(place(mixed, base - feed, count), grid.rate, layout, feed, grid.bit_rate)
        new = {stamp // AAC_BLOCK: packet for stamp, packet in packets.items()}
        replaced.update({number: _wrapped(packet, grid.wrapper) for number, packet in new.items() if low <= number < high})

    def packets_of(container: av.container.OutputContainer) -> Packets:
        with open_input(clip.path) as source:
            original = audio_track(source, index)
            target = container.add_stream_from_template(original)
            target.metadata.update(original.metadata)
        return _on_grid(clip, grid, target, replaced)

    return Track(grid.rate, "", packets_of)


def _on_grid(clip: Clip, grid: Grid, stream: av.AudioStream, replaced: dict[int, av.Packet[Any]]) -> Packets:
    """The source's packets, except those whose number is in `replaced`, at the times that their samples have."""
    with open_input(clip.path) as container:
        for number, packet in enumerate(sound_packets(container, clip.audio[0].index)):
            chosen = replaced.get(number, packet)
            lasts = round((packet.duration or 0) * Fraction(packet.time_base) * grid.rate)  # the last one may end early
            chosen.time_base = Fraction(1, grid.rate)
            chosen.duration = AAC_BLOCK if abs(lasts - AAC_BLOCK) <= STAMP_SECONDS * grid.rate else lasts
            chosen.pts = chosen.dts = grid.first + number * AAC_BLOCK
            chosen.stream = stream
            yield chosen
