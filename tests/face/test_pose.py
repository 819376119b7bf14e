"""The head frame takes head motion out and nothing else."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from deployments.face.crop import crop_transforms
from deployments.face.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from deployments.face.pose import STABLE, canonical

RNG = np.random.default_rng(3)


def a_head() -> np.ndarray:
    """A random but head-like cloud [478, 3]: eyes level and 100 px apart, forehead above them."""
    points = RNG.normal(0, 60, (478, 3))
    points[RIGHT_EYE_OUTER], points[LEFT_EYE_OUTER], points[10] = (-50, 0, 0), (50, 0, 0), (0, -90, 0)
    return points


def moved(head: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    turns = Rotation.from_euler("yxz", RNG.normal(0, 0.2, (count, 3)))
    turns = Rotation.concatenate([Rotation.identity(), turns[1:]])
    scale = np.linspace(0.8, 1.3, count)
    points = np.stack(
        [s * turn.apply(head) + (300 + 5 * k, 200, 0) for k, (s, turn) in enumerate(zip(scale, turns, strict=True))]
    )
    return points.astype(np.float32), scale


def test_a_rigid_head_is_still_in_its_own_frame() -> None:
    points, scale = moved(a_head(), 6)
    faces = canonical(points)
    assert np.ptp(faces.points, axis=0).max() < 1e-3
    np.testing.assert_allclose(faces.scale / faces.scale[0], scale / scale[0], rtol=1e-3)
    eyes = faces.points[0, LEFT_EYE_OUTER] - faces.points[0, RIGHT_EYE_OUTER]
    np.testing.assert_allclose(eyes, (1, 0, 0), atol=1e-3)


def test_the_way_back_is_exact() -> None:
    points, _ = moved(a_head(), 4)
    faces = canonical(points)
    for t in range(4):
        np.testing.assert_allclose(faces.to_pixels(faces.points[t], t), points[t], atol=0.02)


def test_a_moving_mouth_stays_in_the_points_and_out_of_the_pose() -> None:
    points, _ = moved(a_head(), 5)
    still = canonical(points.copy())
    mouth = next(k for k in range(468) if k not in STABLE)
    points[2, mouth] += (0, 12, 0)
    talking = canonical(points)
    np.testing.assert_allclose(talking.rotation, still.rotation, atol=1e-5)
    assert np.linalg.norm(talking.points[2, mouth] - still.points[2, mouth]) > 0.05


def test_crops_hold_the_stable_points_still() -> None:
    head = a_head()
    head[:, 2] = 0  # a flat head: a similarity in the picture explains it fully
    shifts = np.arange(4)[:, None] * (7.0, -3.0)
    points = np.stack(
        [np.concatenate([head[:, :2] * (1 + 0.1 * k) + shift, head[:, 2:]], 1) for k, shift in enumerate(shifts)]
    ).astype(np.float32)
    seen = np.stack([t.points(p)[list(STABLE)] for t, p in zip(crop_transforms(points, 128), points, strict=True)])
    assert np.ptp(seen, axis=0).max() < 0.01
