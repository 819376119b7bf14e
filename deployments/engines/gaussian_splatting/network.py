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
from kernels.gaussian_pose import Splat, Triangles, gate_by_ring, pose_splats

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


def rim_gate(means: Tensor, rim: Tensor, scale: Tensor) -> Tensor:
    """How much [B, G] of points [B, G, 2] the inner lip's ring [B, R, 2] leaves to be seen; shut lips leave nothing."""
    return gate_by_ring(means, rim, scale, RIM_SOFT, RIM_ROOM)


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
    behind = torch.where(binding.layer == CAVITY, CAVITY_DEPTH, 0.0)
    own = (binding.owner, binding.weights, behind, avatar.offset, avatar.offset_basis, avatar.size, avatar.turn)
    splat = Splat(*own, avatar.colour, avatar.colour_basis)
    means, quats, scales, colours = pose_splats(splat, Triangles(binding.triangles, binding.rest), at.vertices, at.scale, at.code)
    return Posed(means, quats, scales, _seen(avatar, binding, at, means), colours)


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
