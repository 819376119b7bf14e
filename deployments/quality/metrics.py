"""Picture and landmark metrics: pure functions on arrays, the formula in each docstring.

Shapes: H, W a picture; T frames; P points. Masks are boolean [H, W]. Luma is float or uint8 in 0..255.
A metric without anything to measure is NaN (null in the report), never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]

EQUAL_DB = 100.0
"""PSNR of equal pictures: the formula gives infinity, which no mean survives."""

CODEC_NOISE = 24
"""Largest per-channel difference 0..255 that re-encoding alone explains at the default quality (`high`)."""

_SSIM_SIGMA, _SSIM_SIDE = 1.5, 11
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(a: Array, b: Array, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of `a` against `b` [H, W] or [H, W, 3], 0..255, inside `mask`.

    10 log10(255^2 / mean((a - b)^2)), at most 100 dB; NaN for an empty mask.
    """
    error = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    values = error if mask is None else error[mask]
    if values.size == 0:
        return float("nan")
    mean = float(values.mean(dtype=np.float64))
    return EQUAL_DB if mean == 0 else min(EQUAL_DB, float(10 * np.log10(255.0**2 / mean)))


def ssim_map(a: Array, b: Array) -> NDArray[np.float32]:
    """Structural similarity [H, W] of two lumas [H, W], 0..255 (Wang et al., 2004).

    (2 ma mb + C1)(2 sab + C2) / ((ma^2 + mb^2 + C1)(sa^2 + sb^2 + C2)); means m, variances s and covariance sab under a
    Gaussian of sigma 1.5 (11 x 11), C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.
    """
    x, y = a.astype(np.float32), b.astype(np.float32)

    def blur(z: NDArray[np.float32]) -> NDArray[np.float32]:
        smooth = cv2.GaussianBlur(z, (_SSIM_SIDE, _SSIM_SIDE), _SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)
        return smooth.astype(np.float32, copy=False)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    top = (2 * mx * my + _SSIM_C1) * (2 * vxy + _SSIM_C2)
    bottom = (mx * mx + my * my + _SSIM_C1) * (vx + vy + _SSIM_C2)
    return (top / bottom).astype(np.float32)


def ssim(a: Array, b: Array, mask: Mask | None = None) -> float:
    """Mean of `ssim_map` inside `mask`; -1..1, 1 = equal; NaN for an empty mask."""
    values = ssim_map(a, b) if mask is None else ssim_map(a, b)[mask]
    return float(values.mean()) if values.size else float("nan")


def sharpness(luma: Array) -> float:
    """Standard deviation of the 3 x 3 Laplacian of a luma [H, W]. The report gives out / reference: 1 = as sharp."""
    return float(cv2.Laplacian(luma.astype(np.float32), cv2.CV_32F).std()) if luma.size else float("nan")


def flicker_energy(before: Array, now: Array, after: Array) -> float:
    """Mean squared second temporal difference of three lumas [H, W]: mean((after - 2 now + before)^2).

    White noise of variance s^2 gives 6 s^2. The report gives the sum over frames out / reference: 1 = natural.
    """
    if now.size == 0:
        return float("nan")
    second = after.astype(np.float32) - 2 * now.astype(np.float32) + before.astype(np.float32)
    return float((second**2).mean(dtype=np.float64))


def agreement(a: Array, b: Array, mask: Mask) -> float:
    """Normalised cross-correlation of two lumas inside a mask: mean((a - ma)(b - mb)) / (sa sb); NaN where one is flat."""
    x, y = a[mask].astype(np.float64), b[mask].astype(np.float64)
    return correlation(x, y)


def correlation(x: Array, y: Array) -> float:
    """Pearson's r of two sequences [T]; NaN for fewer than 3 values or a constant one."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < 3:
        return float("nan")
    x, y = x[keep] - x[keep].mean(), y[keep] - y[keep].mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale > 1e-12 else float("nan")


def landmark_distance(out: Array, reference: Array, eyes: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """LMD per frame: (in % of the outer-eye distance [T], in pixels [T]).

    mean over points of |out - reference|, for lip points [T, P, 2] in pixels; percent = 100 pixels / |eyes[:, 0] -
    eyes[:, 1]| with the reference's outer eye corners `eyes` [T, 2, 2] (mesh points 33 and 263). NaN rows stay NaN.
    """
    pixels = np.linalg.norm(out.astype(np.float64) - reference, axis=-1).mean(-1)
    distance = np.linalg.norm(eyes[:, 0].astype(np.float64) - eyes[:, 1], axis=-1)
    return 100 * pixels / distance, pixels


def landmark_jerk(points: Array) -> NDArray[np.float64]:
    """Change of landmark velocity [T] of points [T, P, 2]: mean over P of |p(t) - 2 p(t-1) + p(t-2)|; NaN for t < 2.

    Value t belongs to the step into frame t, so a planted jump between frames t - 1 and t shows at t and t + 1.
    """
    jerk = np.full(len(points), np.nan)
    if len(points) >= 3:
        p = points.astype(np.float64)
        jerk[2:] = np.linalg.norm(p[2:] - 2 * p[1:-1] + p[:-2], axis=-1).mean(-1)
    return jerk


def border_statistic(series: Array, borders: Sequence[int], reach: int = 1) -> float:
    """How much the worst chunk border stands out: max over borders of the series there / its 99th percentile elsewhere.

    `series` [T] is a step measure (value t = step from t - 1 to t; NaN = not measured); `borders` holds the first frame
    of each chunk but the first; frames border .. border + reach count as "there". <= 1: no border is worse than what
    the inside does by itself in one frame of a hundred. NaN without a measured border or inside.
    """
    values = np.asarray(series, np.float64)
    at_border = np.zeros(len(values), bool)
    for border in borders:
        at_border[max(0, border) : border + reach + 1] = True
    measured = np.isfinite(values)
    there, inside = values[at_border & measured], values[~at_border & measured]
    if there.size == 0 or inside.size == 0:
        return float("nan")
    level = float(np.percentile(inside, 99))
    return float(there.max() / level) if level > 0 else float("nan")


def changed_pixels(out: Array, reference: Array, outside: Mask, threshold: int = CODEC_NOISE) -> tuple[int, int]:
    """(count, largest difference) outside the mask, of decoded pictures [H, W, 3] uint8.

    A pixel counts as changed when max over channels of |out - reference| > threshold. Decoded pictures carry the noise
    of two encodings, hence the threshold; equality to the bit can only be checked before encoding.
    """
    difference = cv2.absdiff(out, reference)
    red, green, blue = cv2.split(difference)
    kept = cv2.max(cv2.max(red, green), blue) * outside
    return int(np.count_nonzero(kept > threshold)), int(kept.max(initial=0))
