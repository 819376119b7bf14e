"""The engine contract at its smallest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import (
    LIP_COEFFICIENTS,
    Avatar,
    Clip,
    EngineLimits,
    Motion,
    Patch,
    Picture,
    Progress,
    Span,
    Speech,
    Track,
    no_progress,
)

CONTEXT_FRAMES = 2
DEEP = "deep.txt"
COST = LIP_COEFFICIENTS - 1  # this coefficient is the seconds that a frame shall take: a device of known speed


class Fake:
    """Paints `255 * coefficient` in the face box."""

    name = "fake"

    def limits(self) -> EngineLimits:
        """Two frames of motion on both sides, so that a wrong slice of the motion shows."""
        return EngineLimits(
            context_frames=CONTEXT_FRAMES, sequential=False, options=("expression", "cost", "depth"), deeper=("depth",)
        )

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Keep the mean colour of the clip's first face: just enough to see that a fit was reused."""
        out.mkdir(parents=True, exist_ok=True)
        facts = {"clip": clip.digest, "usable": int(track.usable.sum())}
        (out / "avatar.json").write_text(json.dumps(facts), encoding="utf-8")
        progress("fit", 1, 1)
        return Avatar(engine=self.name, path=out, digest=clip.digest)

    def deepen(self, avatar: Avatar, clip: Clip, progress: Progress = no_progress) -> None:
        """Leave a file that says so."""
        (avatar.path / DEEP).write_text(clip.digest, encoding="utf-8")
        progress("deepen", 1, 1)

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """First coefficient = loudness of the 40 ms around each frame, 0..1."""
        times = clip.times()
        coefficients = np.zeros((clip.frames, LIP_COEFFICIENTS), np.float32)
        coefficients[:, 0] = [loudness(speech, time) * float(options.get("expression", 1.0)) for time in times]
        coefficients[:, COST] = float(options.get("cost", 0.0))
        return Motion(coefficients, track.usable.astype(np.float32), {"source": "loudness"})

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """One painted square per usable frame; `motion` and `track` are indexed by absolute frame."""
        assert len(track.usable) == len(motion.weight) >= span.stop
        json.loads((avatar.path / "avatar.json").read_text(encoding="utf-8"))
        for frame, picture in zip(range(span.start, span.stop), pictures, strict=True):
            picture.rgb()
            time.sleep(float(motion.coefficients[frame, COST]))
            yield paint(motion, track, frame) if motion.weight[frame] > 0 and track.usable[frame] else None


def loudness(speech: Speech, time: float) -> float:
    """Root mean square of 40 ms of speech around `time`, 0..1."""
    centre, half = round(time * speech.rate), round(0.02 * speech.rate)
    piece = speech.samples[max(0, centre - half) : max(0, centre + half)]
    return float(np.sqrt(np.mean(np.square(piece)))) if len(piece) else 0.0


def paint(motion: Motion, track: Track, frame: int) -> Patch:
    """A square over the landmarks whose grey is the mean of the coefficient over the context."""
    low, high = max(0, frame - CONTEXT_FRAMES), frame + CONTEXT_FRAMES + 1
    grey = int(np.clip(255 * motion.coefficients[low:high, 0].mean(), 0, 255))
    corner = track.landmarks[frame, :, :2].min(0).round().astype(int)
    size = (track.landmarks[frame, :, :2].max(0).round().astype(int) - corner).clip(2)
    alpha: NDArray[np.float32] = np.full((size[1], size[0]), motion.weight[frame], np.float32)
    return Patch(int(corner[0]), int(corner[1]), np.full((*alpha.shape, 3), grey, np.uint8), alpha)
