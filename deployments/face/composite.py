"""Put a rendered lower face into its frame: colour matched at the rim, texture band kept, soft border."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TEXTURE_SIGMA = 1.2  # pixels: border between the two bands
MIN_RING = 60.0  # weight (about pixels) below which the rim is too small to measure a colour on


def two_band(blend: NDArray[np.float32], nearest: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Low band of the blend, high band of `gain` parts nearest and 1 - gain parts blend; all [h, w, 3]."""
    mix = gain * (nearest - blur(nearest)) + (1 - gain) * (blend - blur(blend))
    return blur(blend) + mix


def blur(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian low band."""
    return cv2.GaussianBlur(picture, (0, 0), TEXTURE_SIGMA, borderType=cv2.BORDER_REPLICATE)


def match_rim(rendered: NDArray[np.float32], frame: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift `rendered` so that its colour at the mask's rim equals the frame's; all [h, w, 3], alpha [h, w].

    The shift is a plane over x and y for each channel (weighted least squares on the rim), so a light that falls
    from one side is followed too.
    """
    rim = alpha * (1 - alpha)
    if rim.sum() < MIN_RING:
        return rendered
    height, width = alpha.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], axis=-1)
    flat, weight = terms.reshape(-1, 3), rim.reshape(-1, 1)
    keep = weight[:, 0] > 0.01
    a = flat[keep]
    w = weight[keep]
    difference = (frame - rendered).reshape(-1, 3)[keep]
    normal = a.T @ (w * a) + 0.02 * w.sum() * np.diag([0.0, 1.0, 1.0])
    plane = np.linalg.solve(normal, a.T @ (w * difference))
    return rendered + terms @ plane.astype(np.float32)
