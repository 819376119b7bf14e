"""Speech faster or slower at the same pitch: FFmpeg's `atempo` (overlap-add of similar waves)."""

from __future__ import annotations

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from deployments.media.sound import frames_of

SLOWEST, FASTEST = 0.5, 2.0  # one filter's range
BLOCK = 4096
SAME = 1e-3  # a difference that nobody hears


def change_tempo(samples: NDArray[np.float32], rate: int, speed: float) -> NDArray[np.float32]:
    """[N] samples spoken `speed` times as fast; the same array for 1. Raises ValueError outside 0.5 to 2."""
    if abs(speed - 1) < SAME or len(samples) == 0:
        return samples
    if not SLOWEST <= speed <= FASTEST:
        raise ValueError(f"expected a speed of {SLOWEST} to {FASTEST}, got {speed}")
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="fltp", layout="mono", time_base=None)
    filters = [source, graph.add("atempo", f"{speed:.6f}"), graph.add("abuffersink")]
    graph.link_nodes(*filters).configure()
    blocks: list[NDArray[np.float32]] = []
    for frame in [*frames_of(samples[:, None], rate, 0, "mono", BLOCK), None]:
        graph.push(frame)
        blocks += drained(graph)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def drained(graph: Graph) -> list[NDArray[np.float32]]:
    """All blocks that are ready."""
    ready: list[NDArray[np.float32]] = []
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return ready
        assert isinstance(frame, av.AudioFrame)
        ready.append(frame.to_ndarray()[0].astype(np.float32))
