"""Between stored YUV and upright RGB, by the clip's own tags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip

FULL_RANGE = 2
LUMA = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    4: (0.30, 0.11),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
SWS_709, SWS_601, SWS_2020 = 1, 5, 9
HD_LINES = 720  # untagged clips of at least this many lines are BT.709, smaller ones BT.601


@dataclass(frozen=True)
class ColorRule:
    """Matrix and range of a clip."""

    space: int  # FFmpeg's matrix number, never "unspecified"
    full: bool
    depth: int

    def difference_matrix(self) -> NDArray[np.float32]:
        """[3, 3]: a difference of RGB (0..255) to the difference of stored Y, Cb, Cr (no offsets: they cancel)."""
        kr, kb = LUMA[self.space]
        kg = 1 - kr - kb
        y = np.array([kr, kg, kb])
        cb = (np.array([0, 0, 1]) - y) / (2 * (1 - kb))
        cr = (np.array([1, 0, 0]) - y) / (2 * (1 - kr))
        scale = (1.0, 1.0) if self.full else (219 / 255, 224 / 255)
        steps = (2**self.depth - 1) / 255 if self.full else 2 ** (self.depth - 8)
        return (np.stack([y * scale[0], cb * scale[1], cr * scale[1]]) * steps).astype(np.float32)

    def sws_space(self) -> int:
        """The number that FFmpeg's scaler uses for this matrix."""
        return {1: SWS_709, 9: SWS_2020, 10: SWS_2020, 7: 7, 4: 4}.get(self.space, SWS_601)


def color_rule(clip: Clip) -> ColorRule:
    """Rule of a clip; what its tags do not say follows its size."""
    space = clip.color.get("space", 2)
    if space not in LUMA:
        space = 1 if min(clip.width, clip.height) >= HD_LINES else 6
    full = clip.color.get("range") == FULL_RANGE or clip.pix_fmt.startswith("yuvj")
    return ColorRule(space, full, 10 if clip.bit_depth > 8 else 8)
