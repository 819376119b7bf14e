"""The engine shows the mouth that was asked for, in the template's own pixels, the same in every cut of the work."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import Motion, Patch, Span
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.engines.video_rewrite.engine import VideoRewrite
from deployments.errors import NoFaceError
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP, Landmarker, roi_of_points
from deployments.face.mesh import JAW
from deployments.media.decode import decode
from deployments.motion.dubbing import track_coefficients
from deployments.retrieval.bank import load_bank
from deployments.retrieval.config import RetrievalConfig
from deployments.retrieval.plan import Plan
from deployments.retrieval.select import select, successors


def own_motion(talking) -> Motion:
    coefficients = track_coefficients(talking.track, load_bank(talking.avatar.path).stable)
    return Motion(coefficients, np.ones(len(coefficients), np.float32))


def patches(talking, motion: Motion, span: Span) -> list[Patch | None]:
    return list(VideoRewrite().render(talking.avatar, motion, decode(talking.clip, span), talking.track, span))


def shown(rgb: np.ndarray, patch: Patch) -> np.ndarray:
    out = rgb.astype(np.float32)
    height, width = patch.alpha.shape
    window = out[patch.y : patch.y + height, patch.x : patch.x + width]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def gap(rgb: np.ndarray, around: np.ndarray) -> float:
    points, _ = Landmarker().points(rgb, roi_of_points(around), passes=2)
    return float(points[LOWER_INNER_LIP, 1] - points[UPPER_INNER_LIP, 1])


def test_its_own_motion_gives_its_own_picture(talking) -> None:
    everything = Span(0, talking.clip.frames)
    for picture, patch in zip(decode(talking.clip, everything), patches(talking, own_motion(talking), everything), strict=True):
        frame = picture.rgb()[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
        error = ((frame.astype(float) - patch.rgb)[patch.alpha > 0.5] ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 30


def test_chunks_agree_to_the_bit(talking) -> None:
    motion = own_motion(talking)
    motion = replace(motion, coefficients=np.roll(motion.coefficients, 5, axis=0))
    whole = patches(talking, motion, Span(0, talking.clip.frames))
    edges = [0, 7, 8, 20, talking.clip.frames]
    pieces = [p for a, b in pairwise(edges) for p in patches(talking, motion, Span(a, b))]
    for one, other in zip(whole, pieces, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.alpha, other.alpha)


def test_the_mouth_opens_and_closes_when_asked(talking) -> None:
    motion = own_motion(talking)
    order = np.argsort(talking.opening)
    most, least = motion.coefficients[order[-3:]].mean(0), motion.coefficients[order[:3]].mean(0)
    span = Span(4, 10)
    gaps = {}
    for name, wanted in (("open", most), ("shut", least)):
        asked = replace(motion, coefficients=np.tile(wanted, (talking.clip.frames, 1)))
        pairs = zip(decode(talking.clip, span), patches(talking, asked, span), strict=True)
        gaps[name] = np.mean(
            [gap(shown(picture.rgb(), patch), talking.track.landmarks[picture.index]) for picture, patch in pairs]
        )
    assert gaps["open"] > gaps["shut"] + 3.0


def test_frames_that_are_not_asked_for_or_have_no_face_get_no_patch(talking) -> None:
    motion = own_motion(talking)
    weight = motion.weight.copy()
    weight[:10] = 0
    usable = talking.track.usable.copy()
    usable[20] = False
    found = list(
        VideoRewrite().render(
            talking.avatar,
            replace(motion, weight=weight),
            decode(talking.clip, Span(5, 25)),
            replace(talking.track, usable=usable),
            Span(5, 25),
        )
    )
    assert [patch is None for patch in found] == [frame < 10 or frame == 20 for frame in range(5, 25)]


def test_the_mask_is_soft_at_its_rim_and_zero_at_its_border(talking) -> None:
    patch = patches(talking, own_motion(talking), Span(3, 4))[0]
    alpha = patch.alpha
    assert alpha.max() == pytest.approx(1.0, abs=1e-3)
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.max() < 0.12
    assert max(np.abs(np.diff(alpha, axis=0)).max(), np.abs(np.diff(alpha, axis=1)).max()) < 0.35


def test_too_few_frames_is_said(talking, tmp_path: Path) -> None:
    usable = np.zeros(talking.clip.frames, bool)
    usable[:3] = True
    with pytest.raises(NoFaceError, match="5 frames"):
        VideoRewrite().fit(talking.clip, replace(talking.track, usable=usable), tmp_path)


def test_the_path_prefers_pictures_that_follow_one_another(talking) -> None:
    bank = load_bank(talking.avatar.path)
    noisy = bank.coefficients + np.random.default_rng(0).normal(0, 0.01, bank.coefficients.shape).astype(np.float32)
    smooth = select(bank, noisy, bank.angles, VideoRewriteConfig(appearance_weight=0.5)).rows[:, 0]
    greedy = select(bank, noisy, bank.angles, VideoRewriteConfig(appearance_weight=0.0)).rows[:, 0]
    follower = successors(bank)  # a picture that follows its own predecessor of the template is no jump

    def jump(rows: np.ndarray) -> float:
        return float(np.linalg.norm(bank.code[follower[rows[:-1]]] - bank.code[rows[1:]], axis=1).sum())

    assert jump(smooth) < jump(greedy)


def test_weights_are_a_share(talking) -> None:
    bank = load_bank(talking.avatar.path)
    choice = select(bank, bank.coefficients, bank.angles, VideoRewriteConfig())
    np.testing.assert_allclose(choice.weights.sum(1), 1, rtol=1e-5)
    assert (choice.weights[:, 0] >= choice.weights[:, 1:].max(1) - 1e-6).all()


def test_another_mouth_takes_the_filmed_chin_along_and_leaves_the_neck(talking) -> None:
    bank = load_bank(talking.avatar.path)
    own = track_coefficients(talking.track, bank.stable)
    wide = own[int(np.argmax(np.abs(own[:, 0] - own[0, 0])))]
    motion = Motion(np.repeat(own[:1] + 1.5 * (wide - own[:1]), len(own), axis=0), np.ones(len(own), np.float32))
    plan = Plan(bank, motion, talking.track, RetrievalConfig())
    row, here = plan.place(next(iter(decode(talking.clip, Span(0, 1)))))
    filmed = plan.faces.to_pixels(plan.own[row], row)[:, :2]
    target = plan.pixels(row)
    chin = JAW[len(JAW) // 2]
    assert np.abs(target[chin] - filmed[chin]).max() > 1, "the chin moves in this test"
    x, y = np.rint(target[chin]).astype(int) - (here.x, here.y)
    assert np.allclose(here.way[y, x], filmed[chin] - target[chin], atol=0.5)
    ring = target[-len(bank.mesh.ring) :] - (here.x, here.y)
    inside = [(int(x), int(y)) for x, y in np.rint(ring) if 0 <= x < here.way.shape[1] and 0 <= y < here.way.shape[0]]
    assert all(np.abs(here.way[y, x]).max() < 1 for x, y in inside), "what lies on the ring stays"
