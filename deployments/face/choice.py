"""Which of several faces: by size, place, box, or by who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.contracts import Clip
from deployments.errors import OptionError
from deployments.face.detect import FaceBox, overlap

MIN_OVERLAP = 0.05  # of the asked box: a box drawn by hand is coarse


@dataclass(frozen=True)
class FaceChoice:
    """A rule that picks one of the detected faces."""

    rule: Literal["largest", "index", "box"] = "largest"
    index: int = 0  # from the left, for "index"
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # x, y, w, h in pixels, for "box"

    def rank(self, faces: Sequence[FaceBox]) -> list[FaceBox]:
        """Faces of a frame that fit the rule, best first; the next is tried where a detection turns out to be none."""
        if self.rule == "largest":
            return sorted(faces, key=lambda f: -f.size)
        if self.rule == "index":
            return sorted(faces, key=lambda f: f.center[0])[self.index : self.index + 1]
        x, y, w, h = self.box
        wanted = FaceBox((x + w / 2, y + h / 2), max(w, h), 0.0, 1.0)
        return [f for f in sorted(faces, key=lambda f: -overlap(f, wanted)) if overlap(f, wanted) > MIN_OVERLAP]


def parse_choice(text: str, clip: Clip | None) -> FaceChoice:
    """Rule from "largest", "0", "x,y,w,h" or "speaking" (needs the clip). Raises OptionError."""
    if text == "largest":
        return FaceChoice()
    if text == "speaking" and clip is not None:
        from deployments.face.speaking import speaking_choice

        return speaking_choice(clip)
    if text.isdigit():
        return FaceChoice("index", index=int(text))
    parts = text.split(",")
    try:
        x, y, w, h = (float(part) for part in parts)
    except ValueError:
        raise OptionError(f"face must be 'largest', 'speaking', an index or 'x,y,w,h', got '{text}'") from None
    if min(w, h) <= 0:
        raise OptionError(f"the face box needs a positive size, got '{text}'")
    return FaceChoice("box", box=(x, y, w, h))
