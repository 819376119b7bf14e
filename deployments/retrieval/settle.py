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
LENIENT = 45.0, 80.0  # levels between two pictures of the same skin, and between skin and something else
STRICT = 20.0, 40.0  # the same of patches broader than a wrinkle, around them and at the border: less, for pictures are mixed
BROAD = 0.05  # eye distances: such a patch
BORDER = 0.02, 0.32  # of the mask, from its inside
BELOW = 0.25  # eye distances below the lips from which on all this counts in full
COARSE = 2  # pixels a side that are looked at as one
FEW = 30  # of those: too few to know the light by
SOFT = 0.015  # eye distances: sigma of the border of what is something else
WIDER = 5  # coarse pixels

Floats = NDArray[np.float32]


def settle(
    here: Place, frame: NDArray[Any], mouth: Floats, correction: Floats | None = None, followed: Floats | None = None
) -> Patch:
    """The patch of a new picture `mouth` [h, w, 3] in the window `frame` [h, w, 3] of a place, its colours matched at the rim.

    Around the shown part the frame's own pixels go with the mesh, so that cheek, jaw and neck meet the new picture.
    `correction` is added after the colours are matched; `followed` is given where it is known already.
    """
    frame = frame.astype(np.float32, copy=False)  # cubic reading of floats is four times as fast as of bytes
    followed = follow(here, frame) if followed is None else followed
    moved = smoothstep((longest(here.way) - STILL) / (MOVED - STILL))
    mine = belonging(here, followed, mouth)
    alpha = here.alpha * mine
    rim = rim_of(here.alpha).among(mine)
    filmed = frame[rim.at]
    around = filmed + moved[rim.at][:, None] * (followed[rim.at] - filmed)
    shift = rim.shift(around - mouth[rim.at])
    picture = mouth if correction is None else mouth + correction
    return Patch(here.x, here.y, *lay_over(followed, picture, alpha, moved, shift))


def belonging(here: Place, followed: Floats, mouth: Floats) -> Floats:
    """How much of a new picture belongs to the head [h, w], 0..1: collar, hair and background that were remembered with
    another bearing of the head do not, and neither does skin where a hand or a microphone is filmed now.

    Away from the lips, the two pictures show the same skin; where they are far apart, one of them shows something else.
    """
    if here.skin is None:
        return np.ones(here.alpha.shape, np.float32)
    height, width = here.alpha.shape
    size = (-(-width // COARSE), -(-height // COARSE))
    new, filmed, alpha, skin = (
        cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (mouth, followed, here.alpha, here.skin)
    )
    apart = new - filmed
    sure = (alpha > 0.3) & (skin > 0.8)
    if sure.sum() < FEW:
        return np.ones(here.alpha.shape, np.float32)
    apart = np.abs(apart - np.median(apart[sure], axis=0))  # another light is no other thing
    far = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])
    side = max(3, round(BROAD * here.unit / COARSE))
    broad = below(here, skin) * between(cv2.morphologyEx(far, cv2.MORPH_OPEN, square(side)), *STRICT)
    near = np.maximum(cv2.dilate(broad, square(2 * side + 1)), below(here, skin) * between(1 - alpha, *BORDER))
    low, high = (lenient + near * (strict - lenient) for lenient, strict in zip(LENIENT, STRICT, strict=True))
    foreign = np.maximum(between(far, low, high), broad) * skin
    soft = cv2.GaussianBlur(cv2.dilate(foreign, square(WIDER)), (0, 0), max(0.5, SOFT * here.unit / COARSE))
    return 1 - np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def below(here: Place, skin: NDArray[Any]) -> Floats:
    """How far below the lips the rows of a coarse picture lie [h, 1], 0..1: there are jaw, neck, collar and hair, and no
    wrinkle that comes with a smile."""
    rows, lips = np.arange(len(skin), dtype=np.float32), (1 - skin).sum(1)
    middle = (rows * lips).sum() / max(float(lips.sum()), 1.0)
    return smoothstep((rows - middle) * np.float32(COARSE / (here.unit * BELOW)))[:, None]


def between(value: NDArray[Any], low: Any, high: Any) -> Floats:
    """0 up to `low`, 1 from `high` on."""
    return smoothstep(((value - low) / (high - low)).astype(np.float32))


def square(side: int) -> NDArray[np.uint8]:
    """What morphology looks at."""
    return np.ones((side, side), np.uint8)


def follow(here: Place, frame: Floats) -> Floats:
    """The filmed window with its mesh moved to where the new lips want it."""
    height, width = here.alpha.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    across, down = here.way[..., 0] + x, here.way[..., 1] + y
    return np.asarray(cv2.remap(frame, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)
