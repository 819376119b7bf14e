"""Sound in and out: reading any file as samples, and the packets of the new track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.contracts import Segment
from deployments.errors import SpeechError
from deployments.media.container import open_input

MOST_SECONDS = 3600
DEAD_CHANNEL = 1e-3  # of the loudest channel's RMS: -60 dB
SMALLEST_GAP = 0.02  # seconds; shorter holes in the time stamps are rounding
AAC_BLOCK = 1024


@dataclass(frozen=True)
class SoundPlan:
    """The new sound. Sample 0 plays with the clip's first frame.

    Without `segments` the samples replace the whole track, cut or padded with silence to the clip's length.
    With segments (clip seconds, from the first frame) only those are taken from `samples`; outside them the source's
    first track goes on as it was, or is silent where `keep_source` is False or the source has no sound.
    """

    samples: NDArray[np.float32]  # [N] or [N, C], -1..1
    rate: int  # Hz
    segments: tuple[Segment, ...] = ()
    keep_source: bool = True
    inserted: tuple[tuple[Fraction, Fraction], ...] = ()  # source seconds behind which the output has this many more

    def __post_init__(self) -> None:
        if self.samples.ndim not in (1, 2) or len(self.samples) == 0:
            raise SpeechError(f"expected samples of shape [N] or [N, C] with N > 0, got {self.samples.shape}")
        if not np.isfinite(self.samples).all():
            raise SpeechError("expected finite samples, got NaN or infinity; check how the speech was made")


@dataclass(frozen=True)
class SourceSound:
    """One decoded track. `start`: seconds on the container's clock of sample 0."""

    samples: NDArray[np.float32]  # [N, C]
    rate: int
    start: Fraction


def read_sound(path: Path, rate: int = 16000, stream: int = 0, origin: Fraction | None = None) -> NDArray[np.float32]:
    """Samples [N] float32 mono of the `stream`-th sound track of any media file, resampled to `rate` Hz.

    `origin` (seconds on the container's clock) becomes sample 0: what lies before is cut, a late start is padded.
    Channels that carry nothing are left out of the mono mix.
    Raises SpeechError for no sound, NaN samples or more than an hour; MediaError for a file that cannot be read.
    """
    source = decode_track(Path(path), stream)
    if not np.isfinite(source.samples).all():
        raise SpeechError(f"expected finite samples, got NaN or infinity in {Path(path).name}; export the sound again")
    mono = resample(downmix(source.samples), source.rate, rate)
    if origin is None:
        return mono
    lead = round((source.start - Fraction(origin)) * rate)
    return np.concatenate([np.zeros(lead, np.float32), mono]) if lead > 0 else np.ascontiguousarray(mono[-lead:])


def decode_track(path: Path, stream: int = 0) -> SourceSound:
    """A whole sound track as float32 [N, C], gaps in its time stamps filled with silence."""
    blocks: list[NDArray[np.float32]] = []
    rate, length, start = 0, 0, Fraction(0)
    with open_input(path) as container:
        tracks = container.streams.audio
        if stream >= len(tracks):
            raise SpeechError(f"expected sound track {stream} in {path.name}, got {len(tracks)} tracks; give a file with sound")
        for frame in container.decode(tracks[stream]):
            block = _float_samples(frame)
            if not blocks:
                rate = frame.sample_rate
                start = (frame.pts or 0) * Fraction(frame.time_base or Fraction(1, rate))
            elif frame.pts is not None:
                gap = round((frame.pts * Fraction(frame.time_base or Fraction(1, rate)) - start) * rate) - length
                if SMALLEST_GAP * rate < gap <= MOST_SECONDS * rate:
                    blocks.append(np.zeros((gap, block.shape[1]), np.float32))
                    length += gap
            if block.shape[1] != (blocks[0].shape[1] if blocks else block.shape[1]):
                block = np.repeat(block.mean(axis=1, keepdims=True), blocks[0].shape[1], axis=1)
            blocks.append(block)
            length += len(block)
            if length > MOST_SECONDS * rate:
                raise SpeechError(f"expected at most {MOST_SECONDS} s of sound, got more in {path.name}; cut it")
    if length == 0:
        raise SpeechError(f"expected sound, got an empty track in {path.name}; give a file with sound")
    return SourceSound(np.concatenate(blocks), rate, start)


