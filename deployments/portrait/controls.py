"""What a caller may ask of a portrait's face: emotion, gaze and distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployments.errors import OptionError

GAZE_LIMIT = 0.3  # eye widths: about as far as eyes turn
NEAREST, FARTHEST = 0.8, 1.25
STRONGEST = 1.5


@dataclass(frozen=True)
class Expression:
    """A face's lasting expression, as moves from the photo's own. Heights are in eye distances, upwards."""

    corners: float = 0.0  # of the mouth
    brows: float = 0.0
    inner: float = 0.0  # what the brows' inner ends rise beyond that
    lids: float = 0.0  # 1 closes the eyes; below 0 they open wider

    def times(self, strength: float) -> Expression:
        """The same expression, stronger or weaker."""
        return Expression(self.corners * strength, self.brows * strength, self.inner * strength, self.lids * strength)


EMOTIONS = {
    "neutral": Expression(),
    "happy": Expression(corners=0.055, brows=0.015, lids=0.08),
    "sad": Expression(corners=-0.06, brows=-0.005, inner=0.05, lids=0.1),
    "surprised": Expression(brows=0.075, inner=0.01, lids=-0.18),
    "angry": Expression(corners=-0.015, brows=-0.025, inner=-0.04),
}


@dataclass(frozen=True)
class Controls:
    """Controls of a portrait; the defaults leave everything as the photo has it.

    emotion : a name of `EMOTIONS`, or name:strength as in "happy:0.5"; strength 0..1.5.
    gaze : where the eyes look from where they look in the photo, in eye widths: to the picture's right, and down.
    distance : 1 as in the photo; 1.1 is ten per cent farther away, so the face is that much smaller.

    Raises OptionError for what cannot be.
    """

    emotion: str = "neutral"
    gaze: tuple[float, float] = (0.0, 0.0)
    distance: float = 1.0

    def __post_init__(self) -> None:
        split_emotion(self.emotion)
        if len(self.gaze) != 2 or not all(math.isfinite(v) and abs(v) <= GAZE_LIMIT for v in self.gaze):
            raise OptionError(
                f"expected a gaze X,Y within -{GAZE_LIMIT}..{GAZE_LIMIT} eye widths (right, down), got {self.gaze}; "
                "0,0 is the photo's"
            )
        if not NEAREST <= self.distance <= FARTHEST:
            raise OptionError(f"expected a distance of {NEAREST} to {FARTHEST}, got {self.distance}; 1 is the photo's")

    @property
    def expression(self) -> Expression:
        """What the emotion does to the face."""
        name, strength = split_emotion(self.emotion)
        return EMOTIONS[name].times(strength)


def split_emotion(text: str) -> tuple[str, float]:
    """Name and strength of "happy" or "happy:0.5". Raises OptionError."""
    name, colon, number = text.partition(":")
    try:
        strength = float(number) if colon else 1.0
    except ValueError:
        strength = math.nan
    if name not in EMOTIONS or not 0 <= strength <= STRONGEST:
        raise OptionError(
            f"expected an emotion of {', '.join(EMOTIONS)}, with a strength of 0 to {STRONGEST} as in happy:0.5; "
            f"got {text[:60]!r}"
        )
    return name, strength


def read_gaze(text: str) -> tuple[float, float]:
    """Gaze from "X,Y". Raises OptionError."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"expected a gaze of two numbers as in 0.2,0 (right, down), got {text[:60]!r}") from None
    return x, y
