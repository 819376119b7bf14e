"""One frame: what is decided in the decoder's window, carried out in the frame's own pixels.

The decoder looks at a small window; its shares of the pictures and its correction are smooth there, so they are
enlarged, and the looked-up pictures themselves are read at the size they were filmed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Patch, Picture
from deployments.engines.vasa1.appearance import Mix, load_appearance
from deployments.engines.vasa1.config import Vasa1Config
from deployments.engines.vasa1.fit import APPEARANCE, WEIGHTS, load_learned
from deployments.engines.vasa1.lessons import clues_of, motion_of, padded
from deployments.engines.vasa1.sample import Sources, Told, look_up, make_sample
from deployments.face.composite import two_band
from deployments.retrieval.bank import Bank
from deployments.retrieval.plan import Plan, PlanKey, plan_of
from deployments.retrieval.settle import settle
from deployments.retrieval.warp import Place, blend, enlarge, warp
from deployments.retrieval.window import Floats, Window, frame_view, shrunk, to_window
from kernels.mesh_warp import MeshRaster

if TYPE_CHECKING:
    from deployments.engines.vasa1.decode import FaceDecoder


class Studio:
    """What the frames of a job share: the plan, and what was learned of the person with what it says of each frame."""

    def __init__(self, key: PlanKey, config: Vasa1Config) -> None:
        self.plan: Plan = plan_of(key)
        learned = load_learned(key.avatar.path)
        self.painted = learned.painted and bool((self.plan.row >= 0).any())
        if not self.painted:
            return
        bank = self.plan.bank
        self.sources = Sources(bank, learned.small, learned.window)
        self.appearance = load_appearance(key.avatar.path / APPEARANCE)
        self.decoder = load_decoder(key.avatar.path, config) if learned.decoder else None
        wanted, angles = self.plan.wanted, self.plan.faces.angles()
        choice = self.plan.choice
        mix_of_row = Mix(choice.rows, choice.weights)
        self.codes = self.appearance.guess(clues_of(bank, wanted, angles), mix_of_row.of(self.appearance.codes))
        self.shares = learned.trust.shares(mix_of_row.gap(bank, wanted, angles, config.pose_weight))
        self.motion = motion_of(bank, wanted, angles)
        self.code_size = config.decoder.code

    def told(self, row: int, matrix: NDArray[np.float64]) -> Told:
        """What is decided for a row of the plan."""
        plan, choice = self.plan, self.plan.choice
        target = to_window(matrix, plan.pixels(row))
        return Told(target, choice.rows[row], choice.weights[row], self.codes[row], float(self.shares[row]))

    def condition(self, row: int) -> Floats:
        """What the decoder is told of a row of the plan [K + 11]."""
        return np.concatenate([padded(self.codes[row], self.code_size), self.motion[row]])


_studios: dict[PlanKey, Studio] = {}


def studio_of(key: PlanKey, config: Vasa1Config) -> Studio:
    """The studio of a job; a worker keeps the last one, since it renders many chunks of the same job."""
    if key not in _studios:
        made = Studio(key, config)
        _studios.clear()
        _studios[key] = made
    return _studios[key]


@lru_cache(maxsize=2)
def load_decoder(folder: Path, config: Vasa1Config) -> FaceDecoder:
    """The learned decoder of an avatar; brings torch."""
    from deployments.engines.vasa1.decode import FaceDecoder

    return FaceDecoder(folder / WEIGHTS, config.decoder)


def render_patch(studio: Studio, picture: Picture, config: Vasa1Config) -> Patch | None:
    """The patch of one frame; None where nothing is to change or the face is off screen."""
    plan = studio.plan
    found = plan.place(picture)
    if found is None:
        return None
    row, here = found
    frame = picture.window(here.x, here.y, here.alpha.shape[1], here.alpha.shape[0]).astype(np.float32)
    rows, correction = plan.choice.rows[row], None
    if studio.painted:
        fields = decide(studio, picture, row, here)
        (coarse, nearest), correction = mix(plan.bank, here.raster, rows, fields), fields.correction
    else:
        coarse, nearest = blend(plan.bank, here.raster, rows, plan.choice.weights[row])
    return settle(here, frame, two_band(coarse, nearest, config.texture_gain), correction)


@dataclass(frozen=True)
class Fields:
    """What was decided in the window, at the pixels of a place."""

    shares: Floats  # [h, w, 5] of the looked-up pictures, sum 1
    lift: Floats  # [h, w, 3] what the painted picture adds to their mix, 0..255
    correction: Floats | None  # [h, w, 3] and the decoder to the result, 0..255


def decide(studio: Studio, picture: Picture, row: int, here: Place) -> Fields:
    """Mix and correction of one frame."""
    window, stable = studio.sources.window, studio.plan.bank.stable
    matrix = window.matrix(stable, studio.plan.pixels(row))
    seen = (studio.sources, studio.appearance, studio.told(row, matrix), view_of(picture, matrix, window))
    shape, weights = here.alpha.shape, studio.plan.choice.weights[row]
    back = cv2.invertAffineTransform(matrix - np.array([[0, 0, here.x], [0, 0, here.y]]))
    if studio.decoder is None:
        lift = 255 * onto(look_up(*seen).lift, back, shape)
        return Fields(np.broadcast_to(weights, (*shape, len(weights))), studio.shares[row] * lift, None)
    sample = make_sample(*seen)
    lift = 255 * onto(sample.lift, back, shape)
    shares, correction = studio.decoder(sample, studio.condition(row))
    placed = onto(shares, back, shape)
    # the painted picture is the mean of the others and what it adds: so they are shown as fine as they were filmed
    looked_up, painted = placed[..., :-1], placed[..., -1:]
    return Fields(looked_up + painted * weights, painted * lift, 255 * onto(correction, back, shape))


def onto(fields: Floats, matrix: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """Window fields [C, H, W] at the pixels of a place [h, w, C], C a multiple of 3; `matrix` is T_window_place."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(fields[k : k + 3].transpose(1, 2, 0)),
            matrix,
            shape[::-1],
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for k in range(0, len(fields), 3)
    ]
    return np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1), np.float32)


