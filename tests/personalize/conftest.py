"""A filmed message at its smallest: a moving picture in closed groups, with a tone and a pause."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.sound import SoundPlan
from serve_app.cache import Cache

RATE = 48000
FRAMES, PER_SECOND = 90, 30

Film = Callable[..., Path]


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Grey stripes that move two pixels a frame: every frame is another, and codecs like it."""
    column = np.arange(width)[None, :] + 2 * number
    row = np.arange(height)[:, None]
    grey = 128 + 80 * np.sin(column / 9) * np.cos((row + number) / 13)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Make a clip whose every frame is another: codec, encoder options, size, container."""

    def make(
        name: str = "film.mp4",
        codec: str = "libx264",
        params: str = "keyint=15:scenecut=0:open-gop=0",
        profile: str = "high",
        size: tuple[int, int] = (128, 96),
        pix_fmt: str = "yuv420p",
        color: int = 2,
        rotation: int = 0,
    ) -> Path:
        path = tmp_path / name
        key = "x265-params" if codec == "libx265" else "x264-params"
        options = {"preset": "veryfast", "crf": "24", key: params} | ({"profile": profile} if codec == "libx264" else {})
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(PER_SECOND))
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            stream.codec_context.options = options
            stream.codec_context.color_primaries = stream.codec_context.color_trc = stream.codec_context.colorspace = color
            if rotation:
                stream.set_display_rotation(rotation)
            packets = []
            for number in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, PER_SECOND)
                packets += stream.encode(frame)
            for packet in [*packets, *stream.encode(None)]:
                container.mux(packet)
        return path

    return make


@pytest.fixture
def room() -> NDArray[np.float32]:
    """Four seconds of 48 kHz: brown noise as the room has it, and two "words" of a tone, 30 dB louder."""
    noise = np.cumsum(np.random.default_rng(3).standard_normal(4 * RATE))
    noise = noise - np.convolve(noise, np.ones(400) / 400, mode="same")
    samples = noise / noise.std() * 10 ** (-60 / 20)
    time = np.arange(RATE) / RATE
    word = 0.1 * np.sin(2 * np.pi * 220 * time) * np.hanning(RATE)
    samples[RATE // 2 : RATE // 2 + RATE] += word
    samples[5 * RATE // 2 : 7 * RATE // 2] += word
    return samples.astype(np.float32)


@pytest.fixture(scope="session")
def message(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three and a half seconds of a real face in closed groups of half a second, with a tone that pauses."""
    from skimage import data

    photo, folder = data.astronaut(), tmp_path_factory.mktemp("message")
    frames = [np.ascontiguousarray(photo[k % 20 : k % 20 + 256, 90 + k : 346 + k]) for k in range(0, 70)]
    time = np.arange(round(2.8 * RATE)) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 200 * time) * (np.sin(2 * np.pi * time / 1.4) > 0)
    noise = 0.001 * np.random.default_rng(0).standard_normal(len(time))
    encode_new(
        256, 256, Fraction(25), frames, SoundPlan((tone + noise).astype(np.float32), RATE), EncodeOptions(), folder / "a.mp4"
    )
    with av.open(str(folder / "a.mp4")) as source, av.open(str(folder / "message.mp4"), "w") as out:
        video, sound = source.streams.video[0], source.streams.audio[0]
        stream, copied = out.add_stream("libx264", rate=25), out.add_stream_from_template(sound)
        stream.width = stream.height = 256
        stream.codec_context.options = {"crf": "18", "x264-params": "keyint=10:scenecut=0:open-gop=0"}
        for frame in source.decode(video):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        source.seek(0)
        for packet in source.demux(sound):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    return folder / "message.mp4"


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache for tests that each make a template of `message`: the person in it is tracked once."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face with a sentence of the voice before, between and after what could be a slot."""
    import soxr
    from skimage import data

    from deployments.audio import tts

    path = tmp_path_factory.mktemp("spoken") / "spoken.mp4"
    said = tts.speak("Good morning everybody. Hello John, your trip to Paris is ready. See you soon.")[0]
    samples = soxr.resample(said, tts.RATE, RATE).astype(np.float32)
    samples += 1e-4 * np.random.default_rng(1).standard_normal(len(samples)).astype(np.float32)
    photo = data.astronaut()
    frames = [np.ascontiguousarray(photo[k % 20 : k % 20 + 256, 120:376]) for k in range(round(len(samples) / RATE * 25))]
    encode_new(256, 256, Fraction(25), frames, SoundPlan(samples, RATE), EncodeOptions(), path)
    return path
