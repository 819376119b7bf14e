"""Put a new lower face on a frame whose own jaw line, neck and hair follow it: no second outline beside the new one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Patch
from deployments.face.composite import match_rim
from deployments.face.mesh import smoothstep
from deployments.retrieval.warp import STILL, Place, longest

MOVED = 0.6  # pixels from which on the moved picture shows alone: less is not worth being sampled anew

Floats = NDArray[np.float32]


def settle(here: Place, frame: Floats, mouth: Floats, correction: Floats | None = None) -> Patch:
    """The patch of a new picture `mouth` [h, w, 3] in the window `frame` [h, w, 3] of a place, its colours matched at the rim.

    Around the shown part the frame's own pixels go with the mesh, so that cheek, jaw and neck meet the new picture.
    `correction` is added after the colours are matched.
    """
    moved = smoothstep((longest(here.way) - STILL) / (MOVED - STILL))
    followed = follow(here, frame)
    around = frame + moved[..., None] * (followed - frame)
    matched = match_rim(mouth, around, here.alpha)
    if correction is not None:
        matched = matched + correction
    total = 1 - (1 - here.alpha) * (1 - moved)
    share = (here.alpha / np.maximum(total, 1e-6))[..., None]
    # as alpha parts of the new picture on `around` would be, but in one layer
    rgb = share * matched + (1 - share) * followed
    return Patch(here.x, here.y, np.clip(np.rint(rgb), 0, 255).astype(np.uint8), total.astype(np.float32))


def follow(here: Place, frame: Floats) -> Floats:
    """The filmed window with its mesh moved to where the new lips want it."""
    height, width = here.alpha.shape
    grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    return np.asarray(cv2.remap(frame, grid + here.way, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)
