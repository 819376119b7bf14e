"""One face through a clip: landmarks per frame, frames without a face marked, cuts found.

A clip is tracked in shards that follow from its length alone, so the result does not depend on how many workers there are.
A shard that does not begin with the face that the one before ended with is tracked again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import MESH_POINTS, Clip, Progress, Span, Track, no_progress
from deployments.errors import NoFaceError
from deployments.face.choice import FaceChoice, parse_choice
from deployments.face.detect import FaceDetector
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, Landmarker, Roi, roi_of_box, roi_of_points
from deployments.face.view import VIEW_HEIGHT, VIEW_WIDTH, mouth_view
from deployments.media.decode import decode

SHARD_FRAMES = 200  # at most: finding the face anew and decoding from the last key frame cost little beside so many
LEAST_SHARD = 50
TEAM = 4  # shards come in so many, so that two or four workers end together
STRIDE = 0.5  # of a face's width: from one frame to the next nobody goes so far
MIN_PRESENCE = 0.5
MIN_EYE_DISTANCE = 16.0  # pixels; below this a mouth is a handful of pixels
MAX_TURN = 0.42  # nose offset from the eye centre, in eye distances: beyond it the face is a profile
THUMB = (32, 18)
THUMB_STEP = 8  # of the samples that a thumbnail is made of
CUT_LEVEL = 24.0  # mean absolute difference of luma thumbnails, 0..255
SKIN = (50, 280, 205, 425, 101, 330, 117, 346, 36, 266, 10, 151, 9, 6, 108, 337)  # cheeks, forehead, bridge of the nose
REACH = 0.5 * 1.05  # half a window's side, with the largest jitter
JITTER_SHARE = 0.05  # of a side: shift and turn of the jittered windows

MapLike = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
Refine = Callable[[Track, NDArray[np.uint8], MapLike], Track]


@dataclass(frozen=True)
class Shard:
    """The piece of work of one tracking worker."""

    clip: Clip
    span: Span
    choice: FaceChoice
    passes: int
    start: NDArray[np.float32] | None = None  # [478, 3] where the face was in the frame before; None: to be found
    views: bool = False  # whether the mouths' pictures are asked for


@dataclass(frozen=True)
class Part:
    """What a shard told."""

    track: Track
    views: NDArray[np.uint8] | None  # [T, VIEW_HEIGHT, VIEW_WIDTH] `mouth_view` of each frame


def track_clip(
    clip: Clip,
    choice: str = "largest",
    passes: int = 2,
    run: MapLike = map,
    progress: Progress = no_progress,
    refine: Refine | None = None,
) -> Track:
    """Track one face through the clip.

    Parameters
    ----------
    choice : "largest", an index from the left ("0"), a box "x,y,w,h" in pixels, or "speaking".
    passes : jittered windows averaged per frame, 1..5.
    run : like the built-in `map`; must keep the order. Shards are independent.
    refine : what lays the lips on the picture (`deployments.motion.refine.refine_lips`); None: as the mesh model has them.

    Raises
    ------
    NoFaceError : no frame holds a usable face, or the chosen one does not exist.
    """
    rule = parse_choice(choice, clip)
    shards = [Shard(clip, span, rule, passes, views=refine is not None) for span in shard_spans(clip.frames)]
    parts: list[Part] = []
    for shard, part in zip(shards, run(track_shard, shards), strict=True):
        strayed = bool(parts) and is_lost(parts[-1].track, part.track)
        parts.append(track_shard(replace(shard, start=parts[-1].track.landmarks[-1])) if strayed else part)
        progress("track", sum(len(p.track.score) for p in parts), clip.frames)
    track = join([part.track for part in parts])
    if not track.usable.any():
        raise NoFaceError(
            f"{clip.path.name}: no usable face in {clip.frames} frames (asked for '{choice}'); "
            f"a face needs an eye distance of {MIN_EYE_DISTANCE:.0f} px and must not be a profile"
        )
    if refine is None:
        return track
    return refine(track, np.concatenate([part.views for part in parts if part.views is not None]), run)


def shard_spans(frames: int) -> list[Span]:
    """Even pieces of at most SHARD_FRAMES, in teams; fewer where they would be shorter than LEAST_SHARD."""
    count = max(1, min(-(-frames // (TEAM * SHARD_FRAMES)) * TEAM, frames // LEAST_SHARD))
    return [Span(frames * k // count, frames * (k + 1) // count) for k in range(count)]


def is_lost(before: Track, after: Track) -> bool:
    """Whether a shard begins with another face than the one before it ended with, or with none, in the same shot."""
    if before.score[-1] <= 0 or after.shot[0] > 0:
        return False
    if after.score[0] <= 0:
        return True
    last, first = before.landmarks[-1, :, :2], after.landmarks[0, :, :2]
    return bool(np.hypot(*(first.mean(0) - last.mean(0))) > STRIDE * np.ptp(last[:, 0]))


def track_shard(shard: Shard) -> Part:
    """Track the frames of one shard; the frame before it is read to find a cut at its start."""
    start = max(0, shard.span.start - 1)
    tracker = FrameTracker(shard.choice, shard.passes, shard.start, shard.views)
    rows = [tracker.step(picture) for picture in decode(shard.clip, Span(start, shard.span.stop))]
    rows = rows[shard.span.start - start :]
    return Part(stack(rows), np.stack([row.view for row in rows]) if shard.views else None)


def track_image(rgb: NDArray[np.uint8], choice: str = "largest") -> Track:
    """Track of a still picture [H, W, 3]: T = 1, five passes. Raises NoFaceError."""
    row = FrameTracker(parse_choice(choice, None), passes=5).step(Still(rgb))
    if not row.usable:
        raise NoFaceError(
            "no usable face in the picture; it needs one face that is whole, roughly frontal, eye distance >= 16 px"
        )
    return stack([row])


class Seen(Protocol):
    """What the tracker asks of a frame; `contracts.Picture` without pasting, and its luma."""

    def rgb(self) -> NDArray[np.uint8]:
        """Upright picture [H, W, 3]."""
        ...

    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A part of `rgb()`."""
        ...

    def luma(self, step: int) -> NDArray[np.uint8]:
        """Every `step`-th sample of the stored luma, 8 bits; only ever compared with that of other frames."""
        ...


