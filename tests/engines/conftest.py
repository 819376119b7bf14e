"""A talking clip that everybody may use: scikit-image's astronaut, her mouth opened and closed by a mesh warp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from deployments.contracts import Avatar, Clip, Track
from deployments.engines.video_rewrite.engine import VideoRewrite
from deployments.face.mesh import build_mesh
from deployments.face.pose import canonical
from deployments.face.track import track_clip, track_image
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.probe import probe
from kernels.mesh_warp import rasterize

FRAMES = 36


@dataclass(frozen=True)
class Talking:
    """A clip, its track, and how far the lower lip was moved in each frame (eye distances)."""

    clip: Clip
    track: Track
    opening: np.ndarray
    avatar: Avatar


def talking_frames(rgb: np.ndarray, opening: np.ndarray) -> Iterator[np.ndarray]:
    """The picture with the lower lip and jaw moved down and the head swaying."""
    faces = canonical(track_image(rgb).landmarks)
    mesh = build_mesh(faces.points)
    own = mesh.vertices(faces.points)[0]
    chin = np.clip((own[:, 1] - own[13, 1]) / 0.05, 0, 1) * mesh.reach
    source = faces.to_pixels(own, 0)[:, :2]
    for k, amount in enumerate(opening):
        moved = own + chin[:, None] * (0, amount, 0)
        raster = rasterize(mesh.triangles, faces.to_pixels(moved, 0)[:, :2], *rgb.shape[:2])
        grid = np.stack(np.meshgrid(*map(np.arange, rgb.shape[1::-1])), -1).astype(np.float32)
        values = np.where(raster.index[..., None] >= 0, raster.values(source, fill=0.0), grid)
        picture = cv2.remap(rgb, values, None, cv2.INTER_CUBIC)
        sway = np.array([[1, 0, 4 * np.sin(k / 7)], [0, 1, 2 * np.cos(k / 5)]])
        yield cv2.warpAffine(picture, sway, rgb.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Talking:
    """Clip, track and fitted avatar."""
    folder: Path = tmp_path_factory.mktemp("talking")
    opening = 0.08 + 0.08 * np.sin(np.arange(FRAMES) * 2 * np.pi / 12)
    rgb = data.astronaut()[:320, 60:380]
    encode_new(320, 320, Fraction(25), talking_frames(rgb, opening), None, EncodeOptions("high"), folder / "talk.mp4")
    clip = probe(folder / "talk.mp4")
    track = track_clip(clip, passes=1)
    return Talking(clip, track, opening, VideoRewrite().fit(clip, track, folder / "avatar"))
