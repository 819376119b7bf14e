"""An emotion on a filmed face, by rule: corners of the mouth and brows move as in `deployments.portrait.controls`.

Mouths that were filmed with such corners are chosen first (`deployments.retrieval.corners`); the mesh goes the rest of the way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion, Track
from deployments.errors import OptionError
from deployments.motion.ease import eased
from deployments.portrait.controls import EMOTIONS, STRONGEST, Expression
from deployments.retrieval.corners import EXTRA as CORNERS

BROWS = "brows"  # in Motion.extra [T, 2]: what brows rise, and their inner ends beyond that, in eye distances
BOUNDS = {name: (0.0, STRONGEST) for name in EMOTIONS if name != "neutral"}


def emotion_of(options: Mapping[str, float]) -> Expression:
    """What was asked for, emotions added up. Raises OptionError."""
    asked = {name: float(options.get(name, 0.0)) for name in BOUNDS}
    for name, value in asked.items():
        if not 0 <= value <= STRONGEST:
            raise OptionError(f"expected {name} of 0 to {STRONGEST}, got {value:g}; 0 is the face as filmed")
    parts = [EMOTIONS[name].times(value) for name, value in asked.items()]
    return Expression(*(sum(getattr(part, field) for part in parts) for field in ("corners", "brows", "inner", "lids")))


def worn(asked: Expression, motion: Motion, track: Track) -> dict[str, NDArray[np.float32]]:
    """What a motion carries of an emotion; nothing where none is asked for."""
    if asked == Expression():
        return {}
    share = eased(motion.weight, track.usable)
    return {
        CORNERS: np.asarray(share * asked.corners, np.float32),
        BROWS: np.asarray(share[:, None] * [asked.brows, asked.inner], np.float32),
    }