def view_of(picture: Picture, matrix: NDArray[np.float64], window: Window) -> Floats:
    """The frame seen through the window [H, W, 3], 0..255; made smaller by areas first, as the bank's pictures were."""
    corners = np.array([(x, y) for x in (-1, window.width) for y in (-1, window.height)]) @ matrix[:, :2].T + matrix[:, 2]
    high, wide = picture.size()
    x0, y0 = (int(v) for v in np.clip(np.floor(corners.min(0)), 0, (wide - 2, high - 2)))
    x1, y1 = (int(v) for v in np.clip(np.ceil(corners.max(0)) + 1, (x0 + 2, y0 + 2), (wide, high)))
    part = picture.window(x0, y0, x1 - x0, y1 - y0)
    local = matrix - np.array([[0, 0, x0], [0, 0, y0]])
    size = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if size > 1.0:
        shape = (max(1, round((x1 - x0) / size)), max(1, round((y1 - y0) / size)))
        small = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)
        scale = np.array([small.shape[1] / part.shape[1], small.shape[0] / part.shape[0]])
        return frame_view(np.asarray(small, np.uint8), shrunk(local, scale), window)
    return frame_view(part, local, window)


def mix(bank: Bank, raster: MeshRaster, rows: NDArray[np.int32], fields: Fields) -> tuple[Floats, Floats]:
    """`retrieval.warp.blend` with a share at every pixel, and what the painted picture adds."""
    nearest = warp(bank, raster, int(rows[0]), cv2.INTER_CUBIC)
    height, width = raster.index.shape
    half = raster.window(slice(0, height, 2), slice(0, width, 2))
    others = np.zeros((*half.index.shape, 3), np.float32)
    for k, row in enumerate(rows[1:], start=1):
        others += fields.shares[::2, ::2, k, None] * warp(bank, half, int(row), cv2.INTER_LINEAR)
    return fields.shares[..., :1] * nearest + enlarge(others, width, height) + fields.lift, nearest
