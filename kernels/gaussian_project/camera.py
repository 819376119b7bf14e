"""Gradients by the camera, in plain torch on every device: cameras are seldom fitted, and have few numbers.

With dU of the README, the rows of J W R diag(s) give dJ = dU diag(s) (W R)^T and d(W R) = J^T dU diag(s).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gaussian_project.reference import jacobian, rotation


def camera_gradients(
    gaussians: tuple[Tensor, Tensor, Tensor],
    view: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    splats: tuple[Tensor, Tensor],
    grads: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients [B, 12] by the view and [B, 4] by the intrinsics.

    `gaussians`: means, quaternions, scales. `splats`: conics and extents, as projected. `grads`: by means, conics, depths.
    """
    conics, extents = splats
    seen = extents[..., 0] > 0
    means, quats, scales = (torch.where(seen[..., None], t, torch.ones_like(t)) for t in gaussians)
    by_centre, by_conic, by_depth = (torch.where(seen[..., None], g.reshape(*seen.shape, -1), 0.0) for g in grads)
    turn, shift = view.reshape(-1, 1, 3, 4)[..., :3], view.reshape(-1, 1, 3, 4)[..., 3]
    point = (turn @ means[..., None])[..., 0] + shift
    point = torch.where(seen[..., None], point, torch.ones_like(point))
    own = rotation(quats)
    turned, spread = turn @ own, jacobian(point, intrinsics, *size)
    by_rows = 2 * by_covariance(conics, by_conic) @ (spread @ turned * scales[..., None, :]) * scales[..., None, :]
    by_spread = by_rows @ turned.mT
    by_point, by_intrinsics = through_lens(point, intrinsics, spread, by_spread, by_centre, by_depth)
    by_turn = spread.mT @ by_rows @ own.mT + by_point[..., :, None] * means[..., None, :]
    by_view = torch.cat([by_turn, by_point[..., None]], -1)
    kept = seen[..., None]
    return torch.where(kept, by_view.flatten(-2), 0.0).sum(1), torch.where(kept, by_intrinsics, 0.0).sum(1)


def by_covariance(conics: Tensor, by_conic: Tensor) -> Tensor:
    """Gradients [B, N, 2, 2] by the covariance: -K G K of the conic K and its gradient G."""
    conic = conics[..., [0, 1, 1, 2]].unflatten(-1, (2, 2))
    halves = by_conic * by_conic.new_tensor([1, 0.5, 1])
    return -conic @ halves[..., [0, 1, 1, 2]].unflatten(-1, (2, 2)) @ conic


def through_lens(
    point: Tensor, intrinsics: Tensor, spread: Tensor, by_spread: Tensor, by_centre: Tensor, by_depth: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients by the points [B, N, 3] in the camera's frame and the intrinsics [B, N, 4]."""
    focal, depth = intrinsics[:, None, :2], point[..., 2:]
    scale = focal / depth  # [B, N, 2]
    slope = -spread[..., 2] / scale  # of the line of sight, held back at the border
    by_scale = torch.stack([by_spread[..., 0, 0], by_spread[..., 1, 1]], -1) - slope * by_spread[..., 2]
    by_slope = -scale * by_spread[..., 2]
    tangent = point[..., :2] / depth
    free = (slope - tangent).abs() <= 1e-5 * (1 + tangent.abs())
    by_tangent = focal * by_centre + torch.where(free, by_slope, 0.0)
    held = torch.where(free, 0.0, by_slope) / -focal  # the border moves with the focal length and the centre
    by_across = by_tangent / depth
    by_away = by_depth - ((by_tangent * tangent + by_scale * scale) / depth).sum(-1, keepdim=True)
    by_focal = by_centre * tangent + by_scale / depth + held * slope
    return torch.cat([by_across, by_away], -1), torch.cat([by_focal, by_centre + held], -1)
