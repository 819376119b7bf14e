"""Runs a compiled loop on as many threads as torch would use.

Plain threads around numba functions that let go of the interpreter lock: numba's own threading layers either abort
when two Python threads enter them or take milliseconds to start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch


def cut(total: int, least: int) -> list[int]:
    """Bounds of equal spans of `range(total)`, one per thread, none shorter than `least`."""
    spans = max(1, min(torch.get_num_threads(), total // max(least, 1)))
    return [total * i // spans for i in range(spans + 1)]


def run_spans(work: Callable[[int, int, int], None], bounds: Sequence[int]) -> None:
    """Call `work(number of the span, first, last)` for each span; the last one in this thread."""
    if len(bounds) == 2:
        work(0, bounds[0], bounds[1])
        return
    with ThreadPoolExecutor(len(bounds) - 2) as pool:
        jobs = [pool.submit(work, i, bounds[i], bounds[i + 1]) for i in range(len(bounds) - 2)]
        work(len(bounds) - 2, bounds[-2], bounds[-1])
        for job in jobs:
            job.result()
