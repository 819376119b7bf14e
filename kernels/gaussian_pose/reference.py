"""What posing means, in torch: differentiable, in any precision, on any device. It is also what learning goes through."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gaussian_pose.records import Placed, Splat, Triangles

LEAST, MOST = 0.2, 2.0  # of a triangle's size at rest


def triangle_frames(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Axes [..., 3, 3] (columns: along the first edge, across, normal) and size [...] of corners [..., 3, 3]."""
    along, other = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    normal = torch.linalg.cross(along, other)
    twice_area = normal.norm(dim=-1)
    along = along / along.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    normal = normal / twice_area[..., None].clamp_min(1e-9)
    return torch.stack([along, torch.linalg.cross(normal, along), normal], -1), twice_area.sqrt()


def quaternions(axes: Tensor) -> Tensor:
    """Unit quaternions [..., 4] (w, x, y, z) of rotations [..., 3, 3], by the largest of the four (Shepperd 1978)."""
    a = axes.flatten(-2).unbind(-1)
    trace = torch.stack([a[0] + a[4] + a[8], a[0] - a[4] - a[8], a[4] - a[0] - a[8], a[8] - a[0] - a[4]], -1)
    best = trace.argmax(-1, keepdim=True)
    rows = torch.stack(
        [
            torch.stack([1 + trace[..., 0], a[7] - a[5], a[2] - a[6], a[3] - a[1]], -1),
            torch.stack([a[7] - a[5], 1 + trace[..., 1], a[1] + a[3], a[2] + a[6]], -1),
            torch.stack([a[2] - a[6], a[1] + a[3], 1 + trace[..., 2], a[5] + a[7]], -1),
            torch.stack([a[3] - a[1], a[2] + a[6], a[5] + a[7], 1 + trace[..., 3]], -1),
        ],
        -2,
    )
    chosen = torch.gather(rows, -2, best[..., None].expand(*best.shape, 4))[..., 0, :]
    return chosen / chosen.norm(dim=-1, keepdim=True).clamp_min(1e-9)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of quaternions [..., 4]."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    w, x = aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by
    y, z = aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw
    return torch.stack([w, x, y, z], -1)


def follow(base: Tensor, basis: Tensor, code: Tensor) -> Tensor:
    """base [N, D] + the first codes of [B, C] over basis [<= C, N, D] -> [B, N, D]; in turn, so batches agree to the bit."""
    out = base[None].expand(len(code), *base.shape)
    for k in range(len(basis)):
        out = out + code[:, k, None, None] * basis[k]
    return out


def pose_reference(splat: Splat, mesh: Triangles, vertices: Tensor, scale: Tensor, code: Tensor) -> Placed:
    """See the door."""
    corners = vertices[:, mesh.triangles]
    axes, size = triangle_frames(corners)
    owner, unit = splat.owner, scale[:, None]
    offset = follow(splat.offset, splat.offset_basis, code)
    means = unit[..., None] * _weighted(axes.transpose(2, 3)[:, owner], offset) + _weighted(corners[:, owner], splat.weights)
    means = means + torch.stack([torch.zeros_like(splat.behind)] * 2 + [splat.behind], -1) * unit[..., None]
    grown = (size / (unit * mesh.rest)).clamp(LEAST, MOST)[:, owner]
    quats = multiply(quaternions(axes)[:, owner], splat.turn[None])
    scales = splat.size.exp()[None] * (grown * unit)[..., None]
    return Placed(means, quats, scales, follow(splat.colour, splat.colour_basis, code))


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum of three rows [B, N, 3, 3] by weights [..., N, 3]; term by term, which is fast on a CPU and the same in any batch."""
    return sum((rows[:, :, k] * weights[..., k, None] for k in range(1, 3)), rows[:, :, 0] * weights[..., 0, None])


def gate_reference(points: Tensor, ring: Tensor, scale: Tensor, soft: float, room: float) -> Tensor:
    """See the door."""
    px, py = (p[:, None] for p in points.unbind(-1))  # [B, 1, G]: rows are edges, so that the long side is the inner one
    ax, ay = (a[..., None] for a in ring.unbind(-1))  # [B, R, 1]
    ex, ey = (e[..., None] for e in (ring.roll(-1, 1) - ring).unbind(-1))
    dx, dy = px - ax, py - ay
    along = ((dx * ex + dy * ey) / (ex * ex + ey * ey).clamp_min(1e-9)).clamp(0, 1)
    distance = ((dx - along * ex) ** 2 + (dy - along * ey) ** 2).amin(1).sqrt()
    crosses = (ay > py) != (ay + ey > py)
    beyond = dx < dy * (ex / torch.where(ey == 0, 1e-9, ey))
    inside = (crosses & beyond).sum(1) % 2 == 1
    x, y = ring.unbind(-1)
    area = 0.5 * (x * y.roll(-1, 1) - x.roll(-1, 1) * y).sum(-1).abs()
    unit = scale[:, None]
    spare = torch.minimum(room * unit, area[:, None] / unit)
    return torch.sigmoid((torch.where(inside, distance, -distance) + spare) / (soft * unit))
