"""Clips that are hard to use: what every engine refuses, and what it makes of the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deployments.contracts import Avatar, Motion, Patch, Span, Speech, Track
from deployments.engines.registry import get_engine
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.engines.video_rewrite.engine import VideoRewrite
from deployments.errors import LipSyncError, NoFaceError, WeightsError
from deployments.face.landmarks import LIPS_OUTER
from deployments.face.mesh import skin_of
from deployments.face.track import track_clip
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.motion.dubbing import track_coefficients
from deployments.retrieval.bank import load_bank
from deployments.retrieval.plan import Plan
from deployments.retrieval.warp import place, unseen, veiled
from tests.engines.bad_input_kit import in_a_wall, relit, turning, write_clip

ENGINES = ("video_rewrite", "gaussian_splatting", "vasa1", "emo")
FEW = 8  # usable frames: enough for an avatar, too few to learn from
FAR_CHEEK, NEAR_CHEEK = [207, 187], [427, 411]  # mesh points beside the mouth, the picture's left and right
HALF = 10  # frames in each of two lights


def some_frames(talking, count: int) -> list[np.ndarray]:
    """The first frames of the talking clip."""
    return [picture.rgb() for picture in decode(talking.clip, Span(0, count))]


def usable_only(track: Track, count: int) -> Track:
    """A track of which only the first frames are of use."""
    return replace(track, usable=track.usable & (np.arange(len(track.usable)) < count))


def own_motion(track: Track, avatar: Avatar) -> Motion:
    """The lips as they were filmed."""
    coefficients = track_coefficients(track, load_bank(avatar.path).stable)
    return Motion(coefficients, track.usable.astype(np.float32))


@pytest.mark.parametrize("name", ENGINES)
def test_three_usable_frames_are_refused_in_words(talking, tmp_path: Path, name: str) -> None:
    with pytest.raises(NoFaceError, match=r"frames with a usable face, .*3"):
        get_engine(name).fit(talking.clip, usable_only(talking.track, 3), tmp_path / "avatar")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-written"


def cut(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])

    return spoil


def other_mesh(folder: Path) -> None:
    file = folder / "bank.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "reach": tensors["reach"][:-1], "alpha": tensors["alpha"][:-1]}, file)


def other_format(folder: Path) -> None:
    facts = json.loads((folder / "bank.json").read_text())
    (folder / "bank.json").write_text(json.dumps({**facts, "format": 99}))


def without(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "bank.safetensors")
        tensors.pop(name)
        save_file(tensors, folder / "bank.safetensors")

    return spoil


@pytest.fixture(scope="module")
def small_avatars(talking, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Avatar]:
    """Avatars of a few frames, for which nothing is trained."""
    folder = tmp_path_factory.mktemp("small")
    few = usable_only(talking.track, FEW)
    return {name: get_engine(name).fit(talking.clip, few, folder / name) for name in ("video_rewrite", "vasa1", "emo")}


SPOILERS = [
    cut("bank.safetensors"), cut("pictures.u8"), cut("bank.json"), other_mesh, other_format, without("vertices"),
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILERS, ids=["cut", "pictures", "facts", "mesh", "format", "missing"])
def test_a_damaged_bank_is_refused(small_avatars: dict[str, Avatar], tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(small_avatars["video_rewrite"].path, tmp_path / "avatar"))
    load_bank(folder)
    spoil(folder)
    with pytest.raises(WeightsError, match=r"fit the avatar again|expected a safetensors file"):
        load_bank(folder)


@pytest.mark.parametrize(("name", "file"), [(n, f) for n in ("vasa1", "emo") for f in ("avatar.json", "small.u8")])
def test_what_an_engine_keeps_beside_its_bank_is_looked_at_too(
    talking, small_avatars: dict[str, Avatar], tmp_path: Path, name: str, file: str
) -> None:
    folder = Path(shutil.copytree(small_avatars[name].path, tmp_path / "avatar"))
    cut(file)(folder)
    avatar = Avatar(name, folder, f"damaged {file}")
    few = usable_only(talking.track, FEW)
    with pytest.raises(WeightsError, match="fit the avatar again"):
        next(iter(get_engine(name).render(avatar, own_motion(few, avatar), decode(talking.clip, Span(0, 1)), few, Span(0, 1))))


def test_a_head_that_turns_is_left_alone_in_profile_and_taken_up_again(talking, tmp_path: Path) -> None:
    yaw = [0, 8, 16, 70, 80, 70, 16, 8, 0]
    clip = probe(write_clip(turning(some_frames(talking, len(yaw)), yaw), tmp_path / "turning.mp4"))
    track = track_clip(clip, passes=1)
    assert track.usable.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    avatar = VideoRewrite().fit(clip, track, tmp_path / "avatar")
    patches = list(VideoRewrite().render(avatar, own_motion(track, avatar), decode(clip, Span(0, 9)), track, Span(0, 9)))
    assert [patch is not None for patch in patches] == track.usable.tolist()


def test_a_cheek_that_was_seen_from_the_side_is_not_pulled_out_to_its_width(talking, small_avatars: dict[str, Avatar]) -> None:
    bank = load_bank(small_avatars["video_rewrite"].path)
    target = bank.vertices[0]
    nose, rows, weights = float(target[4, 0]), np.array([1, 2], np.int32), np.full(2, 0.5, np.float32)
    skin = skin_of(bank.mesh)
    assert not unseen(bank, target, rows, weights, skin)[FAR_CHEEK].any()
    turned = bank.vertices.copy()
    left = turned[..., 0] < nose
    turned[left, 0] = nose + 0.15 * (turned[left, 0] - nose)  # as a head that turns to its right shows it
    turned[:, 33] = bank.vertices[:, 33]  # the eye that sizes are told by stays
    hidden = unseen(replace(bank, vertices=turned), target, rows, weights, skin)
    assert (hidden[FAR_CHEEK] > 0.9).all() and not hidden[NEAR_CHEEK].any()
    here = place(bank, target, target, (talking.clip.height, talking.clip.width), skin)
    assert here is not None
    veil = veiled(here, hidden, target)
    for point, kept in ((FAR_CHEEK[0], False), (NEAR_CHEEK[0], True)):
        x, y = np.rint(target[point]).astype(int) - (here.x, here.y)
        assert here.alpha[y, x] > 0.2 and (veil.alpha[y, x] > 0.9 * here.alpha[y, x]) == kept


def test_mouths_are_taken_from_the_same_light(talking, tmp_path: Path) -> None:
    frames = some_frames(talking, HALF)
    clip = probe(write_clip(relit([*frames, *frames], HALF, (0.7, 0.55, 0.4)), tmp_path / "lights.mp4"))
    track = track_clip(clip, passes=1)
    assert track.shot.tolist() == [0] * HALF + [1] * HALF
    avatar = VideoRewrite().fit(clip, track, tmp_path / "avatar")
    bank, motion = load_bank(avatar.path), own_motion(track, avatar)
    dark = np.arange(2 * HALF) >= HALF
    # the same mouths were filmed in both lights, so nothing but the light tells them apart
    asked = replace(motion, coefficients=np.roll(motion.coefficients, HALF + 3, axis=0))
    choice = Plan(bank, asked, track, VideoRewriteConfig()).choice
    assert ((bank.frames[choice.rows] >= HALF) == dark[:, None]).mean() > 0.95
    blind = Plan(bank, asked, replace(track, light=None), VideoRewriteConfig()).choice
    assert ((bank.frames[blind.rows] >= HALF) == dark[:, None]).mean() < 0.8


def test_a_cut_leaves_no_trace_in_the_frames_around_it(talking, small_avatars: dict[str, Avatar]) -> None:
    bank, track = load_bank(small_avatars["video_rewrite"].path), usable_only(talking.track, 2 * HALF)
    motion = own_motion(track, small_avatars["video_rewrite"])
    landmarks = track.landmarks.copy()
    landmarks[HALF:, 17:200, 1] += 4.0  # another face after the cut
    shot = (np.arange(len(track.usable)) >= HALF).astype(np.int32)
    cut_here = Plan(bank, motion, replace(track, landmarks=landmarks, shot=shot), VideoRewriteConfig())
    before = Plan(bank, motion, usable_only(track, HALF), VideoRewriteConfig())
    assert np.array_equal(cut_here.target[:HALF], before.target)


def test_a_face_of_sixty_pixels_gets_its_patch_on_its_mouth(talking, tmp_path: Path) -> None:
    walls = in_a_wall(some_frames(talking, FEW), 60 / 140, (480, 272), (301, 77))
    clip = probe(write_clip(walls, tmp_path / "small.mp4"))
    track = track_clip(clip, passes=1)
    avatar = VideoRewrite().fit(clip, track, tmp_path / "avatar")
    patches = list(VideoRewrite().render(avatar, own_motion(track, avatar), decode(clip, Span(0, FEW)), track, Span(0, FEW)))
    for patch, points in zip(patches, track.landmarks, strict=True):
        assert patch is not None
        mouth = points[list(LIPS_OUTER), :2].mean(0)
        assert inside(patch, mouth) and patch.alpha.shape[0] < 60


def inside(patch: Patch, point: np.ndarray) -> bool:
    """Whether a point is shown by a patch in full."""
    x, y = np.rint(point).astype(int) - (patch.x, patch.y)
    return bool(patch.alpha[y, x] > 0.9)


@pytest.mark.parametrize("name", ("video_rewrite", "vasa1", "emo"))
@pytest.mark.parametrize("sound", ["short", "one sample", "not a number"])
def test_sound_that_says_nothing_moves_lips_within_reason_or_is_refused(
    talking, small_avatars: dict[str, Avatar], name: str, sound: str
) -> None:
    time = np.arange(3200) / 16000
    samples = (0.8 * np.sign(np.sin(2 * np.pi * 150 * time))).astype(np.float32)
    speech = {
        "short": Speech(samples, 16000),
        "one sample": Speech(samples[:1], 8000),
        "not a number": Speech(np.where(np.arange(3200) == 99, np.nan, samples).astype(np.float32), 16000),
    }[sound]
    few, avatar = usable_only(talking.track, FEW), small_avatars[name]
    if sound == "not a number":
        with pytest.raises(LipSyncError, match=r"NaN|finite|number"):
            get_engine(name).animate(speech, talking.clip, few, avatar, {})
        return
    motion = get_engine(name).animate(speech, talking.clip, few, avatar, {})
    own = load_bank(avatar.path).coefficients
    assert np.isfinite(motion.coefficients).all()
    assert (np.abs(motion.coefficients - own.mean(0)) <= 3 * np.ptp(own, axis=0) + 0.05).all()
