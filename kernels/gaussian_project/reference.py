"""What the projection means, in plain torch: any float type, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.splats import ALPHA_MIN, BLUR, MAX_EXTENT


def rotation(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (w, x, y, z) of any length but zero."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def jacobian(point: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Derivative [B, N, 2, 3] of the pixel position by the point [B, N, 3], taken no further out than 1.15 half views."""
    fx, fy, cx, cy = intrinsics[:, None].unbind(-1)
    x, y, z = point.unbind(-1)
    spare_x, spare_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / z).clamp(-(cx + 0.5) / fx - spare_x, (width - 0.5 - cx) / fx + spare_x)
    slope_y = (y / z).clamp(-(cy + 0.5) / fy - spare_y, (height - 0.5 - cy) / fy + spare_y)
    zero = torch.zeros_like(z)
    rows = [fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z]
    return torch.stack(rows, -1).reshape(*z.shape, 2, 3)


def project_reference(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    near: float = 0.01,
    far: float = 1e10,
    blur: float = BLUR,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means [B, N, 2], conics [B, N, 3], depths [B, N], extents [B, N, 2]; all zeros where nothing can be seen.

    All inputs have a first dimension of B or 1; `view` is [., 3, 4].
    """
    turn, shift = view[:, None, :3, :3], view[:, None, :3, 3]
    point = (turn @ means[..., None])[..., 0] + shift  # [B, N, 3]
    depth = point[..., 2]
    seen = (depth > near) & (depth < far) & (opacities >= ALPHA_MIN) & (quats.norm(dim=-1) > 0)
    point = torch.where(seen[..., None], point, torch.ones_like(point))  # keeps what is not seen out of the gradients
    quats = torch.where(seen[..., None], quats, torch.ones_like(quats))
    fx, fy, cx, cy = intrinsics[:, None].unbind(-1)
    centre = torch.stack([fx * point[..., 0] / point[..., 2] + cx, fy * point[..., 1] / point[..., 2] + cy], -1)

    spread = jacobian(point, intrinsics, height, width) @ turn @ rotation(quats) * scales[..., None, :]  # [B, N, 2, 3]
    covariance = spread @ spread.mT + blur * torch.eye(2, dtype=means.dtype, device=means.device)
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    determinant = xx * yy - xy * xy
    conic = torch.stack([yy, -xy, xx], -1) / determinant[..., None]

    reach = 2 * torch.log(255 * opacities.clamp(min=ALPHA_MIN))  # squared, in standard deviations
    extent = (reach[..., None] * torch.stack([xx, yy], -1)).sqrt().detach()
    last = torch.tensor([width - 1, height - 1], dtype=means.dtype, device=means.device)
    seen = seen & ((centre + extent >= 0) & (centre - extent <= last) & (extent <= MAX_EXTENT)).all(-1)
    zero = torch.zeros((), dtype=means.dtype, device=means.device)
    shown = [torch.where(seen[..., None], value, zero) for value in (centre, conic, extent)]
    return shown[0], shown[1], torch.where(seen, depth, zero), shown[2]
