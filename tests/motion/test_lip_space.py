"""Eight numbers describe a mouth, and say what they are documented to say."""

from __future__ import annotations

import numpy as np

from deployments.motion.lip_space import AXIS_WEIGHTS, LIP_JAW, LipSpace, fit_lip_space


def test_shapes_and_orthonormal_basis() -> None:
    space = LipSpace.load()
    assert space.basis.shape == (8, 57, 3) and len(set(LIP_JAW.tolist())) == 57
    weighted = (space.basis * AXIS_WEIGHTS).reshape(8, -1)
    assert np.allclose(weighted @ weighted.T, np.eye(8), atol=1e-4)


def test_encode_inverts_decode_for_all_478_points() -> None:
    space = LipSpace.load()
    wanted = np.random.default_rng(0).normal(0, 0.1, (5, 8)).astype(np.float32)
    points = np.zeros((5, 478, 3), np.float32)
    points[:, LIP_JAW] = space.mean + space.decode(wanted)
    assert np.allclose(space.encode(points), wanted, atol=1e-5)


def test_first_coefficient_opens_and_second_widens() -> None:
    space = LipSpace.load()
    rows = np.zeros((3, 8), np.float32)
    rows[1, 0] = rows[2, 1] = 0.2
    aperture, width = space.aperture(rows), space.width(rows)
    assert aperture[1] > aperture[0] + 0.05
    assert width[2] > width[0] + 0.02


def test_fit_finds_planted_directions_whatever_the_faces_are() -> None:
    rng = np.random.default_rng(3)
    space = LipSpace.load()
    speakers = []
    for _ in range(3):
        face = rng.normal(0, 0.3, (1, 478, 3)).astype(np.float32)
        moves = rng.normal(0, 1, (200, 8)) * np.geomspace(1, 0.02, 8)
        points = np.repeat(face, 200, 0)
        points[:, LIP_JAW] += space.decode(moves.astype(np.float32))
        speakers.append([points])
    fitted, shares = fit_lip_space(speakers)
    assert shares.sum() > 0.9999
    overlap = (fitted.basis[0] * space.basis[0] * AXIS_WEIGHTS**2).sum()
    assert overlap > 0.98
