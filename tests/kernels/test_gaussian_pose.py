"""Gaussians go where their triangles go: the fast path is its definition, in any batch and by any number of threads."""

from __future__ import annotations

import pytest
import torch

from kernels.checks import ShapeError
from kernels.gaussian_pose import Splat, Triangles, gate_by_ring, pose_splats
from kernels.gaussian_pose.reference import gate_reference, pose_reference, quaternions, triangle_frames


def scene(count: int, frames: int, seed: int = 3) -> tuple[Splat, Triangles, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    weights = torch.rand(count, 3, generator=random)
    splat = Splat(
        torch.randint(0, 9, (count,), generator=random), weights / weights.sum(1, keepdim=True), noise(count).abs(),
        noise(count, 3), 0.1 * noise(2, count, 3), 0.3 * noise(count, 3), noise(count, 4), noise(count, 3), noise(4, count, 3),
    )  # fmt: skip
    corners = torch.stack([torch.randperm(7, generator=random)[:3] for _ in range(9)])
    mesh = Triangles(corners, 0.5 + torch.rand(9, generator=random))
    return splat, mesh, 40 * noise(frames, 7, 3), 30 + noise(frames), noise(frames, 4)


def double(record):
    return type(record)(*(value.double() if value.is_floating_point() else value for value in record))


@pytest.mark.parametrize(("count", "frames"), [(0, 1), (1, 1), (777, 3)])
def test_matches_the_reference(count: int, frames: int) -> None:
    splat, mesh, *at = scene(count, frames)
    mesh.triangles[0] = torch.tensor([4, 4, 4])  # a triangle that is none
    found = pose_splats(splat, mesh, *at)
    wanted = pose_reference(double(splat), double(mesh), *(value.double() for value in at))
    sound = splat.owner != 0 if count else splat.owner.bool()
    for name in ("means", "scales", "colours"):
        torch.testing.assert_close(getattr(found, name).double(), getattr(wanted, name), rtol=2e-5, atol=2e-3)
    sign = torch.sign((found.quats * wanted.quats).sum(-1, keepdim=True))
    torch.testing.assert_close((found.quats.double() * sign)[:, sound], wanted.quats[:, sound], rtol=2e-4, atol=2e-4)
    assert all(torch.isfinite(value).all() for value in found)


def test_every_case_of_the_quaternion_is_met() -> None:
    splat, mesh, *at = scene(600, 8)
    axes, _ = triangle_frames(at[0][:, mesh.triangles])
    biggest = quaternions(axes).abs().argmax(-1)
    assert set(biggest.flatten().tolist()) == {0, 1, 2, 3}
    found, wanted = pose_splats(splat, mesh, *at).quats, pose_reference(splat, mesh, *at).quats
    assert ((found * wanted).sum(-1).abs() / wanted.norm(dim=-1) ** 2).min() > 0.9999


def test_batches_and_threads_do_not_change_a_bit() -> None:
    splat, mesh, *at = scene(9000, 3)
    whole, before = pose_splats(splat, mesh, *at), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = pose_splats(splat, mesh, *at)
    finally:
        torch.set_num_threads(before)
    alone = pose_splats(splat, mesh, *(value[1:2] for value in at))
    for one, two, three in zip(whole, again, alone, strict=True):
        assert torch.equal(one, two) and torch.equal(one[1], three[0])


def test_gradients_go_through_the_reference() -> None:
    splat, mesh, *at = scene(5, 2)
    own = splat._replace(offset=splat.offset.clone().requires_grad_())
    found = pose_splats(own, mesh, *at).means.sum()
    (gradient,) = torch.autograd.grad(found, own.offset)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("gap", [12.0, 0.4, 0.0])
def test_a_ring_lets_through_what_its_definition_says(gap: float) -> None:
    random, turn = torch.Generator().manual_seed(2), torch.linspace(0, 2 * torch.pi, 21)[:-1]
    ring = torch.stack([100 + 30 * torch.cos(turn), 80 + gap * torch.sin(turn)], -1)
    rings, scale = torch.stack([ring, ring.flip(0) + 3.5]), torch.tensor([90.0, 120.0])
    points = torch.tensor([100.0, 80.0]) + 25 * torch.randn(2, 400, 2, generator=random)
    points[0, :20], points[0, 20] = ring, torch.tensor([1e4, 80.0])  # on the ring, and far away
    found = gate_by_ring(points, rings, scale, 0.006, 0.012)
    wanted = gate_reference(points.double(), rings.double(), scale.double(), 0.006, 0.012)
    away = torch.ones_like(found, dtype=torch.bool)
    away[0, :20] = False  # right on an edge the two sides are 0.5 + room, whatever rounding says
    torch.testing.assert_close(found[away].double(), wanted[away], rtol=0, atol=2e-3)
    torch.testing.assert_close(found[~away].double(), wanted[~away], rtol=0, atol=0.05)
    assert torch.isfinite(found).all() and found[0, 20] == 0


def test_the_door_teaches() -> None:
    splat, mesh, *at = scene(5, 2)
    with pytest.raises(ShapeError, match="weights: expected shape"):
        pose_splats(splat._replace(weights=splat.weights[:4]), mesh, *at)
    with pytest.raises(ShapeError, match="code: expected a number for each of 4 basis rows, got 3"):
        pose_splats(splat, mesh, at[0], at[1], at[2][:, :3])
    with pytest.raises(ShapeError, match="owner: expected numbers from 0 to 8"):
        pose_splats(splat._replace(owner=splat.owner + 9), mesh, *at)
