"""One small picture of a video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from deployments.contracts import Clip, Span
from deployments.errors import OutputError
from deployments.media.decode import decode

HEIGHT = 160


def write_thumbnail(clip: Clip, moment: Fraction, out: Path) -> None:
    """A JPEG of the frame that is shown `moment` seconds after the first. Raises MediaError, OutputError."""
    shown = int(np.searchsorted(clip.times(), float(moment), side="right")) - 1
    index = min(max(shown, 0), clip.frames - 1)
    picture = next(iter(decode(clip, Span(index, index + 1)))).rgb()
    width = max(1, round(picture.shape[1] * HEIGHT / picture.shape[0]))
    small = cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    assert done, "JPEG takes every 8-bit picture"
    try:
        out.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"expected to write {out}, got: {error.strerror}") from error
