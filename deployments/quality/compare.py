"""One pass over the pictures of a result and, frame by frame beside it, of its source. Holds three lumas, never a clip."""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.face.crop import Window
from deployments.quality import metrics
from deployments.quality.regions import (
    LOWER_FACE,
    face_window,
    lower_face,
    mouth_box,
    mouth_view,
    outside_face,
    upper_face,
    window_around,
)

Luma = NDArray[np.uint8]
Rgb = NDArray[np.uint8]

COLUMNS = (
    "mask_psnr", "mask_ssim", "mouth_psnr", "mouth_ssim", "upper_psnr", "upper_agreement",
    "sharp_out", "sharp_reference", "flicker_out", "flicker_reference", "step_out", "step_reference",
    "outside_changed", "outside_largest",
)  # fmt: skip
SSIM_MARGIN = 6
VIEW_SIDE = 176
JPEG_QUALITY = 88
DIFFERENCE_GAIN = 4


class PicturePass:
    """Collects one number per frame and column, and small pictures of chosen frames.

    Regions come from `points` [T, 478, 3] where `usable` [T]; frames without a face keep NaN.
    """

    def __init__(self, points: NDArray[np.float32], usable: NDArray[np.bool_], shown: Collection[int] = ()) -> None:
        self.columns = {name: np.full(len(usable), np.nan) for name in COLUMNS}
        self.views: list[dict[str, Any]] = []
        self._points, self._usable, self._shown = points, usable, frozenset(shown)
        self._out: list[Luma] = []
        self._reference: list[Luma] = []

    def step(self, index: int, out: Rgb, reference: Rgb | None) -> None:
        """Measure frame `index` (in order, without gaps): upright pictures [H, W, 3] of equal size."""
        self._out = [*self._out[-2:], luma(out)]
        if reference is not None:
            self._reference = [*self._reference[-2:], luma(reference)]
        if index >= 2 and self._usable[index - 1]:
            self._flicker(index - 1)
        if not self._usable[index]:
            return
        points = self._points[index]
        self._temporal_step(index, points)
        if reference is not None:
            self._paired(index, points, out, reference)
        if index in self._shown:
            self.views.append(view(index, points, out, reference))

    def _flicker(self, middle: int) -> None:
        box = mouth_box(self._points[middle], self._out[-1].shape).slices
        self.columns["flicker_out"][middle] = metrics.flicker_energy(*(y[box] for y in self._out))
        if len(self._reference) == 3:
            self.columns["flicker_reference"][middle] = metrics.flicker_energy(*(y[box] for y in self._reference))

    def _temporal_step(self, index: int, points: NDArray[np.float32]) -> None:
        window = lower_window(points, self._out[-1].shape)
        mask = lower_face(points, window)
        for name, lumas in (("step_out", self._out), ("step_reference", self._reference)):
            if len(lumas) >= 2 and mask.any():
                difference = cv2.absdiff(lumas[-1][window.slices], lumas[-2][window.slices])
                self.columns[name][index] = float(difference[mask].mean())

    def _paired(self, index: int, points: NDArray[np.float32], out: Rgb, reference: Rgb) -> None:
        row = {}
        window, mouth = lower_window(points, out.shape), mouth_box(points, out.shape)
        mask, in_mouth = lower_face(points, window), inside(mouth, window)
        row["mask_psnr"] = metrics.psnr(out[window.slices], reference[window.slices], mask)
        row["mouth_psnr"] = metrics.psnr(out[mouth.slices], reference[mouth.slices])
        similarity = metrics.ssim_map(self._out[-1][window.slices], self._reference[-1][window.slices])
        for name, where in (("mask_ssim", mask), ("mouth_ssim", in_mouth)):
            row[name] = float(similarity[where].mean()) if where.any() else float("nan")
        row["sharp_out"] = metrics.sharpness(self._out[-1][mouth.slices])
        row["sharp_reference"] = metrics.sharpness(self._reference[-1][mouth.slices])
        face = face_window(points, out.shape)
        upper = upper_face(points, face)
        row["upper_psnr"] = metrics.psnr(out[face.slices], reference[face.slices], upper)
        row["upper_agreement"] = metrics.agreement(self._out[-1][face.slices], self._reference[-1][face.slices], upper)
        count, largest = metrics.changed_pixels(out, reference, outside_face(points, out.shape))
        row["outside_changed"], row["outside_largest"] = count, largest
        for name, value in row.items():
            self.columns[name][index] = value


def luma(rgb: Rgb) -> Luma:
    """BT.601 luma [H, W] uint8 of RGB [H, W, 3]."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def lower_window(points: NDArray[np.float32], shape: tuple[int, ...]) -> Window:
    """Rectangle around the lower face, with room for the SSIM window."""
    return window_around(points[list(LOWER_FACE)], SSIM_MARGIN, shape)


def inside(inner: Window, outer: Window) -> NDArray[np.bool_]:
    """Mask [outer.height, outer.width] of the part of `outer` that `inner` covers."""
    mask = np.zeros((outer.height, outer.width), bool)
    y, x = inner.y - outer.y, inner.x - outer.x
    mask[max(0, y) : max(0, y + inner.height), max(0, x) : max(0, x + inner.width)] = True
    return mask


def view(index: int, points: NDArray[np.float32], out: Rgb, reference: Rgb | None) -> dict[str, Any]:
    """Mouth pictures of a frame as base64 JPEG: out, reference, and 4 x their difference."""
    where = mouth_view(points, out.shape).slices
    pictures = {"frame": index, "out": jpeg(out[where]), "reference": None, "difference": None}
    if reference is not None:
        difference = cv2.absdiff(out[where], reference[where]).astype(np.uint16) * DIFFERENCE_GAIN
        pictures["reference"] = jpeg(reference[where])
        pictures["difference"] = jpeg(np.minimum(difference, 255).astype(np.uint8))
    return pictures


def jpeg(rgb: Rgb) -> str:
    """A square picture at 176 x 176 as base64 of a JPEG."""
    shrinking = rgb.shape[0] > VIEW_SIDE
    small = cv2.resize(rgb, (VIEW_SIDE, VIEW_SIDE), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "OpenCV could not encode a JPEG"
    return base64.b64encode(data.tobytes()).decode("ascii")
