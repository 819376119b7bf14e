"""Put a rendered lower face into its frame: colour matched at the rim, texture band kept, soft border."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

TEXTURE_SIGMA = 1.2  # pixels: border between the two bands
RIM_STEP = 2  # every second pixel measures the rim as well as all do
MIN_RING = 60.0  # weight (about pixels) below which the rim is too small to measure a colour on


def two_band(blend: NDArray[np.float32], nearest: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Low band of the blend, high band of `gain` parts nearest and 1 - gain parts blend; all [h, w, 3]."""
    # low(b) + gain (n - low(n)) + (1 - gain) (b - low(b)), with the one blur that is left when it is sorted
    apart = blend - nearest
    return np.asarray(blend + gain * (blur(apart) - apart), np.float32)


def blur(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian low band."""
    low = cv2.GaussianBlur(picture, (0, 0), TEXTURE_SIGMA, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(low, np.float32)


def match_rim(rendered: NDArray[np.float32], frame: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift `rendered` so that its colour at the mask's rim equals the frame's; all [h, w, 3], alpha [h, w].

    The shift is a plane over x and y for each channel (weighted least squares on the rim), so a light that falls
    from one side is followed too.
    """
    rim = rim_of(alpha)
    shift = rim.shift(frame[rim.at] - rendered[rim.at])
    x, y = across(alpha.shape)
    return rendered + (shift[0] + x[:, None] * shift[1]) + (y[:, None] * shift[2])[:, None]


@dataclass(frozen=True)
class Rim:
    """Pixels of a window where a mask is neither 0 nor 1, every `RIM_STEP`-th of them: there both pictures can be seen."""

    at: tuple[NDArray[np.intp], NDArray[np.intp]]  # rows [P] and columns [P]
    weight: NDArray[np.float32]  # [P]
    shape: tuple[int, ...]

    def among(self, share: NDArray[np.float32]) -> Rim:
        """The same rim, counting for less where the `share` [h, w] of the picture is less."""
        return replace(self, weight=self.weight * share[self.at])

    def shift(self, difference: NDArray[np.float32]) -> NDArray[np.float32]:
        """The plane through differences [P, 3] at the rim: [3, 3], rows 1, x and y (-0.5 to 0.5), columns RGB."""
        if self.weight.sum() * RIM_STEP**2 < MIN_RING:
            return np.zeros((3, 3), np.float32)
        x, y = across(self.shape)
        terms = np.stack([np.ones(len(self.weight), np.float32), x[self.at[1]], y[self.at[0]]])
        weighted = terms * self.weight
        normal = weighted @ terms.T + 0.02 * self.weight.sum() * np.diag([0.0, 1.0, 1.0])
        return np.asarray(np.linalg.solve(normal, weighted @ difference), np.float32)


def rim_of(alpha: NDArray[np.float32]) -> Rim:
    """The rim of a mask [h, w]."""
    some = alpha[::RIM_STEP, ::RIM_STEP]
    rim = some * (1 - some)
    rows, columns = np.nonzero(rim > 0.01)
    return Rim((rows * RIM_STEP, columns * RIM_STEP), rim[rows, columns], alpha.shape)


def across(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x [w] and y [h] from -0.5 to 0.5."""
    height, width = (np.arange(side, dtype=np.float32) / np.float32(side) - np.float32(0.5) for side in shape[:2])
    return width, height
