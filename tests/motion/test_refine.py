"""Lip points that were put beside the lips find back to them; what cannot be known stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data

from deployments.contracts import Track
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from deployments.face.track import track_image
from deployments.face.view import LIPS, VIEW_HEIGHT, VIEW_WIDTH, mouth_view
from deployments.motion.refine import LEAST, refine_lips

FRAMES = 40


@pytest.fixture(scope="module")
def talking() -> tuple[Track, np.ndarray]:
    """A photo whose mouth opens and closes as its lower lip is pulled down, and where its points then truly are."""
    photo = np.ascontiguousarray(skimage.data.astronaut()[:320, 60:380])
    still = track_image(photo)
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    middle, points = still.landmarks[0, LIPS, :2].mean(0), []
    pictures = []
    for k in range(FRAMES):
        pull = np.float32(1.5 * (1 - np.cos(k * 0.9)))
        reach = (
            np.exp(-(((x - middle[0]) / 25) ** 2)) * np.clip((y - middle[1]) / 6, 0, 1) * np.clip((middle[1] + 60 - y) / 40, 0, 1)
        )
        pictures.append(cv2.remap(photo, x, y - pull * reach, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
        moved = still.landmarks[0].copy()
        rows, columns = np.rint(moved[:, 1]).astype(int).clip(0, height - 1), np.rint(moved[:, 0]).astype(int).clip(0, width - 1)
        moved[:, 1] += pull * reach[rows, columns]
        points.append(moved)
    track = Track(np.stack(points), np.ones(FRAMES, np.float32), np.ones(FRAMES, bool), np.zeros(FRAMES, np.int32))
    return track, np.stack(pictures)


def gaps(track: Track) -> np.ndarray:
    return track.landmarks[:, LOWER_INNER_LIP, 1] - track.landmarks[:, UPPER_INNER_LIP, 1]


def disturbed(track: Track, seed: int = 0) -> Track:
    """Lower lips put up to two pixels beside where they are, at random."""
    landmarks, rng = track.landmarks.copy(), np.random.default_rng(seed)
    for points, off in zip(landmarks, rng.normal(0, 1.0, FRAMES), strict=True):
        lower = LIPS[points[LIPS, 1] > points[LIPS, 1].mean()]
        points[lower, 1] += off
    return replace(track, landmarks=landmarks.astype(np.float32))


def views_of(track: Track, pictures: np.ndarray) -> np.ndarray:
    return np.stack([mouth_view(picture, points) for picture, points in zip(pictures, track.landmarks, strict=True)])


def test_lips_beside_the_lips_find_back(talking: tuple[Track, np.ndarray]) -> None:
    track, pictures = talking
    wrong = disturbed(track)
    mended = refine_lips(wrong, views_of(wrong, pictures))
    before, after = (np.abs(gaps(t) - gaps(track) - (gaps(t) - gaps(track)).mean()).mean() for t in (wrong, mended))
    assert after < 0.7 * before, (before, after)
    others = np.setdiff1d(np.arange(478), LIPS)
    np.testing.assert_array_equal(mended.landmarks[:, others], wrong.landmarks[:, others])


def test_lips_that_lie_right_stay(talking: tuple[Track, np.ndarray]) -> None:
    track, pictures = talking
    kept = refine_lips(track, views_of(track, pictures))
    assert np.abs(kept.landmarks - track.landmarks).mean() < 0.1
    assert np.abs(kept.landmarks[:, LIPS].mean(0) - track.landmarks[:, LIPS].mean(0)).max() < 0.05, "the mean lips stay"


def backwards(work: Callable[[object], np.ndarray], pieces: list[object]) -> list[np.ndarray]:
    """A pool whose last worker is the first to end."""
    return [work(piece) for piece in reversed(pieces)][::-1]


def test_who_does_the_work_does_not_matter(talking: tuple[Track, np.ndarray]) -> None:
    track, pictures = talking
    views = views_of(track, pictures)
    np.testing.assert_array_equal(refine_lips(track, views).landmarks, refine_lips(track, views, backwards).landmarks)


def test_frames_without_a_face_and_short_clips_stay_as_they_are(talking: tuple[Track, np.ndarray]) -> None:
    track, pictures = talking
    wrong, views = disturbed(track), views_of(track, pictures)
    usable = np.arange(FRAMES) != 7
    views[7] = 255
    poisoned = replace(wrong, usable=usable, landmarks=np.where(usable[:, None, None], wrong.landmarks, np.nan))
    mended = refine_lips(poisoned, views)
    assert np.isnan(mended.landmarks[7]).all() and np.isfinite(mended.landmarks[usable]).all()
    few = replace(wrong, usable=np.arange(FRAMES) < LEAST - 1)
    assert refine_lips(few, views) is few


def test_a_view_is_upright_and_as_large_as_the_eyes_say(talking: tuple[Track, np.ndarray]) -> None:
    track, pictures = talking
    points, picture = track.landmarks[0], pictures[0]
    plain = mouth_view(picture, points)
    assert plain.shape == (VIEW_HEIGHT, VIEW_WIDTH)
    twice = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    scaled = mouth_view(twice, points * 2 + 0.5)
    turned = mouth_view(
        np.ascontiguousarray(np.rot90(picture)), np.stack([points[:, 1], picture.shape[1] - 1 - points[:, 0], points[:, 2]], 1)
    )
    for other in (scaled, turned):
        assert np.abs(plain.astype(float) - other).mean() < 4
