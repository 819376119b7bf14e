"""Patches of a clip that shows a still: the lips alone move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deployments.contracts import Avatar, Motion, Patch, Picture, Span
from deployments.engines.portrait.fit import load_model
from deployments.portrait.draw import STILL, PortraitRenderer, Pose
from deployments.portrait.move import displacements


def render_patches(avatar: Avatar, motion: Motion, pictures: Iterable[Picture], span: Span) -> Iterator[Patch | None]:
    """One patch for every picture of the span; None where nothing is to be replaced."""
    renderer = PortraitRenderer(load_model(avatar))
    window = renderer.window
    alpha = np.ones((window.height, window.width), np.float32)
    moves = displacements(motion)
    for t, _ in zip(range(span.start, span.stop), pictures, strict=True):
        if motion.weight[t] <= 0:
            yield None
            continue
        yield Patch(window.x, window.y, renderer.frame(Pose(moves[t], 0.0, STILL, np.zeros(3))), alpha)
