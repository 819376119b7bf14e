"""Put a rendered lower face into its frame: colour matched at the rim, texture band kept, soft border."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TEXTURE_SIGMA = 1.2  # pixels: border between the two bands
RIM_STEP = 2  # every second pixel measures the rim as well as all do
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
    sparse = slice(None, None, RIM_STEP)
    rim = (alpha * (1 - alpha))[sparse, sparse]
    if rim.sum() * RIM_STEP**2 < MIN_RING:
        return rendered
    height, width = alpha.shape
    x = np.arange(width, dtype=np.float32) / width - 0.5
    y = np.arange(height, dtype=np.float32)[:, None] / height - 0.5
    rows, columns = np.nonzero(rim > 0.01)
    w = rim[rows, columns][:, None]
    terms = np.stack([np.ones(len(rows), np.float32), x[sparse][columns], y[sparse, 0][rows]], axis=1)
    difference = (frame[sparse, sparse] - rendered[sparse, sparse])[rows, columns]
    normal = terms.T @ (w * terms) + 0.02 * w.sum() * np.diag([0.0, 1.0, 1.0])
    plane = np.linalg.solve(normal, terms.T @ (w * difference)).astype(np.float32)
    return rendered + (plane[0] + x[None, :, None] * plane[1] + y[:, :, None] * plane[2])
