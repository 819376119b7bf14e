"""What is posed: Gaussians bound to triangles."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Splat(NamedTuple):
    """N Gaussians; lengths in units of the scale."""

    owner: Tensor  # [N] int64, triangle
    weights: Tensor  # [N, 3] barycentric
    behind: Tensor  # [N] how much farther away than its triangle
    offset: Tensor  # [N, 3] in the triangle's frame
    offset_basis: Tensor  # [K, N, 3]
    size: Tensor  # [N, 3] log of the standard deviation
    turn: Tensor  # [N, 4] quaternion in the triangle's frame
    colour: Tensor  # [N, 3]
    colour_basis: Tensor  # [C, N, 3]


class Triangles(NamedTuple):
    """M triangles."""

    triangles: Tensor  # [M, 3] int64
    rest: Tensor  # [M] size of each at rest


class Placed(NamedTuple):
    """The Gaussians in B frames."""

    means: Tensor  # [B, N, 3]
    quats: Tensor  # [B, N, 4]
    scales: Tensor  # [B, N, 3]
    colours: Tensor  # [B, N, 3]