@dataclass(frozen=True)
class Still:
    """A picture [H, W, 3] that comes from no clip."""

    pixels: NDArray[np.uint8]

    def rgb(self) -> NDArray[np.uint8]:
        """The picture."""
        return self.pixels

    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A part of it."""
        return np.ascontiguousarray(self.pixels[y : y + height, x : x + width])

    def luma(self, step: int) -> NDArray[np.uint8]:
        """Its green, which is most of the luma."""
        return np.ascontiguousarray(self.pixels[::step, ::step, 1])


@dataclass(frozen=True)
class FrameRow:
    """What one frame told."""

    landmarks: NDArray[np.float32]
    score: float
    usable: bool
    cut: bool
    light: NDArray[np.float32]  # [3]
    view: NDArray[np.uint8]  # [VIEW_HEIGHT, VIEW_WIDTH], black where it was not asked for


NO_LIGHT, NO_VIEW = np.zeros(3, np.float32), np.zeros((VIEW_HEIGHT, VIEW_WIDTH), np.uint8)


@dataclass(frozen=True)
class Found:
    """A face in a frame."""

    points: NDArray[np.float32]
    score: float
    light: NDArray[np.float32]
    view: NDArray[np.uint8]


class FrameTracker:
    """Follows one face from frame to frame; looks for it again when it is lost or the picture is cut."""

    def __init__(self, choice: FaceChoice, passes: int, start: NDArray[np.float32] | None = None, views: bool = False) -> None:
        self._choice, self._passes, self._views = choice, passes, views
        self._detector, self._landmarker = FaceDetector(), Landmarker()
        self._last = start
        self._thumb: NDArray[np.float32] | None = None

    def step(self, picture: Seen) -> FrameRow:
        """Track the next frame."""
        cut = self._is_cut(picture.luma(THUMB_STEP))
        found = None if cut or self._last is None else self._follow(picture)
        if found is None:
            found = self._search(picture.rgb())
        if found is None:
            self._last = None
            return FrameRow(np.zeros((MESH_POINTS, 3), np.float32), 0.0, False, cut, NO_LIGHT, NO_VIEW)
        self._last = found.points
        usable = is_usable(found.points, picture.size())
        return FrameRow(found.points, found.score, usable, cut, found.light, found.view)

    def _is_cut(self, luma: NDArray[np.uint8]) -> bool:
        thumb = cv2.resize(luma, THUMB, interpolation=cv2.INTER_AREA).astype(np.float32)
        last, self._thumb = self._thumb, thumb
        return last is not None and float(np.abs(thumb - last).mean()) > CUT_LEVEL

    def _follow(self, picture: Seen) -> Found | None:
        """Look where the face was; only that window is converted to RGB."""
        assert self._last is not None
        roi = roi_of_points(self._last)
        window = window_of(roi, *picture.size())
        if window is None:
            return None
        x, y = window[:2]
        moved = replace(roi, center=(roi.center[0] - x, roi.center[1] - y))
        part = picture.window(*window)
        points, score = self._landmarker.points(part, moved, self._passes)
        if score < MIN_PRESENCE:
            return None
        found = self._found(part, points, score)
        points[:, :2] += np.array([x, y], np.float32)
        return found

    def _search(self, rgb: NDArray[np.uint8]) -> Found | None:
        for face in self._choice.rank(self._detector.faces(rgb)):
            # the detector's box is coarse: one pass finds the points, the next looks through their own window
            points, score = self._landmarker.points(rgb, roi_of_box(face))
            if score >= MIN_PRESENCE:
                points, score = self._landmarker.points(rgb, roi_of_points(points), self._passes)
            if score >= MIN_PRESENCE:
                return self._found(rgb, points, score)
        return None

    def _found(self, rgb: NDArray[np.uint8], points: NDArray[np.float32], score: float) -> Found:
        return Found(points, score, light_of(rgb, points), mouth_view(rgb, points) if self._views else NO_VIEW)


def light_of(rgb: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median colour [3], 0..255, of a face's skin in a picture."""
    places = np.rint(points[list(SKIN), :2]).astype(int).clip(0, np.array(rgb.shape[1::-1]) - 1)
    return np.median(rgb[places[:, 1], places[:, 0]], axis=0).astype(np.float32)


