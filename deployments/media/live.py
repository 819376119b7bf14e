"""Frames and sound that are still coming, as a fragmented MP4: every piece can be played as soon as it is there.

H.264 without reordering and AAC. The sound is encoded as it comes, ahead of the frames it belongs to: its encoder holds
up to two blocks back, and a player would have to wait for them otherwise.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deployments.errors import RenderError
from deployments.media.encode import BT709, MPEG_RANGE
from deployments.media.fragments import MUXER, numbered
from deployments.media.sound import AAC_BLOCK, frames_of

SOUND_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
BIT_RATE = 96_000
CRF = "21"
KEYFRAME_SECONDS = 2
MIME = 'video/mp4; codecs="avc1.{profile}, mp4a.40.2"'
VIDEO, SOUND = 1, 2  # track numbers
FRAGMENTS = 16  # more than a piece has: their numbers must rise


class LiveFilm:
    """One film on its way: `hear` sound and `show` frames as they come, at last `finish`; the pieces joined are the file."""

    def __init__(self, width: int, height: int, rate: int, sound_rate: int) -> None:
        self._template = av.open(io.BytesIO(), "w", format="mp4")  # holds the encoders' streams; no packet goes into it
        self._video = _video_stream(self._template, width, height, rate)
        self._sound = self._template.add_stream("aac", rate=sound_rate, layout="mono")
        self._sound.bit_rate = BIT_RATE
        self._sound.codec_context.time_base = Fraction(1, sound_rate)
        self._template.start_encoding()  # opens the encoders, and tells the streams of their parameter sets
        self._rate, self._sound_rate = rate, sound_rate
        self._rest = np.zeros(0, np.float32)  # shorter than a block
        self._heard = self._shown = 0
        self._waiting: deque[av.Packet[Any]] = deque()  # sound that belongs to frames that are not there yet
        self._pieces = 0

    @property
    def mime(self) -> str:
        """What a browser's MediaSource asks for."""
        extra = bytes(self._video.codec_context.extradata or b"")
        place = extra.find(b"\x67") + 1  # the sequence parameter set: its profile, its flags, its level
        return MIME.format(profile=extra[place : place + 3].hex())

    def hear(self, samples: NDArray[np.float32]) -> None:
        """More sound [N] at the film's rate."""
        whole = np.concatenate([self._rest, samples.astype(np.float32)])
        size = len(whole) // AAC_BLOCK * AAC_BLOCK
        self._rest = whole[size:]
        self._encode_sound(whole[:size])

    def show(self, frames: Sequence[NDArray[np.uint8]]) -> bytes:
        """The piece that these frames [H, W, 3] RGB make, with the sound up to their end. Raises RenderError."""
        try:
            packets = [packet for frame in frames for packet in self._video.encode(self._picture(frame))]
        except av.error.FFmpegError as error:
            raise RenderError(f"expected the encoder to take {frames[0].shape}, got: {error}") from error
        return self._piece(packets, Fraction(self._shown, self._rate))

    def finish(self) -> bytes:
        """The last piece: sound that the encoder held back."""
        if len(self._rest):
            self._encode_sound(self._rest)
        self._waiting.extend(self._sound.encode(None))
        return self._piece(list(self._video.encode(None)), None)

    def _encode_sound(self, samples: NDArray[np.float32]) -> None:
        for frame in frames_of(samples[:, None], self._sound_rate, self._heard, "mono", AAC_BLOCK):
            self._waiting.extend(self._sound.encode(frame))
        self._heard += len(samples)

    def _picture(self, rgb: NDArray[np.uint8]) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=MPEG_RANGE)
        frame.pts, frame.time_base = self._shown, Fraction(1, self._rate)
        self._shown += 1
        return frame

    def _piece(self, pictures: list[av.Packet[Any]], end: Fraction | None) -> bytes:
        """A fragment of these packets, and of the sound that begins before `end`."""
        sounds = []
        while self._waiting and (end is None or Fraction(int(self._waiting[0].pts or 0), self._sound_rate) < end):
            sounds.append(self._waiting.popleft())
        if not pictures and not sounds:
            return b""
        return self._muxed(pictures, sounds)

    def _muxed(self, pictures: list[av.Packet[Any]], sounds: list[av.Packet[Any]]) -> bytes:
        buffer, starts = io.BytesIO(), {VIDEO: 0, SOUND: 0}
        with av.open(buffer, "w", format="mp4", options={**MUXER, "video_track_timescale": str(1000 * self._rate)}) as container:
            tracks = [container.add_stream_from_template(stream) for stream in (self._video, self._sound)]
            container.start_encoding()
            for number, (track, packets) in enumerate(zip(tracks, (pictures, sounds), strict=True), start=1):
                lead = AAC_BLOCK if number == SOUND else 0  # what an AAC decoder warms up with lies before time 0
                base, scale = Fraction(packets[0].time_base or 1) if packets else Fraction(1), Fraction(track.time_base or 1)
                begin = int(packets[0].pts or 0) if packets else 0
                starts[number] = round((begin + lead) * base / scale)
                for packet in packets:
                    packet.pts = packet.dts = int(packet.pts or 0) - begin
                    packet.stream = track
                    container.mux(packet)
        edits = None if self._pieces else {VIDEO: 0, SOUND: AAC_BLOCK}
        self._pieces += 1
        return numbered(buffer.getvalue(), starts, FRAGMENTS * self._pieces, edits)


def _video_stream(container: av.container.OutputContainer, width: int, height: int, rate: int) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base, context.thread_count = Fraction(1, rate), 1
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = MPEG_RANGE
    period = KEYFRAME_SECONDS * rate
    context.options = {"preset": "superfast", "tune": "zerolatency", "crf": CRF, "x264-params": f"keyint={period}"}
    return stream
