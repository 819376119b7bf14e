"""Clips that tell the time: every frame shows its own number, so that no frame can be lost or swapped unseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

BITS, BLOCK = 8, 16
WIDTH, HEIGHT = BITS * BLOCK, 96
SOUND_RATE = 48000

ClockMaker = Callable[..., Path]


def clock_frame(number: int, pix_fmt: str) -> av.VideoFrame:
    """Luma in eight columns: the bits of the frame's number; grey chroma."""
    deep = pix_fmt.endswith("10le")
    frame = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
    for k, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)
        scale = 4 if deep else 1
        rows[:] = 128 * scale
        if k == 0:
            for bit in range(BITS):
                rows[:, bit * BLOCK : (bit + 1) * BLOCK] = (200 if number >> bit & 1 else 50) * scale
    return frame


def read_clock(path: Path) -> tuple[list[int], list[Fraction]]:
    """Numbers shown by the decoded frames, and their times in seconds on the container's clock."""
    numbers, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            luma = frame.reformat(format="gray").to_ndarray()
            columns = luma.reshape(luma.shape[0], BITS, BLOCK)[HEIGHT // 2, :, BLOCK // 2]
            numbers.append(sum(1 << bit for bit in range(BITS) if columns[bit] > 125))
            times.append(frame.pts * frame.time_base)
    return numbers, times


def tone(seconds: float, hertz: float, rate: int = SOUND_RATE) -> NDArray[np.float32]:
    """A sine [N] whose loudness swells, so that no two blocks are equal."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * t))).astype(np.float32)


def decoded_sound(path: Path, track: int = 0) -> NDArray[np.float32]:
    """Decoded samples [N, C] of a track, as the decoder gives them."""
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(container.streams.audio[track])]
    return np.concatenate(blocks, axis=1).T


def sound_packets(path: Path, track: int = 0) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of every packet of a track."""
    with av.open(str(path)) as container:
        found = [p for p in container.demux(container.streams.audio[track]) if p.size]
        return [(p.pts * p.time_base, bytes(p)) for p in found]


@pytest.fixture
def make_clock(tmp_path: Path) -> ClockMaker:
    """Make a clock clip: codec, pixel format, frame rate or own time stamps, rotation, sound tracks."""

    def make(
        name: str = "source.mp4",
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        frames: int = 48,
        rate: Fraction = Fraction(25),
        steps: Sequence[int] = (1,),
        rotation: int = 0,
        mirrored: bool = False,
        tracks: Sequence[str] = (),
        options: dict[str, str] | None = None,
        shape: Fraction = Fraction(1),
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
            stream.codec_context.time_base = 1 / rate
            stream.codec_context.sample_aspect_ratio = shape
            stream.codec_context.options = options or {}
            if rotation or mirrored:
                stream.set_display_rotation(rotation, hflip=mirrored)
            sounds = [container.add_stream(sound, rate=SOUND_RATE, layout="mono") for sound in tracks]
            stamp, packets = 0, []
            for number in range(frames):
                frame = clock_frame(number, pix_fmt)
                frame.pts, frame.time_base = stamp, 1 / rate
                stamp += steps[number % len(steps)]
                packets += stream.encode(frame)
            packets += stream.encode(None)
            for k, sound in enumerate(sounds):
                packets += encoded_tone(sound, float(stamp / rate), 300.0 * (k + 1))
            container.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
        return path

    return make


def encoded_tone(stream: av.AudioStream, seconds: float, hertz: float) -> list[av.Packet]:
    """Packets of a tone in the stream's codec."""
    samples = tone(seconds, hertz)[None]
    name = stream.codec_context.format.name if stream.codec_context.format else "fltp"
    resampler = av.AudioResampler(format=name, layout="mono", rate=SOUND_RATE)
    packets = []
    size = 1152 if stream.codec_context.name == "mp2" else 1024
    for first in range(0, samples.shape[1], size):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, first : first + size]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, first, Fraction(1, SOUND_RATE)
        for part in resampler.resample(frame):
            packets += stream.encode(part)
    return packets + stream.encode(None)
