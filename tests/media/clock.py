"""Colour clocks: clips whose every frame shows its own number as the brightness of three fields."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

LEVELS = 6


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """RGB [H, W, 3]: three grey columns say `number` in base 6."""
    out = np.empty((height, width, 3), np.uint8)
    for k in range(3):
        digit = number // LEVELS**k % LEVELS
        out[:, k * width // 3 : (k + 1) * width // 3] = 30 + digit * 38
    return out


def read(rgb: NDArray[np.uint8]) -> int:
    """The number that a picture shows."""
    width = rgb.shape[1]
    middles = [rgb[:, k * width // 3 + width // 12 : (k + 1) * width // 3 - width // 12].mean() for k in range(3)]
    return sum(round((value - 30) / 38) * LEVELS**k for k, value in enumerate(middles))


def tone(seconds: float, rate: int, channels: int, hertz: float = 330.0) -> NDArray[np.float32]:
    """[channels, N] float32: a sine that swells, another pitch on each channel."""
    time = np.arange(round(seconds * rate)) / rate
    rows = [0.4 * np.sin(2 * np.pi * hertz * (k + 1) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * time)) for k in range(channels)]
    return np.array(rows, np.float32)


def make(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (96, 64),
    frames: int = 40,
    rate: Fraction = Fraction(25),
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    sounds: tuple[tuple[str, float], ...] = (),
    color: int | None = None,
) -> Path:
    """Write a clock clip. `times`: pts in milliseconds for variable rate; `rotation`: degrees of the display matrix;
    `sounds`: (codec, seconds) of each track."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000) if times else 1 / rate
        if color is not None:
            stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = color
            stream.codec_context.color_range = 1
        if rotation:
            stream.set_display_rotation(rotation)
        tracks = [
            (container.add_stream(name, rate=48000 if name == "libopus" else 44100, layout="stereo"), seconds)
            for name, seconds in sounds
        ]
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_stored(number, size, rotation), format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=1 if color == 1 else 5, dst_color_range=1)
            frame.pts = times[number] if times else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for track, seconds in tracks:
            _add_sound(container, track, seconds)
    return path


def _stored(number: int, size: tuple[int, int], rotation: int) -> NDArray[np.uint8]:
    """The picture that looks right after the rotation."""
    turns = rotation % 360 // 90
    upright = picture(number, *(size if turns % 2 == 0 else size[::-1]))
    return np.ascontiguousarray(np.rot90(upright, -turns))


def _add_sound(container: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    rate = track.codec_context.sample_rate
    samples = tone(seconds, rate, 2)
    size = track.codec_context.frame_size or 1024
    kind = track.codec_context.format.name
    for first in range(0, samples.shape[1], size):
        block = np.ascontiguousarray(samples[:, first : first + size])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        if kind != "fltp":
            frame = av.AudioResampler(format=kind, layout="stereo", rate=rate).resample(frame)[0]
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