def window_of(roi: Roi, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Upright box (x, y, width, height) inside the picture that holds the window and its jittered copies."""
    reach = roi.side * (REACH * (abs(np.cos(roi.angle)) + abs(np.sin(roi.angle))) + JITTER_SHARE)
    x0, y0 = max(0, int(roi.center[0] - reach)), max(0, int(roi.center[1] - reach))
    x1, y1 = min(width, int(roi.center[0] + reach) + 2), min(height, int(roi.center[1] + reach) + 2)
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def is_usable(points: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """True for a face that is large enough, not a profile, and whose mouth and chin lie inside the picture."""
    right, left, nose = points[RIGHT_EYE_OUTER], points[LEFT_EYE_OUTER], points[4]
    distance = float(np.hypot(*(left - right)[:2]))
    spread = float(np.linalg.norm(left - right))
    if distance < MIN_EYE_DISTANCE or distance < 0.55 * spread:
        return False
    along = float(((nose - (left + right) / 2)[:2] @ (left - right)[:2]) / distance**2)
    low, high = points[[61, 291, 0, 17, 152], :2].min(0), points[[61, 291, 0, 17, 152], :2].max(0)
    inside = bool(low.min() >= 1 and high[0] < shape[1] - 1 and high[1] < shape[0] - 1)
    return abs(along) < MAX_TURN and inside


def stack(rows: Sequence[FrameRow]) -> Track:
    """A track of rows; shots are numbered from the cuts inside them (a cut on the first row counts)."""
    return Track(
        landmarks=np.stack([row.landmarks for row in rows]),
        score=np.array([row.score for row in rows], np.float32),
        usable=np.array([row.usable for row in rows]),
        shot=np.cumsum([row.cut for row in rows]).astype(np.int32),
        light=np.stack([row.light for row in rows]),
    )


def join(parts: Sequence[Track]) -> Track:
    """Tracks of consecutive shards as one; shot numbers go on."""
    shots, last = [], 0
    for part in parts:
        shots.append(part.shot + last)
        last = int(shots[-1][-1])
    return Track(
        np.concatenate([p.landmarks for p in parts]),
        np.concatenate([p.score for p in parts]),
        np.concatenate([p.usable for p in parts]),
        np.concatenate(shots),
        None if any(p.light is None for p in parts) else np.concatenate([p.light for p in parts if p.light is not None]),
    )