def _float_samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    raw = frame.to_ndarray()
    raw = raw.T if frame.format.is_planar else raw.reshape(-1, len(frame.layout.channels))
    if raw.dtype == np.uint8:
        return (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    if raw.dtype.kind == "i":
        return raw.astype(np.float32) / np.float32(2 ** (8 * raw.dtype.itemsize - 1))
    return raw.astype(np.float32)


def downmix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mono [N] from [N, C]: the mean of the channels that carry sound."""
    power = np.einsum("nc,nc->c", samples, samples, dtype=np.float64)  # in pieces: an hour has no copy in float64
    alive = power > DEAD_CHANNEL**2 * power.max() if power.max() > 0 else np.ones(len(power), bool)
    return np.ascontiguousarray((samples if alive.all() else samples[:, alive]).mean(axis=1, dtype=np.float32))


def resample(samples: NDArray[np.float32], source: int, target: int) -> NDArray[np.float32]:
    """[N] or [N, C] from `source` to `target` Hz, high quality; the same array where the rates agree."""
    if source == target:
        return samples
    return soxr.resample(samples, source, target, quality="HQ").astype(np.float32, copy=False)


def track_rate(rate: int) -> int:
    """The rate of a new track: 44.1 kHz for its family, 48 kHz for all others."""
    return 44100 if rate in (11025, 22050, 44100, 88200) else 48000


def fit_channels(samples: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """[N, channels] from [N] or [N, C]: repeated from the mono mix where the counts differ."""
    wide = samples[:, None] if samples.ndim == 1 else samples
    if wide.shape[1] == channels:
        return wide
    return np.repeat(downmix(wide)[:, None], channels, axis=1)


def place(samples: NDArray[np.float32], offset: int, length: int) -> NDArray[np.float32]:
    """[length, C] of silence with `samples` [N, C] laid in from index `offset` (may be negative) and cut at the ends."""
    out = np.zeros((length, samples.shape[1]), np.float32)
    first, last = max(offset, 0), min(offset + len(samples), length)
    if last > first:
        out[first:last] = samples[first - offset : last - offset]
    return out


def frames_of(samples: NDArray[np.float32], rate: int, start: int, layout: str, size: int) -> Iterator[av.AudioFrame]:
    """Planar float frames of `size` samples from [N, C]; `start` is the pts of sample 0 in 1/rate."""
    for first in range(0, len(samples), size):
        block = np.ascontiguousarray(samples[first : first + size].T)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start + first, Fraction(1, rate)
        yield frame


def encode_blocks(samples: NDArray[np.float32], rate: int, layout: str, start: int, bit_rate: int) -> dict[int, av.Packet[Any]]:
    """AAC-LC packets by pts (1/rate) of [N, C] samples whose first one has pts `start`; no container involved."""
    encoder = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "fltp"
    encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, rate)
    packets: dict[int, av.Packet[Any]] = {}
    for frame in [*frames_of(samples, rate, start, layout, AAC_BLOCK), None]:
        for packet in encoder.encode(frame):
            packets[int(packet.pts or 0)] = packet
    return packets


def cross_fade(
    below: NDArray[np.float32], above: NDArray[np.float32], spans: list[tuple[int, int]], fade: int
) -> NDArray[np.float32]:
    """`above` inside the spans (sample indices), `below` outside, both [N, C]; ramps of `fade` samples lie inside."""
    weight = np.zeros(len(below), np.float32)
    for start, stop in spans:
        ramp = min(fade, (stop - start) // 2)
        inside = np.ones(stop - start, np.float32)
        rise = (np.arange(ramp, dtype=np.float32) + 1) / (ramp + 1)
        inside[:ramp], inside[len(inside) - ramp :] = rise, rise[::-1]
        weight[start:stop] = np.maximum(weight[start:stop], inside)
    return below + weight[:, None] * (above - below)
