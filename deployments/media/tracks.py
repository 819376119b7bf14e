"""Sound tracks of a result: the source's packet by packet, those that were encoded before, and whole new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip
from deployments.media.container import open_input
from deployments.media.sound import AAC_BLOCK, decode_track, fit_channels, frames_of, place, resample, track_rate

SOUND_BIT_RATE = 192_000
PLAYABLE = {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus"}  # codecs that players expect in MP4

Packets = Iterator["av.Packet[Any]"]


class Track:
    """A new sound track: what adds its stream and yields its packets, and what the file should say about it."""

    def __init__(self, rate: int, note: str, packets: Callable[[av.container.OutputContainer], Packets]) -> None:
        self.rate, self.note, self.packets = rate, note, packets


def copied_tracks(clip: Clip, container: av.container.OutputContainer, kind: str) -> tuple[list[Packets], list[str]]:
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
            tracks.append(_copied_packets(clip.path, found.index, stream))
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


def _encoded_again(clip: Clip, place_in_clip: int) -> Track:
    """A source track as AAC, at its own time."""
    source = decode_track(clip.path, place_in_clip)
    rate = track_rate(source.rate)
    samples = fit_channels(source.samples, min(source.samples.shape[1], 2))
    return whole_track(samples, rate, source.start, Fraction(len(samples), source.rate), "", source.rate)


def _copied_packets(path: Path, index: int, stream: av.AudioStream) -> Packets:
    """The packets of a file's stream, for another one."""
    with open_input(path) as container:
        for packet in sound_packets(container, index):
            packet.stream = stream
            yield packet


def sound_packets(container: av.container.InputContainer, index: int) -> Packets:
    """The packets of a sound track that hold sound and have a time."""
    for packet in container.demux(audio_track(container, index)):
        if packet.size and not (packet.pts is None and packet.dts is None):
            yield packet


def ready_track(path: Path) -> Track:
    """A track that was encoded before, packet by packet."""
    with open_input(path) as source:
        stream = source.streams.audio[0]
        rate, index, note = stream.codec_context.sample_rate, stream.index, source.metadata.get("comment", "")

    def packets_of(container: av.container.OutputContainer) -> Packets:
        with open_input(path) as source:
            target = container.add_stream_from_template(audio_track(source, index))
            target.bit_rate = SOUND_BIT_RATE  # the header says what was asked for, as without the detour
        return _copied_packets(path, index, target)

    return Track(rate, note, packets_of)


def whole_track(
    samples: NDArray[np.float32], rate: int, start: Fraction, length: Fraction, note: str, source_rate: int | None = None
) -> Track:
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

    return Track(rate, note, packets_of)
