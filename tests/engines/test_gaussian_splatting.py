"""The Gaussians show the mouth that was asked for, teeth stay where teeth are, and avatars that are not sound are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from deployments.contracts import Avatar, Motion, Patch, Span, Track
from deployments.engines.gaussian_splatting.avatar import load_head
from deployments.engines.gaussian_splatting.config import FitConfig, GaussianConfig
from deployments.engines.gaussian_splatting.engine import GaussianSplatting
from deployments.engines.gaussian_splatting.export import export_avatar
from deployments.engines.gaussian_splatting.network import Posed, draw, rim_gate
from deployments.engines.gaussian_splatting.rig import LOWER, UPPER, build_rig
from deployments.errors import Cancelled, NoFaceError, WeightsError
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP, Landmarker, roi_of_points
from deployments.face.pose import canonical
from deployments.media.decode import decode
from deployments.motion.dubbing import track_coefficients
from deployments.retrieval.bank import load_bank

# Gaussians alone, few and small: what they do must not come from the retrieved pictures
SMALL = GaussianConfig(
    gaussians=2500, retrieved_share=0.0, texture_gain=0.0, fit=FitConfig(steps=60, check_every=20, side=128, refill_at=(30,))
)


@pytest.fixture(scope="module")
def avatar(talking, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    return GaussianSplatting(SMALL).fit(talking.clip, talking.track, tmp_path_factory.mktemp("avatar"))


def own_motion(talking) -> Motion:
    coefficients = track_coefficients(talking.track, load_bank(talking.avatar.path).stable)
    return Motion(coefficients, np.ones(len(coefficients), np.float32))


def patches(talking, avatar: Avatar, motion: Motion, span: Span) -> list[Patch | None]:
    return list(GaussianSplatting(SMALL).render(avatar, motion, decode(talking.clip, span), talking.track, span))


def shown(rgb: np.ndarray, patch: Patch) -> np.ndarray:
    out = rgb.astype(np.float32)
    height, width = patch.alpha.shape
    window = out[patch.y : patch.y + height, patch.x : patch.x + width]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def test_its_own_motion_gives_its_own_picture(talking, avatar) -> None:
    everything = Span(0, talking.clip.frames)
    found = []
    for picture, patch in zip(
        decode(talking.clip, everything), patches(talking, avatar, own_motion(talking), everything), strict=True
    ):
        frame = picture.rgb()[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
        error = ((frame.astype(float) - patch.rgb)[patch.alpha > 0.5] ** 2).mean()
        found.append(10 * np.log10(255**2 / error))
    assert np.mean(found) > 25


def test_learning_makes_unseen_frames_better(avatar) -> None:
    history = json.loads((avatar.path / "avatar.json").read_text())["history"]
    assert [row["step"] for row in history] == [20, 40, 60]
    assert history[-1]["psnr"] > history[0]["psnr"]


def test_chunks_agree_to_the_bit(talking, avatar) -> None:
    motion = own_motion(talking)
    motion = replace(motion, coefficients=np.roll(motion.coefficients, 5, axis=0))
    whole = patches(talking, avatar, motion, Span(0, talking.clip.frames))
    edges = [0, 7, 8, 20, talking.clip.frames]
    pieces = [p for a, b in pairwise(edges) for p in patches(talking, avatar, motion, Span(a, b))]
    for one, other in zip(whole, pieces, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.alpha, other.alpha)


def test_the_mouth_opens_and_closes_when_asked(talking, avatar) -> None:
    motion = own_motion(talking)
    order = np.argsort(talking.opening)
    most, least = motion.coefficients[order[-3:]].mean(0), motion.coefficients[order[:3]].mean(0)
    span, landmarker, gaps = Span(4, 8), Landmarker(), {}
    for name, wanted in (("open", most), ("shut", least)):
        asked = replace(motion, coefficients=np.tile(wanted, (talking.clip.frames, 1)))
        found = []
        for picture, patch in zip(decode(talking.clip, span), patches(talking, avatar, asked, span), strict=True):
            around = roi_of_points(talking.track.landmarks[picture.index])
            points, _ = landmarker.points(shown(picture.rgb(), patch), around, passes=2)
            found.append(points[LOWER_INNER_LIP, 1] - points[UPPER_INNER_LIP, 1])
        gaps[name] = np.mean(found)
    assert gaps["open"] > gaps["shut"] + 3.0


def test_frames_that_are_not_asked_for_or_have_no_face_get_no_patch(talking, avatar) -> None:
    motion = own_motion(talking)
    weight, usable = motion.weight.copy(), talking.track.usable.copy()
    weight[:10], usable[20] = 0, False
    track = replace(talking.track, usable=usable)
    engine, span = GaussianSplatting(SMALL), Span(5, 25)
    found = list(engine.render(avatar, replace(motion, weight=weight), decode(talking.clip, span), track, span))
    assert [patch is None for patch in found] == [frame < 10 or frame == 20 for frame in range(5, 25)]


def test_a_stopped_fit_goes_on_and_ends_where_an_unstopped_one_does(talking, avatar, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "gaussians" and done == 40:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        GaussianSplatting(SMALL).fit(talking.clip, talking.track, tmp_path, stop)
    steps: list[int] = []
    GaussianSplatting(SMALL).fit(
        talking.clip, talking.track, tmp_path, lambda s, d, t: steps.append(d) if s == "gaussians" else None
    )
    assert min(steps) == 60  # the first 40 were not learned again
    one, other = load_file(tmp_path / "gaussians.safetensors"), load_file(avatar.path / "gaussians.safetensors")
    for name, value in other.items():
        np.testing.assert_array_equal(one[name], value)
    assert not (tmp_path / "fit.safetensors").exists()


def test_upper_teeth_stay_with_the_skull_and_lower_teeth_go_with_the_chin(talking) -> None:
    bank = load_bank(talking.avatar.path)
    target = bank.mesh.vertices(canonical(talking.track.landmarks, bank.stable).points)
    rig = build_rig(bank.mesh.triangles, target)
    at_rest, count = rig.vertices(target[:1]), len(rig.upper)
    dropped = target[:1].copy()
    dropped[:, :468, 1] += np.where(dropped[:, :468, 1] > dropped[:, 13:14, 1], 0.1, 0.0)
    moved = rig.vertices(dropped) - at_rest
    np.testing.assert_allclose(moved[0, -2 * count : -count], 0, atol=1e-6)
    np.testing.assert_allclose(moved[0, -count:], np.tile([0, 0.1, 0], (count, 1)), atol=1e-5)
    used = {layer: np.unique(rig.triangles[rig.layer == layer]) for layer in (UPPER, LOWER)}
    assert used[UPPER].max() < used[LOWER].min() and used[UPPER].min() >= target.shape[1]


def test_the_inner_lip_cuts_what_lies_behind_and_shut_lips_leave_nothing() -> None:
    turn = torch.linspace(0, 2 * torch.pi, 21)[:-1]
    for gap, inside in ((12.0, 1.0), (0.0, 0.0)):
        ring = torch.stack([100 + 30 * torch.cos(turn), 80 + gap * torch.sin(turn)], -1)[None]
        spots = torch.tensor([[[100.0, 80.0 + gap / 3], [100.0, 80.0 + gap + 6], [140.0, 80.0]]])
        gate = rim_gate(spots, ring, torch.tensor([100.0]))[0]
        assert abs(gate[0] - inside) < 0.02 if gap else gate[0] <= 0.5
        assert gate[1] < 0.02 and gate[2] < 0.02


def test_a_gaussian_is_drawn_where_it_is_at_any_depth() -> None:
    for z in (-300.0, 0.0, 250.0):
        posed = Posed(
            torch.tensor([[[37.0, 21.0, z]]]), torch.tensor([[[1.0, 0, 0, 0]]]), torch.full((1, 1, 3), 2.0),
            torch.tensor([[0.9]]), torch.tensor([[[1.0, 0.5, 0.0]]]),
        )  # fmt: skip
        alpha = draw(posed, torch.tensor([[5.0, 1.0]]), 48, 64).alpha[0]
        rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
        assert float((alpha * columns).sum() / alpha.sum()) == pytest.approx(32, abs=0.02)
        assert float((alpha * rows).sum() / alpha.sum()) == pytest.approx(20, abs=0.02)


def usable_only(talking, count: int) -> Track:
    return replace(talking.track, usable=np.arange(talking.clip.frames) < count)


def test_a_few_frames_are_refused_before_any_work(talking, tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match=r"8 frames with a usable face, talk\.mp4 has 7"):
        GaussianSplatting(SMALL).fit(talking.clip, usable_only(talking, 7), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_eight_frames_are_enough_for_the_frames_after_them(talking, tmp_path: Path) -> None:
    found = GaussianSplatting(SMALL).fit(talking.clip, usable_only(talking, 8), tmp_path / "few")
    span = Span(8, 12)
    for picture, patch in zip(decode(talking.clip, span), patches(talking, found, own_motion(talking), span), strict=True):
        frame = picture.rgb()[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
        error = ((frame.astype(float) - patch.rgb)[patch.alpha > 0.5] ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 22


def spoil_cut(folder: Path) -> None:
    file = folder / "gaussians.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def spoil_format(folder: Path) -> None:
    facts = json.loads((folder / "avatar.json").read_text())
    (folder / "avatar.json").write_text(json.dumps({**facts, "format": 99}))


def spoil_tensor(name: str, value: float):
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "gaussians.safetensors")
        tensors[name].reshape(-1)[0] = value
        save_file(tensors, folder / "gaussians.safetensors")

    return spoil


def spoil_missing(folder: Path) -> None:
    tensors = load_file(folder / "gaussians.safetensors")
    tensors.pop("gaussians.turn")
    save_file(tensors, folder / "gaussians.safetensors")


@pytest.mark.parametrize(
    "spoil",
    [spoil_cut, spoil_format, spoil_missing, spoil_tensor("gaussians.colour", np.nan), spoil_tensor("binding.owner", 10**6)],
    ids=["cut", "format", "missing", "nan", "owner"],
)
def test_an_avatar_that_is_not_sound_is_refused(avatar, tmp_path: Path, spoil) -> None:
    folder = tmp_path / "avatar"
    shutil.copytree(avatar.path, folder)
    load_head(folder)
    spoil(folder)
    with pytest.raises(WeightsError, match=r"fit|safetensors"):
        load_head(folder)


def test_an_exported_avatar_reads_back_as_splats_of_a_face(avatar, tmp_path: Path) -> None:
    ply, picture = tmp_path / "face.ply", tmp_path / "turn.png"
    export_avatar(avatar.path, ply, picture)
    head, _, body = ply.read_bytes().partition(b"end_header\n")
    names = [line.split()[2].decode() for line in head.splitlines() if line.startswith(b"property")]
    rows = dict(zip(names, np.frombuffer(body, "<f4").reshape(-1, len(names)).T, strict=True))
    assert f"element vertex {len(rows['x'])}".encode() in head and np.isfinite(list(rows.values())).all()
    assert -1.2 < rows["x"].min() < -0.3 and 0.3 < rows["x"].max() < 1.2  # eye distances, the face left and right of the nose
    assert rows["y"].mean() > 0.3  # below the eyes
    turned = cv2.imread(str(picture))
    assert turned.shape[1] == 7 * turned.shape[0] and (turned < 250).any(2).mean() > 0.05
