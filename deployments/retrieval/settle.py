"""Put a new lower face on a frame whose own jaw line, neck and hair follow it: no second outline beside the new one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Patch
from deployments.face.composite import rim_of
from deployments.face.mesh import smoothstep
from deployments.retrieval.warp import STILL, Place, longest
from kernels.lay_over import lay_over

MOVED = 0.6  # pixels from which on the moved picture shows alone: less is not worth being sampled anew

Floats = NDArray[np.float32]


def settle(here: Place, frame: NDArray[Any], mouth: Floats, correction: Floats | None = None) -> Patch:
    """The patch of a new picture `mouth` [h, w, 3] in the window `frame` [h, w, 3] of a place, its colours matched at the rim.

    Around the shown part the frame's own pixels go with the mesh, so that cheek, jaw and neck meet the new picture.
    `correction` is added after the colours are matched.
    """
    frame = frame.astype(np.float32, copy=False)  # cubic reading of floats is four times as fast as of bytes
    followed = follow(here, frame)
    moved = smoothstep((longest(here.way) - STILL) / (MOVED - STILL))
    rim = rim_of(here.alpha)
    filmed = frame[rim.at]
    around = filmed + moved[rim.at][:, None] * (followed[rim.at] - filmed)
    shift = rim.shift(around - mouth[rim.at])
    picture = mouth if correction is None else mouth + correction
    return Patch(here.x, here.y, *lay_over(followed, picture, here.alpha, moved, shift))


def follow(here: Place, frame: Floats) -> Floats:
    """The filmed window with its mesh moved to where the new lips want it."""
    height, width = here.alpha.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    across, down = here.way[..., 0] + x, here.way[..., 1] + y
    return np.asarray(cv2.remap(frame, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)
