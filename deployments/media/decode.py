"""Frames of a clip, exactly the ones that were asked for, as stored planes that can be seen upright and painted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Patch, Span
from deployments.errors import MediaError
from deployments.media.color import ColorRule, color_rule
from deployments.media.container import open_input
from deployments.media.probe import video_stream

KEPT_FORMATS = {"yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"}
FULL_RANGE_TWINS = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p"}
UNSEEKABLE = {"mpeg", "mpegvideo", "mpegts", "gif"}  # no index: a seek may land inside a group of pictures
REVERSE_BLOCK = 48  # frames held in memory while playing backwards
DECODER_THREADS = 1
BLOCK = 8  # pixels: a whole number of chroma blocks, and what the colour converter takes at once


def working_format(clip: Clip) -> str:
    """Pixel format in which frames of this clip are painted on and encoded."""
    if clip.pix_fmt in KEPT_FORMATS:
        return clip.pix_fmt
    return FULL_RANGE_TWINS.get(clip.pix_fmt, "yuv420p10le" if clip.bit_depth > 8 else "yuv420p")


class YuvPicture:
    """One frame: stored planes, upright view, patches. Implements `contracts.Picture`."""

    def __init__(self, clip: Clip, index: int, frame: av.VideoFrame, rule: ColorRule) -> None:
        self.index = index
        self.pts = int(clip.pts[index])
        self._clip, self._rule = clip, rule
        self._frame = to_working(frame, working_format(clip))
        self._turns = clip.rotation // 90
        self._owned = False
        self._rgb: NDArray[np.uint8] | None = None
        self._seen: tuple[tuple[int, int, int, int], NDArray[np.uint8]] | None = None

    def frame(self) -> av.VideoFrame:
        """The stored frame with all patches in it."""
        return self._frame

    def rgb(self) -> NDArray[np.uint8]:
        """Upright picture [H, W, 3] uint8 RGB; read only."""
        if self._rgb is None:
            self._rgb = np.ascontiguousarray(np.rot90(self._to_rgb(self._frame), self._turns))
        return self._rgb

    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return self._clip.height, self._clip.width

    def window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """The part [height, width, 3] of `rgb()` at (x, y), which must lie inside the picture; read only."""
        box = (x, y, width, height)
        if self._seen is None or self._seen[0] != box:  # a patch is mostly pasted where an engine has just looked
            self._seen = box, self._window(*box)
        return self._seen[1]

    def _window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        if self._rgb is not None or self._frame.width % 2 or self._frame.height % 2:  # odd sizes are converted otherwise
            return self.rgb()[y : y + height, x : x + width]
        left, top = self._stored_corner(x, y, width, height)
        wide, high = (height, width) if self._turns % 2 else (width, height)
        # whole chroma blocks, and one more on each side for converters that smooth chroma
        x0, y0 = max(0, left // BLOCK - 1) * BLOCK, max(0, top // BLOCK - 1) * BLOCK
        x1 = min(self._frame.width, (-(-(left + wide) // BLOCK) + 1) * BLOCK)
        y1 = min(self._frame.height, (-(-(top + high) // BLOCK) + 1) * BLOCK)
        part = self._to_rgb(cut_frame(self._frame, x0, y0, x1, y1, self._rule.depth))
        part = part[top - y0 : top - y0 + high, left - x0 : left - x0 + wide]
        return np.ascontiguousarray(np.rot90(part, self._turns))

    def luma(self, step: int) -> NDArray[np.uint8]:
        """Every `step`-th stored luma sample [h, w], scaled to 8 bits, not turned upright: to compare frames."""
        rows = plane_array(self._frame.planes[0], self._rule.depth)[::step, ::step]
        return (rows >> (self._rule.depth - 8)).astype(np.uint8)

    def _to_rgb(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        view = frame.reformat(
            format="rgb24",
            src_colorspace=self._rule.sws_space(),
            dst_colorspace=self._rule.sws_space(),
            src_color_range=2 if self._rule.full else 1,
            dst_color_range=2,
        )
        return np.asarray(view.to_ndarray(), np.uint8)

    def paste(self, patch: Patch) -> None:
        """Blend a patch: stored + alpha * (its colour - the present colour). Where they agree nothing changes.

        What of the patch lies outside the picture is ignored.
        """
        patch = inside(patch, self._clip.width, self._clip.height)
        height, width = patch.alpha.shape
        if height == 0 or width == 0:
            return
        here = self.window(patch.x, patch.y, width, height)
        colours = cv2.subtract(patch.rgb, here, dtype=cv2.CV_32F)
        difference = cv2.transform(colours, self._rule.difference_matrix()) * patch.alpha[..., None]
        x, y = self._stored_corner(patch.x, patch.y, width, height)
        self._own()
        self._add(np.rot90(difference, -self._turns), x, y)
        self._rgb = self._seen = None

    def _stored_corner(self, x: int, y: int, width: int, height: int) -> tuple[int, int]:
        """Top left corner, in the stored frame, of an upright box."""
        right, below = self._clip.width - x - width, self._clip.height - y - height
        return [(x, y), (below, x), (right, below), (y, right)][self._turns]

    def _own(self) -> None:
        if self._owned:
            return  # the decoder's buffers are its references for later frames: never paint on those
        copy = av.VideoFrame(self._frame.width, self._frame.height, self._frame.format.name)
        for source, target in zip(self._frame.planes, copy.planes, strict=True):
            plane_array(target, self._rule.depth)[:] = plane_array(source, self._rule.depth)
        copy.pts, copy.time_base = self._frame.pts, self._frame.time_base
        self._frame, self._owned = copy, True

    def _add(self, difference: NDArray[np.float32], x: int, y: int) -> None:
        for k, plane in enumerate(self._frame.planes):
            values = plane_array(plane, self._rule.depth)
            step_x = -(-self._frame.width // plane.width) if k else 1
            step_y = -(-self._frame.height // plane.height) if k else 1
            delta, px, py = block_mean(np.ascontiguousarray(difference[..., k]), x, y, step_x, step_y)
            delta = delta[: values.shape[0] - py, : values.shape[1] - px]
            add_rounded(values[py : py + delta.shape[0], px : px + delta.shape[1]], delta, 2**self._rule.depth - 1)


def add_rounded(region: NDArray[Any], delta: NDArray[np.float32], top: int) -> None:
    """Add to samples in place, rounded and kept inside 0..top."""
    if region.dtype == np.uint8:
        region[:] = cv2.add(np.ascontiguousarray(region), np.ascontiguousarray(delta), dtype=cv2.CV_8U)
    else:
        region[:] = np.clip(np.rint(region + delta), 0, top).astype(region.dtype)


def cut_frame(frame: av.VideoFrame, x0: int, y0: int, x1: int, y1: int, depth: int) -> av.VideoFrame:
    """Copy of the window [y0:y1, x0:x1] of a planar frame; x0 and y0 lie on chroma blocks."""
    part = av.VideoFrame(x1 - x0, y1 - y0, frame.format.name)
    for source, target in zip(frame.planes, part.planes, strict=True):
        step_x, step_y = -(-frame.width // source.width), -(-frame.height // source.height)
        rows = plane_array(source, depth)[y0 // step_y :, x0 // step_x :]
        plane_array(target, depth)[:] = rows[: target.height, : target.width]
    return part


def inside(patch: Patch, width: int, height: int) -> Patch:
    """The part of a patch that lies inside a picture of width x height; empty where nothing does."""
    rows, columns = patch.alpha.shape
    left, top = max(0, -patch.x), max(0, -patch.y)
    right, below = max(left, min(columns, width - patch.x)), max(top, min(rows, height - patch.y))
    part = np.s_[top:below, left:right]
    return Patch(patch.x + left, patch.y + top, patch.rgb[part], patch.alpha[part])


def block_mean(values: NDArray[np.float32], x: int, y: int, step_x: int, step_y: int) -> tuple[NDArray[np.float32], int, int]:
    """Mean over chroma blocks of a window at (x, y); returns the window of blocks and its corner."""
    if step_x == 1 and step_y == 1:
        return values, x, y
    height, width = values.shape
    pad = ((y % step_y, -(y + height) % step_y), (x % step_x, -(x + width) % step_x))
    padded = np.pad(values, pad) if any(map(any, pad)) else values
    size = (padded.shape[1] // step_x, padded.shape[0] // step_y)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.float32), x // step_x, y // step_y


def plane_array(plane: av.video.plane.VideoPlane, depth: int) -> NDArray[Any]:
    """A plane's samples [h, w] as a view into the frame's memory."""
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width]


def to_working(frame: av.VideoFrame, wanted: str) -> av.VideoFrame:
    """The frame in the working format; the full-range twins have the same samples under another name."""
    if frame.format.name == wanted:
        return frame
    if FULL_RANGE_TWINS.get(frame.format.name) == wanted:
        return frame.reformat(format=wanted, src_color_range=2, dst_color_range=2)
    return frame.reformat(format=wanted)


def decode(clip: Clip, span: Span, threads: int = DECODER_THREADS) -> Iterator[YuvPicture]:
    """Pictures of the frames `[span.start, span.stop)`, in order. Raises MediaError if one cannot be decoded.

    More threads only help where nothing else works beside this; the pictures are the same.
    """
    if len(span) == 0:
        return
    stop = min(span.stop, clip.frames)
    wanted = span.start
    for index, frame in frames_from(clip, span.start, threads):
        if index < wanted:
            continue
        if index > wanted:
            raise MediaError(f"{clip.path.name}: frame {wanted} of {clip.frames} cannot be decoded; the file is damaged there")
        yield YuvPicture(clip, index, frame, color_rule(clip))
        wanted += 1
        if wanted >= stop:
            return
    raise MediaError(f"{clip.path.name} ends at frame {wanted} of {clip.frames}; it is truncated")


def frames_from(clip: Clip, start: int, threads: int = DECODER_THREADS) -> Iterator[tuple[int, av.VideoFrame]]:
    """(index, frame) from the last entry point at or before `start`, earlier ones if a seek lands too late."""
    keys = clip.keyframes[clip.keyframes <= start]
    entry = int(keys[-1]) if len(keys) else 0
    while True:
        late = False
        first = True
        for index, frame in open_frames(clip, entry, threads):
            if first and index > start:
                late = True
                break
            first = False
            yield index, frame
        if not late or entry == 0:
            return
        earlier = clip.keyframes[clip.keyframes < entry]
        entry = int(earlier[-1]) if len(earlier) else 0


def open_frames(clip: Clip, entry: int, threads: int = DECODER_THREADS) -> Iterator[tuple[int, av.VideoFrame]]:
    """(index, frame) from the keyframe with index `entry`; from the beginning where the format has no index."""
    with open_input(clip.path) as container:
        stream = video_stream(container, clip.path)
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        if entry > 0 and container.format.name not in UNSEEKABLE:
            container.seek(int(clip.pts[entry]), stream=stream, backward=True)
        for frame in container.decode(stream):
            index = int(np.searchsorted(clip.pts, frame.pts)) if frame.pts is not None else -1
            if 0 <= index < clip.frames and clip.pts[index] == frame.pts:
                yield index, frame


def decode_order(clip: Clip, order: Sequence[int]) -> Iterator[YuvPicture]:
    """Pictures in any order of frame indices: repeated, skipped, backwards. Memory is bounded by 48 frames."""
    for run in runs(order):
        if run[-1] >= run[0]:
            yield from forward(clip, run)
        else:
            for block in range(0, len(run), REVERSE_BLOCK):
                part = run[block : block + REVERSE_BLOCK]
                yield from reversed(list(forward(clip, part[::-1])))


def runs(order: Sequence[int]) -> Iterator[list[int]]:
    """Longest pieces that only go forwards or only go backwards."""
    piece: list[int] = []
    direction = 0
    for index in order:
        step = 0 if not piece else int(np.sign(index - piece[-1]))
        if piece and step and direction and step != direction:
            yield piece
            piece, direction = [], 0
            step = 0
        direction = direction or step
        piece.append(int(index))
    if piece:
        yield piece


def forward(clip: Clip, run: Sequence[int]) -> Iterator[YuvPicture]:
    """Pictures of a run that never goes backwards; a repeated index gives a fresh picture each time."""
    times = {index: run.count(index) for index in set(run)}
    for picture in decode(clip, Span(run[0], run[-1] + 1)):
        for _ in range(times.get(picture.index, 0)):
            yield YuvPicture(clip, picture.index, picture.frame(), color_rule(clip))
