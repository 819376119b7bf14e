"""What key points say of a face, and how they move: x = size (rest R + expression) + shift, without depth in the shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

LIP_POINTS = (6, 12, 14, 17, 19, 20)
BIN_DEGREES, FIRST_DEGREES = 3.0, -97.5


@dataclass(frozen=True)
class Face:
    """Pose and expression of N frames."""

    rest: torch.Tensor  # [N or 1, P, 3] key points of the face at rest
    expression: torch.Tensor  # [N, P, 3] what moves them
    rotation: torch.Tensor  # [N, 3, 3]; points are rows and are multiplied from the left
    size: torch.Tensor  # [N]
    shift: torch.Tensor  # [N, 3]

    def points(self) -> torch.Tensor:
        """Key points [N, P, 3] in the picture."""
        placed = self.size[:, None, None] * (self.rest @ self.rotation + self.expression)
        flat = torch.cat([self.shift[:, :2], torch.zeros_like(self.shift[:, :1])], 1)
        return placed + flat[:, None]


def degrees(row: torch.Tensor) -> torch.Tensor:
    """Angle [N] from logits of bins [N, B]."""
    bins = torch.arange(row.shape[1], dtype=row.dtype, device=row.device)
    return (row.softmax(1) * bins).sum(1) * BIN_DEGREES + FIRST_DEGREES


def rotation(pitch: torch.Tensor, yaw: torch.Tensor, roll: torch.Tensor) -> torch.Tensor:
    """Rotation of row vectors [N, 3, 3] from degrees [N]: the transpose of Rz(roll) Ry(yaw) Rx(pitch)."""
    angles = torch.deg2rad(torch.stack([pitch, yaw, roll]))
    cos, sin, one, none = angles.cos(), angles.sin(), torch.ones_like(pitch), torch.zeros_like(pitch)

    def matrix(*rows: torch.Tensor) -> torch.Tensor:
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    about_x = matrix(one, none, none, none, cos[0], -sin[0], none, sin[0], cos[0])
    about_y = matrix(cos[1], none, sin[1], none, one, none, -sin[1], none, cos[1])
    about_z = matrix(cos[2], -sin[2], none, sin[2], cos[2], none, none, none, one)
    return (about_z @ about_y @ about_x).transpose(1, 2)


def read_face(rows: dict[str, torch.Tensor]) -> Face:
    """The face of what the pose net says."""
    angles = (degrees(rows[name].float()) for name in ("pitch", "yaw", "roll"))
    rest, expression = (rows[name].float().unflatten(1, (-1, 3)) for name in ("rest", "expression"))
    return Face(rest, expression, rotation(*angles), rows["size"].float()[:, 0], rows["shift"].float())


def moved(source: Face, motion: Face, head: float = 1.0, lips: float = 1.0, nearer: float = 1.0) -> Face:
    """The source's face moved as `motion` [N frames] moves from its own first frame; lips take the motion's own shape.

    head : share of the motion's head movement; lips : factor on the lips' moves; nearer : factor on the size.
    """
    lead = motion.expression - motion.expression[:1]
    expression = source.expression + lead
    index = torch.tensor(LIP_POINTS, device=lead.device)
    shape = motion.expression[:, index]
    resting = shape[:1]
    expression[:, index] = resting + lips * (shape - resting)
    turned = eased(motion.rotation @ motion.rotation[0].T, head)
    return replace(
        source,
        expression=expression,
        rotation=turned @ source.rotation,
        size=source.size * (motion.size / motion.size[0]) ** head * nearer,
        shift=source.shift + head * (motion.shift - motion.shift[:1]),
    )


def eased(turn: torch.Tensor, share: float) -> torch.Tensor:
    """A share of every rotation [N, 3, 3], about the same axis; 1 leaves it as it is, to the bit."""
    if share == 1.0:
        return turn
    cosine = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    angle = cosine.arccos()
    skew = (turn - turn.transpose(1, 2)) / 2
    sine = angle.sin()
    axis = skew / sine.clamp_min(1e-7)[:, None, None]
    wanted = share * angle
    eye = torch.eye(3, dtype=turn.dtype, device=turn.device)
    grown = eye + wanted.sin()[:, None, None] * axis + (1 - wanted.cos())[:, None, None] * axis @ axis
    return torch.where((sine > 1e-6)[:, None, None], grown, eye)
