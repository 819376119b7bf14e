"""Line charts as inline SVG: no script, no outside reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 40
MAX_POINTS = 1600

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One curve: its name, CSS class and values (None: a gap)."""

    name: str
    style: str
    values: Values


@dataclass(frozen=True)
class Axes:
    """Range of x and y and where they fall in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, x: float) -> float:
        """Horizontal place of x."""
        return LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        """Vertical place of y."""
        return HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)


def chart(x: Sequence[float], lines: Sequence[Line], x_name: str, y_name: str, marks: Sequence[float] = ()) -> str:
    """SVG of curves over `x` [T]; `marks` are vertical lines (chunk borders). Empty text where nothing is to be drawn."""
    known = [v for line in lines for v in line.values if v is not None]
    if len(x) < 2 or not known:
        return ""
    axes = Axes((x[0], x[-1]), padded(min(known), max(known)))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)}">']
    parts += _grid(axes)
    for mark in marks:
        parts.append(f'<line class="mark" x1="{axes.px(mark):.1f}" x2="{axes.px(mark):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for line in lines:
        parts += [f'<polyline class="{line.style}" points="{run}"/>' for run in _runs(axes, x, line.values)]
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{escape(x_name)}</text>')
    parts.append("</svg>")
    return "".join(parts)


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with a twentieth of room on both sides."""
    room = 0.05 * (high - low) or max(abs(high), 1e-3) * 0.1
    return low - room, high + room


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside a range, about `count` of them."""
    raw = (high - low) / count
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999))
    first = float(np.ceil(low / step) * step)
    return [round(first + k * step, 10) + 0.0 for k in range(int((high - first) / step + 1e-9) + 1)]


def _grid(axes: Axes) -> list[str]:
    parts = []
    for y in ticks(*axes.y, count=4):
        place = axes.py(y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in ticks(*axes.x, count=10):
        parts.append(f'<text class="axis" x="{axes.px(x):.1f}" y="{HEIGHT - 23}" text-anchor="middle">{x:g}</text>')
    return parts


def _runs(axes: Axes, x: Sequence[float], values: Values) -> list[str]:
    """Point lists of the stretches without a gap; long curves are thinned."""
    runs: list[list[str]] = [[]]
    step = max(1, len(x) // MAX_POINTS)
    for at, value in list(zip(x, values, strict=True))[::step]:
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{axes.px(at):.1f},{axes.py(value):.1f}")
    return [" ".join(run) for run in runs if len(run) > 1]
