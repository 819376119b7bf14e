"""The avatar itself: Gaussians on a rig, and what each expression does to their colour and place.

A Gaussian belongs to a triangle (barycentric point, offset and orientation in the triangle's own frame, size that grows
with the triangle), as in GaussianAvatars (Qian et al. 2024) and SplattingAvatar (Shao et al. 2024). A low-rank basis over
the expression code moves it and colours it. Everything is in pixels of one frame when it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from deployments.engines.gaussian_splatting.rig import CAVITY, CAVITY_DEPTH, EYES, IRIS_REACH, SKIN
from kernels import gaussians

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # where Gaussians are learned and drawn
FAR = 1e5  # pixels between camera and face: the tracker's faces have no perspective, nor has the picture then
RIM_SOFT = 0.006  # eye distances: how softly the inner lip cuts what lies behind it
LIMBUS, LIMBUS_SOFT = 1.0, 0.03  # iris radii: where the white begins
RIM_ROOM = 0.012  # eye distances that the cut leaves beyond the tracked rim, where lips cover it


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians; C numbers in an expression code."""

    colour: Tensor  # [N, 3] 0..1 RGB
    colour_basis: Tensor  # [C, N, 3]
    offset: Tensor  # [N, 3] eye distances, in the triangle's frame
    offset_basis: Tensor  # [lip codes, N, 3]
    size: Tensor  # [N, 3] log of the standard deviation, eye distances
    turn: Tensor  # [N, 4] quaternion in the triangle's frame
    opacity: Tensor  # [N] logit

    def map(self, change: object) -> Gaussians:
        """The same record with `change(tensor)` for each of its tensors."""
        assert callable(change)
        return Gaussians(*(change(getattr(self, part.name)) for part in fields(self)))


