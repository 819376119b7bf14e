"""An avatar for others' eyes: the `.ply` that public splat viewers open, and a picture of the head turning."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.gaussian_splatting.avatar import Head, load_head
from deployments.engines.gaussian_splatting.network import Pose, Posed, draw, pose
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from deployments.records import write_atomic

HARMONIC = 0.28209479177387814  # of degree 0: colours of a .ply are stored as its coefficient
OPEN_SHARE = 0.9  # of the frames have a more closed mouth than the one that is exported: teeth are to be seen
YAWS = (-50, -30, -15, 0, 15, 30, 50)  # degrees
SIDE = 320  # pixels of one picture of the turntable
EYES = 0.42  # eye distance in sides
FIELDS = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


def export_avatar(folder: Path, ply: Path, turntable: Path | None = None) -> None:
    """Write the avatar of `folder` as `.ply`, and a strip of views as PNG. Raises WeightsError, OSError."""
    head = load_head(folder)
    write_atomic(ply, ply_bytes(posed_at(head, 0.0, 1.0)))
    if turntable is not None:
        done, data = cv2.imencode(".png", cv2.cvtColor(views(head), cv2.COLOR_RGB2BGR))
        assert done, "OpenCV could not encode a PNG"
        write_atomic(turntable, data.tobytes())


def posed_at(head: Head, yaw: float, scale: float) -> Posed:
    """The head with an open mouth, turned by `yaw` radians; `scale` units an eye distance, origin between the eyes."""
    coefficients = head.bank.coefficients
    shapes = head.bank.shape.shape(coefficients)
    gap = shapes[:, LOWER_INNER_LIP, 1] - shapes[:, UPPER_INNER_LIP, 1]
    row = int(np.argsort(gap)[int(OPEN_SHARE * (len(gap) - 1))])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    vertices = scale * head.rig.vertices(shapes[row : row + 1]) @ turn.T
    code = head.coder.encode(coefficients[row : row + 1], head.bank.angles.mean(0, keepdims=True))
    arrays = (vertices, np.array([scale]), code)
    with torch.inference_mode():
        return pose(head.gaussians, head.binding, Pose(*(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays)))


def ply_bytes(posed: Posed) -> bytes:
    """Binary little-endian PLY in the layout of Kerbl et al. 2023 (degree 0): x right, y down, z away."""
    opacity = posed.opacities[0].clamp(1e-4, 1 - 1e-4)
    columns = [
        posed.means[0], torch.zeros_like(posed.means[0]), (posed.colours[0] - 0.5) / HARMONIC, torch.logit(opacity)[:, None],
        posed.scales[0].clamp_min(1e-9).log(), posed.quats[0],
    ]  # fmt: skip
    rows = torch.cat(columns, 1).numpy().astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"property float {name}" for name in FIELDS] + ["end_header", ""]
    return "\n".join(lines).encode() + rows.tobytes()


def views(head: Head) -> NDArray[np.uint8]:
    """The head from several sides [SIDE, SIDE * views, 3]."""
    scale = EYES * SIDE
    pictures = []
    for yaw in YAWS:
        posed = posed_at(head, float(np.deg2rad(yaw)), scale)
        picture = draw(posed, torch.tensor([[-SIDE / 2, -SIDE * 0.1]]), SIDE, SIDE)
        white = picture.colours[0] + (1 - picture.alpha[0, ..., None])
        pictures.append((white.clamp(0, 1) * 255).round().byte().numpy())
    return np.hstack(pictures)
