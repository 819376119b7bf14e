"""A head turns and eyes look where they are told to, nothing else changes, and a face that was learned half goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from deployments.contracts import Avatar, Motion, Patch, Span
from deployments.engines.gaussian_splatting.config import FaceConfig, FitConfig, GaussianConfig
from deployments.engines.gaussian_splatting.engine import GaussianSplatting
from deployments.engines.gaussian_splatting.export import export_avatar
from deployments.engines.gaussian_splatting.face import CHECKPOINT, NAME, fit_face, load_face
from deployments.engines.gaussian_splatting.options import BOUNDS, Turn, read_turn, turn_of
from deployments.engines.gaussian_splatting.turn import rotations, turned
from deployments.errors import Cancelled, OptionError, WeightsError
from deployments.face.landmarks import Landmarker, roi_of_points
from deployments.face.pose import canonical
from deployments.media.decode import decode
from deployments.motion.dubbing import track_coefficients
from deployments.motion.ease import EASE, eased
from deployments.portrait.mesh import LEFT_EYE, RIGHT_EYE
from deployments.records import load_motion, save_motion
from deployments.retrieval.bank import load_bank
from serve_app.request import check_options, read_choices

SMALL = GaussianConfig(
    gaussians=1000,
    fit=FitConfig(steps=10, check_every=10, side=96, refill_at=()),
    face=FaceConfig(gaussians=4000, frames=16, fit=FitConfig(steps=40, check_every=20, side=128, refill_at=(20,))),
)
SPAN = Span(4, 6)


@pytest.fixture(scope="module")
def avatar(talking, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    found = GaussianSplatting(SMALL).fit(talking.clip, talking.track, tmp_path_factory.mktemp("avatar"))
    assert not (found.path / NAME).exists()  # nobody asked for it yet
    GaussianSplatting(SMALL).deepen(found, talking.clip)
    return found


def asking(talking, **options: float) -> Motion:
    coefficients = track_coefficients(talking.track, load_bank(talking.avatar.path).stable)
    return Motion(coefficients, np.ones(len(coefficients), np.float32), extra=read_turn(options).carried())


def patches(talking, avatar: Avatar, motion: Motion, span: Span = SPAN) -> list[Patch | None]:
    return list(GaussianSplatting(SMALL).render(avatar, motion, decode(talking.clip, span), talking.track, span))


def pictures(talking, avatar: Avatar, motion: Motion) -> list[np.ndarray]:
    out = []
    for picture, patch in zip(decode(talking.clip, SPAN), patches(talking, avatar, motion), strict=True):
        rgb = picture.rgb().astype(np.float32)
        height, width = patch.alpha.shape
        window = rgb[patch.y : patch.y + height, patch.x : patch.x + width]
        window += patch.alpha[..., None] * (patch.rgb - window)
        out.append(np.rint(rgb).astype(np.uint8))
    return out


def landmarks(talking, avatar: Avatar, **options: float) -> np.ndarray:
    """Mean landmarks of the shown frames, tracked again."""
    landmarker = Landmarker()
    shown = pictures(talking, avatar, asking(talking, **options))
    around = [roi_of_points(talking.track.landmarks[SPAN.start + k]) for k in range(len(shown))]
    return np.stack([landmarker.points(rgb, roi, passes=2)[0] for rgb, roi in zip(shown, around, strict=True)])


def looks(points: np.ndarray) -> np.ndarray:
    """Where the irises are between the corners of the eyes, in eye widths: right and down."""
    found = []
    for iris, ring in ((468, RIGHT_EYE), (473, LEFT_EYE)):
        corners = points[:, [ring[0], ring[8]], :2]
        width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)
        found.append((points[:, iris, :2] - corners.mean(1)) / width[:, None])
    return np.mean(found, axis=(0, 1))


@pytest.mark.parametrize(("name", "axis", "sign", "size"), [("yaw", 0, -1, 8.0), ("pitch", 1, 1, 6.0), ("roll", 2, 1, 6.0)])
def test_the_head_turns_the_way_it_is_told_to(talking, avatar, name: str, axis: int, sign: int, size: float) -> None:
    held = []
    for amount in (-size, 0.0, size):
        faces = canonical(landmarks(talking, avatar, **{name: amount}), load_bank(avatar.path).stable)
        held.append(sign * float(np.degrees(faces.angles()[:, axis]).mean()))
    steps = np.diff(held)
    assert (steps > 0.5 * size).all() and (steps < 1.6 * size).all()


@pytest.mark.parametrize(("name", "axis", "least"), [("gaze_x", 0, 0.1), ("gaze_y", 1, 0.02)])
def test_the_eyes_look_where_they_are_told_to(talking, avatar, name: str, axis: int, least: float) -> None:
    found = [looks(landmarks(talking, avatar, **{name: size}))[axis] for size in (-0.25, 0.0, 0.25)]
    # The tracker sees half of a sideways look, and less of one up or down, where single steps shake by a third.
    assert found[0] < found[1] < found[2] and found[2] - found[0] > least


def test_another_look_changes_nothing_but_eyes_and_mouth(talking, avatar) -> None:
    plain, looking = (patches(talking, avatar, asking(talking, gaze_x=x)) for x in (0.0, 0.15))
    for index, (was, now) in enumerate(zip(plain, looking, strict=True), SPAN.start):
        size = (talking.clip.height, talking.clip.width)
        canvas = [np.zeros((*size, 4), np.float32) for _ in range(2)]
        for patch, out in zip((was, now), canvas, strict=True):
            part = out[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
            part[...] = np.concatenate([patch.rgb * (patch.alpha > 0)[..., None], patch.alpha[..., None]], -1)
        rows, columns = np.nonzero((canvas[0] != canvas[1]).any(-1))
        points = talking.track.landmarks[index]
        unit = np.linalg.norm(points[33, :2] - points[263, :2])
        eyes = points[[*RIGHT_EYE, *LEFT_EYE], :2]
        spots = np.stack([columns, rows], -1)
        assert len(spots) > 20
        assert np.linalg.norm(spots[:, None] - eyes[None], axis=-1).min(1).max() < 0.12 * unit


def test_what_is_not_asked_for_leaves_every_bit(talking, avatar) -> None:
    motion = asking(talking)
    assert motion.extra == {}
    still = replace(motion, extra={"face": np.zeros(5, np.float32)})
    for one, other in zip(patches(talking, avatar, motion), patches(talking, avatar, still), strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.alpha, other.alpha)


@pytest.mark.parametrize("options", [{"yaw": 6.0, "gaze_x": 0.1}, {"gaze_y": -0.1}], ids=["turned", "looking"])
def test_chunks_of_a_turned_head_agree_to_the_bit(talking, avatar, options: dict[str, float]) -> None:
    motion = asking(talking, **options)
    motion = replace(motion, coefficients=np.roll(motion.coefficients, 5, axis=0))
    weight = motion.weight.copy()
    weight[:5] = 0  # the turn begins inside the span
    motion = replace(motion, weight=weight)
    whole = patches(talking, avatar, motion, Span(3, 9))
    pieces = [p for a, b in pairwise((3, 6, 7, 9)) for p in patches(talking, avatar, motion, Span(a, b))]
    assert [patch is None for patch in whole] == [frame < 5 for frame in range(3, 9)]
    for one, other in zip(whole, pieces, strict=True):
        if one is not None:
            assert (one.x, one.y) == (other.x, other.y)
            np.testing.assert_array_equal(one.rgb, other.rgb)
            np.testing.assert_array_equal(one.alpha, other.alpha)


def test_what_is_exported_is_the_whole_face_where_it_was_learned(avatar, tmp_path: Path) -> None:
    ply, picture, lower = tmp_path / "face.ply", tmp_path / "turn.png", tmp_path / "lower.ply"
    export_avatar(avatar.path, ply, picture)
    folder = Path(shutil.copytree(avatar.path, tmp_path / "avatar"))
    (folder / NAME).unlink()
    export_avatar(folder, lower)
    (count, rows), (few, below) = points_of(ply), points_of(lower)
    assert count == len(load_face(avatar.path).gaussians.colour) and few < count
    assert rows[:, 1].min() < -0.3 and below[:, 1].min() > 0  # eye distances: the forehead is above the eyes
    assert np.abs(rows).max() < 3
    strip = cv2.imread(str(picture))
    side = strip.shape[0]
    painted = (strip < 250).any(2)
    for k in range(7):  # every view holds the face whole: it fills most of the height and does not touch the border
        view = painted[:, k * side : (k + 1) * side]
        used = np.flatnonzero(view.any(1))
        assert 0.7 * side < np.ptp(used) < side - 2 and not view[:, [0, -1]].any()


def points_of(ply: Path) -> tuple[int, np.ndarray]:
    """Number of splats and their places [N, 3]."""
    head, _, body = ply.read_bytes().partition(b"end_header\n")
    width = head.count(b"property float")
    rows = np.frombuffer(body, "<f4").reshape(-1, width)
    return len(rows), rows[:, :3]


def test_a_face_that_was_learned_half_goes_on_and_ends_where_another_does(talking, avatar, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 20:
            raise Cancelled("stop")

    for name in ("avatar.json", "filmed.safetensors"):
        (tmp_path / name).write_bytes((avatar.path / name).read_bytes())
    with pytest.raises(Cancelled):
        fit_face(tmp_path, talking.clip, SMALL, stop)
    assert (tmp_path / CHECKPOINT).exists() and not (tmp_path / NAME).exists()
    steps: list[int] = []
    fit_face(tmp_path, talking.clip, SMALL, lambda stage, done, total: steps.append(done))
    assert steps == [40] and not (tmp_path / CHECKPOINT).exists()
    one, other = load_file(tmp_path / NAME), load_file(avatar.path / NAME)
    for name, value in other.items():
        np.testing.assert_array_equal(one[name], value)
    fit_face(tmp_path, talking.clip, SMALL, stop)  # it is there: nothing is learned, so nothing stops
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-100])
    with pytest.raises(WeightsError):
        load_face(tmp_path)


@pytest.mark.parametrize("name", list(BOUNDS))
def test_a_turn_too_far_is_refused(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low - 0.01, high + 0.01, float("nan")):
        with pytest.raises(OptionError, match=f"expected {name} of {low:g} to {high:g}"):
            read_turn({name: value})
    limits = GaussianSplatting().limits()
    assert name in limits.options and limits.bounds[name] == (low, high)


def test_a_turn_travels_with_the_motion(tmp_path: Path) -> None:
    turn = Turn(yaw=12.0, pitch=-3.3, gaze_x=0.3)
    save_motion(Motion(np.zeros((2, 8), np.float32), np.ones(2, np.float32), extra=turn.carried()), tmp_path / "motion")
    found = turn_of(load_motion(tmp_path / "motion"))
    assert found == turn


def test_a_turn_eases_in_and_out_beside_what_stays_and_does_not_at_the_ends_of_the_clip() -> None:
    weight = np.ones(60, np.float32)
    weight[20:25] = 0
    share = eased(weight, np.ones(60, bool))
    assert share[0] == 1 and share[-1] == 1 and (share[20:25] == 0).all()
    assert 0 < share[19] < share[18] < 1 and share[24 + EASE] == 1


def test_angles_that_are_added_are_the_angles_that_are_found(talking) -> None:
    faces = canonical(talking.track.landmarks, load_bank(talking.avatar.path).stable)
    np.testing.assert_allclose(rotations(faces.angles().astype(np.float64)), faces.rotation, atol=1e-5)
    asked = np.deg2rad([5.0, -4.0, 3.0])
    held = turned(faces, asked, np.ones(len(faces.scale), np.float32))
    np.testing.assert_allclose(held.angles() - faces.angles(), np.tile(asked, (len(faces.scale), 1)), atol=1e-5)


def test_a_pose_and_a_gaze_are_read_from_words_and_refused_before_any_work() -> None:
    assert read_choices("8,0,-2", "0.1,-.2", ["expression=1.2"]) == {
        "yaw": 8.0, "pitch": 0.0, "roll": -2.0, "gaze_x": 0.1, "gaze_y": -0.2, "expression": 1.2,
    }  # fmt: skip
    assert read_choices(None, None, []) == {}
    assert read_choices(None, None, ["steps=3"], "happy:0.5") == {"steps": 3.0, "happy": 0.5}
    for words in (("1,2", None, []), ("a,b,c", None, []), (None, "nan,0", []), (None, None, ["yaw"]), ("1,2,3", None, ["yaw=1"])):
        with pytest.raises(OptionError, match="expected"):
            read_choices(*words)
    check_options("gaussian_splatting", {"yaw": 12.0, "expression": 1.0})
    with pytest.raises(OptionError, match="expected yaw of -12 to 12, got 13"):
        check_options("gaussian_splatting", {"yaw": 13.0})
    with pytest.raises(OptionError, match="expected an option of expression with video_rewrite, got 'yaw'"):
        check_options("video_rewrite", {"yaw": 1.0})
