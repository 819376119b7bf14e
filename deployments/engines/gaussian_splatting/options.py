"""What a caller may ask of the whole face: where it turns and where the eyes look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion
from deployments.errors import OptionError

EXTRA = "face"  # the name under which a motion carries these to `render`
BOUNDS = {
    "yaw": (-12.0, 12.0),
    "pitch": (-10.0, 10.0),
    "roll": (-10.0, 10.0),
    "gaze_x": (-0.3, 0.3),
    "gaze_y": (-0.3, 0.3),
}


@dataclass(frozen=True)
class Turn:
    """Added to what was filmed. Angles in degrees: to the picture's right, down, clockwise; gaze in eye widths: right, down."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise OptionError(f"expected {name} of {low:g} to {high:g}, got {value:g}; 0 is as filmed")

    @property
    def posed(self) -> bool:
        """Whether the head turns."""
        return any((self.yaw, self.pitch, self.roll))

    @property
    def looking(self) -> bool:
        """Whether the eyes turn."""
        return any((self.gaze_x, self.gaze_y))

    def __bool__(self) -> bool:
        return self.posed or self.looking

    def radians(self) -> NDArray[np.float64]:
        """Angles to be added to `CanonicalFaces.angles`, whose yaw grows to the picture's left."""
        return np.deg2rad([-self.yaw, self.pitch, self.roll])

    def gaze(self) -> NDArray[np.float64]:
        """Gaze in eye widths."""
        return np.array([self.gaze_x, self.gaze_y])

    def carried(self) -> dict[str, NDArray[np.float32]]:
        """What a motion carries; nothing where nothing is asked for."""
        return {EXTRA: np.array(astuple(self), np.float32)} if self else {}


def read_turn(options: Mapping[str, float]) -> Turn:
    """The part of the options that is about the whole face. Raises OptionError."""
    return Turn(**{part.name: float(options.get(part.name, 0.0)) for part in fields(Turn)})


def turn_of(motion: Motion) -> Turn:
    """What a motion carries."""
    asked = motion.extra.get(EXTRA)
    # float32 of 12 is 12: bounds hold after the way through a file
    return Turn() if asked is None else Turn(*(round(float(value), 6) for value in asked))
