"""What Gaussians drew and what was filmed, as one picture: a coarse band of both, a fine band that was filmed.

The door of the operation; `reference.py` says what it means, `cpu.py` does it fast. The blur between the bands is the
caller's: low = blur(apart).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.checks import DtypeError, ShapeError
from kernels.gaussian_mix.cpu import face_pixels, fine_pixels, lips_pixels, mouth_pixels, over_pixels

__all__ = ["Mouth", "add_fine", "draw_over", "mix_face", "mix_mouth"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Mouth:
    """Filmed mouths in a part of a picture, from pixel `x`, `y` on: their mean is first * nearest + others."""

    x: int
    y: int
    mask: Floats  # [h, w] how much of them shows
    nearest: Floats  # [h, w, 3]
    others: Floats  # [h, w, 3]
    first: float
    shift: Floats  # [3, 3] a plane over the whole picture (rows: 1, x, y from -0.5 to 0.5), added to both


def draw_over(colours: Floats, alpha: Floats, under: Floats, sure: float) -> Floats:
    """Colours [h, w, 3] (0..255) of a window that was drawn, `colours` [H, W, 3] (0..1, weighted by `alpha` [H, W]).

    The window may be larger than `under` [h, w, 3], which shows where alpha is less than `sure`. Raises ShapeError, DtypeError.
    """
    _check(under.shape[:2], under=(under, 3))
    if colours.ndim != 3 or alpha.shape != colours.shape[:2] or alpha.shape[0] < len(under) or alpha.shape[1] < under.shape[1]:
        raise ShapeError(
            f"colours: expected at least {list(under.shape)} with an alpha for each pixel, got {list(colours.shape)}"
        )
    out = np.empty(under.shape, np.float32)
    over_pixels(*_whole(colours, alpha, under), sure, out)
    return out


def mix_mouth(drawn: Floats, nearest: Floats, others: Floats, first: float, share: float) -> tuple[Floats, Floats]:
    """(1 - share) drawn + share (first nearest + others), and how far that is from `nearest`; all [h, w, 3]."""
    _check(drawn.shape[:2], drawn=(drawn, 3), nearest=(nearest, 3), others=(others, 3))
    base, apart = np.empty_like(drawn), np.empty_like(drawn)
    mouth_pixels(*_whole(drawn, nearest, others), first, share, base, apart)
    return base, apart


def mix_face(
    drawn: Floats, shift: Floats, filmed: Floats, share: float, trust: Floats, mouth: Mouth
) -> tuple[Floats, Floats, Floats]:
    """The coarse picture of a face, how far it is from the filmed one [h, w, 3], and how far that is trusted [h, w].

    The plane `shift` is added to `drawn`; with (1 - share) trust it gives way to the filmed face with filmed mouths on it,
    which are trusted where they show.
    """
    _check(trust.shape, drawn=(drawn, 3), filmed=(filmed, 3), trust=(trust, 1))
    _check(mouth.mask.shape, mask=(mouth.mask, 1), nearest=(mouth.nearest, 3), others=(mouth.others, 3))
    high, wide = mouth.mask.shape
    if min(mouth.x, mouth.y) < 0 or mouth.y + high > trust.shape[0] or mouth.x + wide > trust.shape[1]:
        raise ShapeError(f"mouth: expected a part of {list(trust.shape)}, got {high}x{wide} at row {mouth.y}, column {mouth.x}")
    base, apart = np.empty(drawn.shape, np.float32), np.empty(drawn.shape, np.float32)
    drawn, filmed = _whole(drawn, filmed)
    trust = np.array(trust, np.float32, order="C")  # written to
    face_pixels(drawn, np.ascontiguousarray(shift), filmed, share, trust, base, apart)
    mask, nearest, others = _whole(mouth.mask, mouth.nearest, mouth.others)
    planes = np.stack([shift, mouth.shift]).astype(np.float32)
    own = (mouth.y, mouth.x, mask, nearest, others, mouth.first, planes)
    lips_pixels(*own, drawn, filmed, share, trust, base, apart)
    return base, apart, trust


def add_fine(base: Floats, apart: Floats, low: Floats, gain: float, trust: Floats) -> Floats:
    """base + gain trust (low - apart) [h, w, 3]: the fine band is the filmed picture's; `trust` [h, w]."""
    _check(trust.shape, base=(base, 3), apart=(apart, 3), low=(low, 3), trust=(trust, 1))
    out = np.empty(base.shape, np.float32)
    base, apart, low, trust = _whole(base, apart, low, trust)
    fine_pixels(base, apart, low, gain, trust, out)
    return out


def _whole(*arrays: Floats) -> tuple[Floats, ...]:
    return tuple(np.ascontiguousarray(array) for array in arrays)


def _check(size: tuple[int, ...], **given: tuple[Floats, int]) -> None:
    """Every array is float32 of this size. Raises ShapeError, DtypeError."""
    for name, (array, channels) in given.items():
        shape = (*size, 3) if channels == 3 else size
        if array.shape != shape or len(size) != 2:
            raise ShapeError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
        if array.dtype != np.float32:
            raise DtypeError(f"{name}: expected float32, got {array.dtype}; convert it with .astype(np.float32)")
