"""The tracker on a picture everybody may use: scikit-image's astronaut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from deployments.contracts import Span
from deployments.errors import NoFaceError, OptionError
from deployments.face.choice import FaceChoice, parse_choice
from deployments.face.detect import FaceBox, FaceDetector, overlap
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.speaking import agreement
from deployments.face.track import (
    LEAST_SHARD,
    SHARD_FRAMES,
    FrameTracker,
    Shard,
    Still,
    join,
    shard_spans,
    stack,
    track_clip,
    track_image,
    track_shard,
)
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.probe import probe


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


def test_finds_the_eyes_and_the_mouth(astronaut: np.ndarray) -> None:
    points = track_image(astronaut).landmarks[0]
    np.testing.assert_allclose(points[RIGHT_EYE_OUTER, :2], (199, 104), atol=6)
    np.testing.assert_allclose(points[LEFT_EYE_OUTER, :2], (252, 108), atol=8)
    assert 135 < points[13, 1] < 165 and 205 < points[13, 0] < 240


def test_follows_a_shift_by_its_size(astronaut: np.ndarray) -> None:
    tracker = FrameTracker(FaceChoice(), passes=2)
    first = tracker.step(Still(astronaut))
    second = tracker.step(Still(np.roll(astronaut, (4, 9), axis=(0, 1))))
    np.testing.assert_allclose((second.landmarks - first.landmarks)[:, :2].mean(0), (9, 4), atol=0.6)


def test_a_cut_starts_a_shot_and_no_face_is_said(astronaut: np.ndarray) -> None:
    tracker = FrameTracker(FaceChoice(), passes=1)
    wall = np.full_like(astronaut, 128)
    track = stack([tracker.step(Still(frame)) for frame in (astronaut, astronaut, wall, wall, astronaut)])
    assert track.usable.tolist() == [True, True, False, False, True]
    assert track.shot.tolist() == [0, 0, 1, 1, 2]


def test_shots_count_on_over_shards(astronaut: np.ndarray) -> None:
    tracker = FrameTracker(FaceChoice(), passes=1)
    rows = [tracker.step(Still(frame)) for frame in (astronaut, np.full_like(astronaut, 200), astronaut)]
    assert join([stack(rows[:2]), stack(rows[2:])]).shot.tolist() == [0, 1, 2]


def test_small_face_in_a_tall_picture(astronaut: np.ndarray) -> None:
    tall = np.full((1280, 720, 3), 90, np.uint8)
    tall[100:356, 200:456] = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    faces = FaceDetector().faces(tall)
    assert faces and abs(faces[0].center[0] - 312) < 30 and abs(faces[0].center[1] - 162) < 35


def test_picture_without_a_face(astronaut: np.ndarray) -> None:
    with pytest.raises(NoFaceError, match="no usable face"):
        track_image(np.full((200, 300, 3), 120, np.uint8))
    with pytest.raises(NoFaceError):
        track_image(np.zeros((8, 8, 3), np.uint8))


def test_choices() -> None:
    left, right = FaceBox((50, 50), 40, 0, 0.9), FaceBox((200, 60), 80, 0, 0.8)
    assert parse_choice("largest", None).rank([left, right]) == [right, left]
    assert parse_choice("0", None).rank([right, left]) == [left]
    assert parse_choice("2", None).rank([left, right]) == []
    assert parse_choice("30,30,40,40", None).rank([right, left]) == [left]
    assert overlap(left, left) == pytest.approx(1.0)
    for wrong in ("biggest", "1,2,3", "1,2,0,5"):
        with pytest.raises(OptionError):
            parse_choice(wrong, None)


def test_the_speaker_is_the_one_who_moves_with_the_sound() -> None:
    t = np.arange(150)
    loud = (np.sin(t / 9) > 0.2).astype(np.float32)
    speaker = np.abs(np.sin(t * 1.3)) * np.roll(loud, 3)
    listener = np.abs(np.sin(t / 5.0)) * 0.5
    assert agreement(speaker.astype(np.float32), loud) > agreement(listener.astype(np.float32), loud) + 0.2
    assert agreement(np.zeros(150, np.float32), loud) == 0.0


def test_the_face_that_was_chosen_is_followed_over_every_piece_of_the_clip(astronaut: np.ndarray, tmp_path: Path) -> None:
    """The other one becomes the larger while both are seen: who is talked about does not change in the middle."""
    count = 2 * LEAST_SHARD
    frames = []
    for share in np.linspace(0, 1, count):
        wall = np.full((280, 440, 3), 110, np.uint8)
        for x, scale in ((10, 0.36 - 0.04 * share), (200, 0.28 + 0.16 * share)):
            small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            wall[20 : 20 + len(small), x : x + small.shape[1]] = small
        frames.append(wall)
    path = tmp_path / "two.mkv"
    encode_new(440, 280, Fraction(25), frames, None, EncodeOptions("small"), path)
    clip = probe(path)
    assert [len(span) for span in shard_spans(clip.frames)] == [LEAST_SHARD, LEAST_SHARD]
    alone = track_shard(Shard(clip, Span(LEAST_SHARD, count), FaceChoice(), 1)).track
    assert alone.landmarks[-1, :, 0].mean() > 200, "the second piece by itself takes the one who is larger by then"
    track = track_clip(clip, passes=1)
    assert track.usable.all() and (track.landmarks[:, :, 0].mean(1) < 200).all()


def test_a_box_says_where_a_face_is_first_seen_not_where_it_stays(astronaut: np.ndarray, tmp_path: Path) -> None:
    frames = []
    for k in range(2 * LEAST_SHARD):
        wall = np.full((200, 480, 3), 110, np.uint8)
        wall[10:190, 3 * k : 3 * k + 180] = cv2.resize(astronaut, (180, 180), interpolation=cv2.INTER_AREA)
        frames.append(wall)
    path = tmp_path / "walks.mkv"
    encode_new(480, 200, Fraction(25), frames, None, EncodeOptions("small"), path)
    track = track_clip(probe(path), "50,20,50,50", passes=1)
    assert track.usable.all() and track.landmarks[-1, :, 0].mean() > 300


def test_pieces_hold_every_frame_once_and_are_never_long() -> None:
    for frames in (1, 49, 50, 99, 101, 250, 750, 801, 19_130):
        spans = shard_spans(frames)
        assert [f for span in spans for f in range(span.start, span.stop)] == list(range(frames))
        assert max(map(len, spans)) <= SHARD_FRAMES and (len(spans) == 1 or min(map(len, spans)) >= LEAST_SHARD)
