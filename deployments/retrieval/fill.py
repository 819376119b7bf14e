"""Fill the bank from the template clip. Nothing is trained: the pictures are what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Picture, Progress, Span, Track
from deployments.errors import NoFaceError
from deployments.face.landmarks import LIPS_OUTER
from deployments.face.mesh import FaceMesh, build_mesh
from deployments.face.pose import CanonicalFaces, canonical, stable_mean
from deployments.face.retarget import fit_shape
from deployments.media.decode import decode
from deployments.motion.lip_space import LipSpace
from deployments.retrieval.bank import PIXELS, Bank, save_bank
from deployments.retrieval.config import RetrievalConfig

MIN_FRAMES = 5
DECODE_THREADS = 2  # a fit is one piece of work; the other cores wait for it


def fill_bank(clip: Clip, track: Track, folder: Path, config: RetrievalConfig, progress: Progress) -> Bank:
    """Learn the bank of a clip into `folder`. Raises NoFaceError under 5 usable frames."""
    usable = np.flatnonzero(track.usable)
    if len(usable) < MIN_FRAMES:
        raise NoFaceError(f"{clip.path.name}: an avatar needs {MIN_FRAMES} frames with a usable face, found {len(usable)}")
    stable = stable_mean(track.landmarks, usable).astype(np.float32)
    faces = canonical(track.landmarks, stable, usable)
    coefficients = LipSpace.load().encode(faces.points)
    mesh = build_mesh(faces.points)
    shape = fit_shape(mesh.vertices(faces.points), coefficients)
    pixels = vertex_pixels(mesh, faces)
    size = picture_size(mesh, pixels, config)
    kept = spread_out(len(usable), max(MIN_FRAMES, config.bank_bytes // (size[0] * size[1] * 3)))
    corner = np.floor(pixels[kept][:, np.unique(mesh.triangles)].min(1)).astype(int) - config.margin
    pictures, code = store_pictures(clip, usable[kept], corner, size, track, folder, config, progress)
    bank = Bank(
        frames=usable[kept].astype(np.int32),
        corner=corner.astype(np.int32),
        vertices=(pixels[kept] - corner[:, None]).astype(np.float32),
        coefficients=coefficients[kept],
        angles=faces.angles()[kept],
        code=code,
        light=np.zeros((len(kept), 3), np.float32) if track.light is None else track.light[usable[kept]],
        pictures=pictures,
        stable=stable,
        mesh=mesh,
        shape=shape,
    )
    save_bank(bank, folder, {"clip": clip.digest, "frames": len(kept)})
    return bank


def vertex_pixels(mesh: FaceMesh, faces: CanonicalFaces) -> NDArray[np.float32]:
    """Mesh vertices [T, U, 2] in pixels of their frames."""
    vertices = mesh.vertices(faces.points)
    return (faces.scale[:, None, None] * (vertices @ faces.rotation.transpose(0, 2, 1)) + faces.translation[:, None])[..., :2]


def picture_size(mesh: FaceMesh, pixels: NDArray[np.float32], config: RetrievalConfig) -> tuple[int, int]:
    """Height and width of the stored pictures: the largest mesh and a margin."""
    used = pixels[:, np.unique(mesh.triangles)]
    extent = np.ceil((used.max(1) - used.min(1)).max(0)).astype(int) + 2 * config.margin + 1
    return int(extent[1]), int(extent[0])


def spread_out(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` rows, evenly spread."""
    return np.arange(count) if count <= limit else np.unique(np.linspace(0, count - 1, limit).astype(np.int64))


def store_pictures(
    clip: Clip,
    frames: NDArray[np.int64],
    corner: NDArray[np.int64],
    size: tuple[int, int],
    track: Track,
    folder: Path,
    config: RetrievalConfig,
    progress: Progress,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Write the lower-face pictures [F, h, w, 3] and return them with the mouth codes [F, C]."""
    height, width = size
    pictures = np.memmap(folder / PIXELS, np.uint8, "w+", shape=(len(frames), height, width, 3))
    thumbs = np.empty((len(frames), config.code_side * config.code_side), np.float32)
    row = 0
    for picture in decode(clip, Span(int(frames[0]), int(frames[-1]) + 1), DECODE_THREADS):
        if picture.index != frames[row]:
            continue
        pictures[row] = cut(picture, int(corner[row, 0]), int(corner[row, 1]), width, height)
        thumbs[row] = mouth_thumb(pictures[row], track.landmarks[frames[row], :, :2] - corner[row], config.code_side)
        row += 1
        progress("fit", row, len(frames))
    pictures.flush()
    return pictures, mouth_code(thumbs, config.code_size)


def cut(picture: Picture, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """A window of the picture [height, width, 3]; pixels beyond the border repeat it."""
    high, wide = picture.size()
    rows, columns = np.clip(np.arange(y, y + height), 0, high - 1), np.clip(np.arange(x, x + width), 0, wide - 1)
    part = picture.window(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    return part if part.shape[:2] == (height, width) else part[(rows - rows[0])[:, None], (columns - columns[0])[None]]


def mouth_thumb(rgb: NDArray[np.uint8], points: NDArray[np.floating[Any]], side: int) -> NDArray[np.float32]:
    """Grey thumbnail [side * side] of the mouth, turned upright and scaled by the eye distance."""
    eyes = points[263, :2] - points[33, :2]
    center = points[list(LIPS_OUTER), :2].mean(0)
    reach = float(np.hypot(*eyes)) * 0.75 / side
    turn = reach * np.array([[eyes[0], -eyes[1]], [eyes[1], eyes[0]]]) / np.hypot(*eyes)
    matrix = np.concatenate([turn, (center - turn @ [side / 2, side / 2])[:, None]], axis=1)
    thumb = cv2.warpAffine(
        rgb, matrix, (side, side), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY).astype(np.float32).reshape(-1)


def mouth_code(thumbs: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """PCA code [F, size] of mouth thumbnails, scaled so that a typical frame has length 0.1 (eye distances)."""
    centred = thumbs - thumbs.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    code = u[:, :size] * s[:size]
    typical = float(np.sqrt((code**2).sum(1).mean()))
    padded = np.zeros((len(thumbs), size), np.float32)
    padded[:, : code.shape[1]] = 0.1 * code / max(typical, 1e-6)
    return padded
