"""Which of several faces: by size, place, box, or by who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.contracts import Clip
from deployments.errors import OptionError
from deployments.face.detect import FaceBox, overlap


@dataclass(frozen=True)
class FaceChoice:
    """A rule that picks one of the detected faces."""

    rule: Literal["largest", "index", "box"] = "largest"
    index: int = 0  # from the left, for "index"
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # x, y, w, h in pixels, for "box"

    def pick(self, faces: Sequence[FaceBox]) -> FaceBox | None:
        """The chosen face of a frame, or None."""
        if not faces:
            return None
        if self.rule == "largest":
            return max(faces, key=lambda f: f.size)
        if self.rule == "index":
            ordered = sorted(faces, key=lambda f: f.center[0])
            return ordered[self.index] if self.index < len(ordered) else None
        x, y, w, h = self.box
        wanted = FaceBox((x + w / 2, y + h / 2), max(w, h), 0.0, 1.0)
        best = max(faces, key=lambda f: overlap(f, wanted))
        return best if overlap(best, wanted) > 0.05 else None


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