@dataclass(frozen=True)
class Binding:
    """Where the Gaussians belong; does not change while they are learned, but for those that move elsewhere."""

    triangles: Tensor  # [M, 3] int64
    owner: Tensor  # [N] int64, triangle
    weights: Tensor  # [N, 3] barycentric
    layer: Tensor  # [N] int64
    rest: Tensor  # [M] size of each triangle at rest, eye distances
    rim: Tensor  # [R] int64, vertices along the inner lip
    lids: Tensor = field(default_factory=lambda: torch.zeros(0, 16, dtype=torch.int64))  # [E, 16], vertices along each eye's lids
    irises: Tensor = field(default_factory=lambda: torch.zeros(0, 16, dtype=torch.int64))  # [E, 16], corners of their irises

    def to(self, device: torch.device) -> Binding:
        """The same on a device."""
        return Binding(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Pose:
    """B frames: rig vertices [B, V, 3] and scale [B] in pixels, expression code [B, C]."""

    vertices: Tensor
    scale: Tensor
    code: Tensor


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


def rim_gate(means: Tensor, rim: Tensor, scale: Tensor) -> Tensor:
    """How much [B, G] of points [B, G, 2] the inner lip's ring [B, R, 2] leaves to be seen; shut lips leave nothing."""
    px, py = (p[:, None] for p in means.unbind(-1))  # [B, 1, G]: rows are edges, so that the long side is the inner one
    ax, ay = (a[..., None] for a in rim.unbind(-1))  # [B, R, 1]
    ex, ey = (e[..., None] for e in (rim.roll(-1, 1) - rim).unbind(-1))
    dx, dy = px - ax, py - ay
    along = ((dx * ex + dy * ey) / (ex * ex + ey * ey).clamp_min(1e-9)).clamp(0, 1)
    distance = ((dx - along * ex) ** 2 + (dy - along * ey) ** 2).amin(1).sqrt()
    crosses = (ay > py) != (ay + ey > py)
    beyond = dx < dy * (ex / torch.where(ey == 0, 1e-9, ey))
    inside = (crosses & beyond).sum(1) % 2 == 1
    x, y = rim.unbind(-1)
    area = 0.5 * (x * y.roll(-1, 1) - x.roll(-1, 1) * y).sum(-1).abs()
    unit = scale[:, None]
    room = torch.minimum(RIM_ROOM * unit, area[:, None] / unit)
    return torch.sigmoid((torch.where(inside, distance, -distance) + room) / (RIM_SOFT * unit))


@dataclass(frozen=True)
class Posed:
    """Gaussians in the pixels of B frames, ready to be drawn."""

    means: Tensor  # [B, N, 3]
    quats: Tensor  # [B, N, 4]
    scales: Tensor  # [B, N, 3]
    opacities: Tensor  # [B, N]
    colours: Tensor  # [B, N, 3]


def pose(avatar: Gaussians, binding: Binding, at: Pose) -> Posed:
    """Put the avatar into B frames."""
    corners = at.vertices[:, binding.triangles]
    axes, size = triangle_frames(corners)
    owner, unit = binding.owner, at.scale[:, None]
    offset = follow(avatar.offset, avatar.offset_basis, at.code)
    means = unit[..., None] * _weighted(axes.transpose(2, 3)[:, owner], offset) + _weighted(corners[:, owner], binding.weights)
    depth = torch.where(binding.layer == CAVITY, CAVITY_DEPTH, 0.0)
    means = means + torch.stack([torch.zeros_like(depth)] * 2 + [depth], -1) * unit[..., None]
    grown = (size / (unit * binding.rest)).clamp(0.2, 2.0)[:, owner]
    quats = multiply(quaternions(axes)[:, owner], avatar.turn[None])
    scales = avatar.size.exp()[None] * (grown * unit)[..., None]
    colours = follow(avatar.colour, avatar.colour_basis, at.code)
    return Posed(means, quats, scales, _seen(avatar, binding, at, means), colours)


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum of three rows [B, N, 3, 3] by weights [..., N, 3]; term by term, which is fast on a CPU and the same in any batch."""
    return sum((rows[:, :, k] * weights[..., k, None] for k in range(1, 3)), rows[:, :, 0] * weights[..., 0, None])


def _seen(avatar: Gaussians, binding: Binding, at: Pose, means: Tensor) -> Tensor:
    """Opacity [B, N]: what lies behind the lips shows between them only. Skin comes first in the lists."""
    opacity = torch.sigmoid(avatar.opacity)[None].expand(len(means), -1)
    skin = int((binding.layer == SKIN).sum())
    with torch.no_grad():
        gate = let_through(binding, at, means)
    return torch.cat([opacity[:, :skin], opacity[:, skin:] * gate], 1)


def let_through(binding: Binding, at: Pose, means: Tensor) -> Tensor:
    """How much [B, N - skin] lips and lids leave to be seen of what lies behind them: mouth first, then eye by eye."""
    first = int((binding.layer == SKIN).sum())
    ends = [int((binding.layer < EYES + 2 * k).sum()) for k in range(len(binding.lids) + 1)]
    parts = []
    for ring, end in zip((binding.rim, *binding.lids), ends, strict=True):
        parts.append(rim_gate(means[:, first:end, :2], at.vertices[:, ring, :2], at.scale))
        first = end
    for eye, (corners, first) in enumerate(zip(binding.irises, ends, strict=False)):
        white = int((binding.layer == EYES + 2 * eye).sum())
        bare = bare_of_iris(means[:, first : first + white, :2], at.vertices[:, corners, :2])
        parts[1 + eye] = torch.cat([parts[1 + eye][:, :white] * bare, parts[1 + eye][:, white:]], 1)
    return torch.cat(parts, 1)


def bare_of_iris(means: Tensor, plate: Tensor) -> Tensor:
    """How much [B, G] of points [B, G, 2] the iris on a plate of corners [B, 16, 2] leaves bare: a white learns there alone."""
    middle = plate.mean(1, keepdim=True)
    sides = torch.stack([plate[:, 3] - plate[:, 0], plate[:, 12] - plate[:, 0]], 1).norm(dim=-1)
    radius = sides.amax(1) / (2 * IRIS_REACH)
    away = (means - middle).norm(dim=-1) / radius[:, None].clamp_min(1e-6)
    return torch.sigmoid((away - LIMBUS) / LIMBUS_SOFT)


def draw(posed: Posed, corner: Tensor, height: int, width: int) -> gaussians.Picture:
    """Pictures of windows whose first pixels lie at `corner` [B, 2]; colours weighted by alpha, black behind."""
    z = posed.means[..., 2:] + FAR
    flat = (posed.means[..., :2] - corner[:, None]) * (z / FAR)
    view = torch.eye(4, device=z.device)[None]
    intrinsics = torch.tensor([[FAR, FAR, 0.0, 0.0]], device=z.device)
    camera = gaussians.Camera(view, intrinsics, height, width)
    return gaussians.render(torch.cat([flat, z], -1), posed.quats, posed.scales, posed.opacities, posed.colours, camera)
