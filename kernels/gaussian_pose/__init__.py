"""Gaussians that ride on triangles, put where the triangles are, for all frames of a chunk at once.

The door of the operation; `reference.py` says what it means and is what gradients go through, `cpu.py` does it fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import ShapeError, check_numbers, check_shape
from kernels.gaussian_pose.records import Placed, Splat, Triangles
from kernels.gaussian_pose.reference import gate_reference, pose_reference
from kernels.threads import cut, run_spans

__all__ = ["Placed", "Splat", "Triangles", "gate_by_ring", "pose_splats"]

SPAN = 4096  # Gaussians a thread


def pose_splats(splat: Splat, mesh: Triangles, vertices: Tensor, scale: Tensor, code: Tensor) -> Placed:
    """Means, quaternions, sizes and colours in B frames of `vertices` [B, V, 3] and `scale` [B] (pixels), `code` [B, C].

    One pass on a CPU where no gradient is wanted; otherwise, and on a GPU, torch. A quaternion may come out with
    either sign, as the reference's may. Raises ShapeError, DtypeError, DeviceError.
    """
    sizes = {"B": len(vertices), "N": len(splat.owner), "C": code.shape[-1], "M": len(mesh.triangles)}
    sizes |= {"K": len(splat.offset_basis), "L": len(splat.colour_basis), "V": vertices.shape[1]}
    shapes: dict[str, tuple[str | int, ...]] = {"weights": ("N", 3), "behind": ("N",), "offset": ("N", 3), "size": ("N", 3)}
    shapes |= {"offset_basis": ("K", "N", 3), "turn": ("N", 4), "colour": ("N", 3), "colour_basis": ("L", "N", 3)}
    numbers = {name: getattr(splat, name) for name in shapes}
    for name, shape in shapes.items():
        check_shape(name, numbers[name], shape, sizes)
    at = {"vertices": vertices, "scale": scale, "code": code}
    for (name, tensor), shape in zip(at.items(), (("B", "V", 3), ("B",), ("B", "C")), strict=True):
        check_shape(name, tensor, shape, sizes)
    if max(sizes["K"], sizes["L"]) > sizes["C"]:
        raise ShapeError(f"code: expected a number for each of {max(sizes['K'], sizes['L'])} basis rows, got {sizes['C']}")
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*numbers.values(), *at.values()))
    if wanted or vertices.device.type != "cpu":
        return pose_reference(splat, mesh, vertices, scale, code)
    check_numbers(vertices.device, **numbers, **at, rest=mesh.rest)
    for name, rows, limit in (("owner", splat.owner, sizes["M"]), ("triangles", mesh.triangles, sizes["V"])):
        if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < limit:
            raise ShapeError(f"{name}: expected numbers from 0 to {limit - 1}, got {int(rows.min())} to {int(rows.max())}")
    return _posed(splat, mesh, vertices, scale, code)


def _posed(splat: Splat, mesh: Triangles, vertices: Tensor, scale: Tensor, code: Tensor) -> Placed:
    """The numba path."""
    from kernels.gaussian_pose.cpu import pose_rows, triangle_rows

    frames, count = len(vertices), len(splat.owner)
    out = Placed(*(torch.empty(frames, count, width) for width in (3, 4, 3, 3)))
    triangles, rest = mesh.triangles.numpy(), mesh.rest.detach().numpy()
    own = [tensor.detach().contiguous().numpy() for tensor in splat]
    rows = torch.empty(len(triangles), 14).numpy()
    corners, codes = vertices.detach().contiguous().numpy(), code.detach().contiguous().numpy()
    for b in range(frames):
        triangle_rows(corners[b], triangles, rows)
        frame = (corners[b], triangles, rows, rest, float(scale[b]), codes[b], *own, *(part[b].numpy() for part in out))

        def work(_: int, first: int, last: int, frame: tuple[object, ...] = frame) -> None:
            pose_rows(*frame, first, last)

        run_spans(work, cut(count, SPAN))
    return out


def gate_by_ring(points: Tensor, ring: Tensor, scale: Tensor, soft: float, room: float) -> Tensor:
    """How much [B, G], 0..1, of points [B, G, 2] a closed ring [B, R, 2] leaves to be seen of what lies behind it.

    The border is a sigmoid of width `soft` around a line `room` outside the ring, both in units of `scale` [B]; a ring that
    is shut has no room. Raises ShapeError, DtypeError, DeviceError.
    """
    sizes = {"B": len(points), "G": points.shape[1], "R": ring.shape[1]}
    check_shape("points", points, ("B", "G", 2), sizes)
    check_shape("ring", ring, ("B", "R", 2), sizes)
    check_shape("scale", scale, ("B",), sizes)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (points, ring, scale))
    if wanted or points.device.type != "cpu" or points.dtype != torch.float32:
        return gate_reference(points, ring, scale, soft, room)
    from kernels.gaussian_pose.cpu import gate_rows

    check_numbers(points.device, points=points, ring=ring, scale=scale)
    out = torch.empty(points.shape[:2])
    own, edges = points.detach().contiguous().numpy(), ring.detach().contiguous().numpy()
    for b in range(len(points)):
        gate_rows(own[b], edges[b], float(scale[b]), soft, room, out[b].numpy())
    return out
