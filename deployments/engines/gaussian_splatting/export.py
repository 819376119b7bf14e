"""An avatar for others' eyes: the `.ply` that public splat viewers open, and a picture of the head turning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.engines.gaussian_splatting.avatar import Head, load_head
from deployments.engines.gaussian_splatting.eyes import LIDS
from deployments.engines.gaussian_splatting.face import NAME as FACE
from deployments.engines.gaussian_splatting.face import load_face
from deployments.engines.gaussian_splatting.face_shots import irises
from deployments.engines.gaussian_splatting.filmed import load_filmed
from deployments.engines.gaussian_splatting.network import Binding, Gaussians, Pose, Posed, draw, pose
from deployments.face.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from deployments.face.mesh import FACE_POINTS
from deployments.records import write_atomic

HARMONIC = 0.28209479177387814  # of degree 0: colours of a .ply are stored as its coefficient
OPEN_SHARE = 0.9  # of the frames have a more closed mouth than the one that is exported: teeth are to be seen
YAWS = (-50, -30, -15, 0, 15, 30, 50)  # degrees
SIDE = 320  # pixels of one picture of the turntable
EYES = 0.42  # eye distance in sides, where it is the lower face
ROOM = 0.88  # height of a whole face in sides
FIELDS = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


@dataclass(frozen=True)
class Bust:
    """What is exported: Gaussians at one moment, the rig's vertices [V, 3] in the head frame and the expression code [1, C]."""

    gaussians: Gaussians
    binding: Binding
    vertices: NDArray[np.float32]
    code: NDArray[np.float32]

    def posed(self, yaw: float, scale: float) -> Posed:
        """Turned by `yaw` radians; `scale` units an eye distance, origin between the eyes."""
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        arrays = (scale * self.vertices[None] @ turn.T, np.array([scale]), self.code)
        at = Pose(*(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays))
        with torch.inference_mode():
            return pose(self.gaussians, self.binding, at)


def export_avatar(folder: Path, ply: Path, turntable: Path | None = None) -> None:
    """Write the avatar of `folder` as `.ply`, and a strip of views as PNG: the whole face where it was learned, else the
    lower one. Raises WeightsError, OSError."""
    head = load_head(folder)
    bust = whole_face(folder) if (folder / FACE).is_file() else lower_face(head)
    write_atomic(ply, ply_bytes(bust.posed(0.0, 1.0)))
    if turntable is not None:
        done, data = cv2.imencode(".png", cv2.cvtColor(views(bust), cv2.COLOR_RGB2BGR))
        assert done, "OpenCV could not encode a PNG"
        write_atomic(turntable, data.tobytes())


def lower_face(head: Head) -> Bust:
    """The lower face with an open mouth."""
    coefficients = head.bank.coefficients
    shapes = head.bank.shape.shape(coefficients)
    gap = shapes[:, LOWER_INNER_LIP, 1] - shapes[:, UPPER_INNER_LIP, 1]
    row = int(np.argsort(gap)[int(OPEN_SHARE * (len(gap) - 1))])
    code = head.coder.encode(coefficients[row : row + 1], head.bank.angles.mean(0, keepdims=True))
    return Bust(head.gaussians, head.binding, head.rig.vertices(shapes[row : row + 1])[0], code)


def whole_face(folder: Path) -> Bust:
    """The whole face at the moment with the most open eyes among those with an open mouth. Raises WeightsError."""
    face, filmed = load_face(folder), load_filmed(folder)
    gap = filmed.vertices[:, LOWER_INNER_LIP, 1] - filmed.vertices[:, UPPER_INNER_LIP, 1]
    lids = sum(filmed.vertices[:, ring[12], 1] - filmed.vertices[:, ring[4], 1] for ring in LIDS)
    row = int(np.argmax(np.where(gap >= np.quantile(gap, 1 - 2 * (1 - OPEN_SHARE)), lids, -np.inf)))
    iris = irises(filmed.iris, face.rig, filmed.rotation, filmed.scale, filmed.translation)
    rows = slice(row, row + 1)
    return Bust(face.gaussians, face.binding, face.rig.whole(filmed.vertices[rows], iris[rows])[0], filmed.codes[rows])


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


def views(bust: Bust) -> NDArray[np.uint8]:
    """The head from several sides [SIDE, SIDE * views, 3]."""
    scale, top = EYES * SIDE, float(np.ptp(bust.vertices[:FACE_POINTS, 1]))
    whole = len(bust.binding.lids) > 0
    scale = min(scale, ROOM * SIDE / top) if whole else scale
    corner = [-SIDE / 2, scale * float(bust.vertices[:FACE_POINTS, 1].min() + top / 2) - SIDE / 2 if whole else -SIDE * 0.1]
    pictures = []
    for yaw in YAWS:
        picture = draw(bust.posed(float(np.deg2rad(yaw)), scale), torch.tensor([corner]), SIDE, SIDE)
        white = picture.colours[0] + (1 - picture.alpha[0, ..., None])
        pictures.append((white.clamp(0, 1) * 255).round().byte().numpy())
    return np.hstack(pictures)
