"""The bytes of NV12: a plane of luma, then one of half the size with blue and red differences in turn."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.checks import ShapeError

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and blue in luma; green has the rest


@dataclass(frozen=True)
class Nv12:
    """How RGB becomes luma and differences. `full_range`: all of 0..255; else luma 16..235, differences 16..240."""

    standard: str = "bt709"
    full_range: bool = False

    def rows(self) -> tuple[tuple[float, float, float, float], ...]:
        """Y, U and V (0..255) as parts of red, green and blue (0..255) and an offset."""
        if self.standard not in WEIGHTS:
            raise ShapeError(f"standard: expected {' or '.join(WEIGHTS)}, got {self.standard!r}")
        red, blue = WEIGHTS[self.standard]
        luma, difference = (1.0, 1.0) if self.full_range else (219 / 255, 224 / 255)
        y = (red, 1 - red - blue, blue)
        u = tuple((own - part) / (2 * (1 - blue)) for own, part in zip((0.0, 0.0, 1.0), y, strict=True))
        v = tuple((own - part) / (2 * (1 - red)) for own, part in zip((1.0, 0.0, 0.0), y, strict=True))
        first = (luma * y[0], luma * y[1], luma * y[2], 0.0 if self.full_range else 16.0)
        return first, *((difference * d[0], difference * d[1], difference * d[2], 128.0) for d in (u, v))


RGB_ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))


def check_even(height: int, width: int) -> None:
    """Four pixels share two differences, so that sizes are even."""
    if height % 2 or width % 2:
        wanted = "expected even height and width, since NV12 keeps one colour difference for 2x2 pixels"
        raise ShapeError(f"{wanted}, got {height} x {width}; crop or pad the picture by a pixel, or use RGB")
