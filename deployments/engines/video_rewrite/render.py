"""One frame: warp the chosen pictures onto the target face, blend, match colours."""

from __future__ import annotations

import numpy as np

from deployments.contracts import Patch, Picture
from deployments.engines.video_rewrite.config import VideoRewriteConfig
from deployments.face.composite import two_band
from deployments.retrieval.plan import Plan
from deployments.retrieval.settle import settle
from deployments.retrieval.warp import blend


def render_patch(plan: Plan, picture: Picture, config: VideoRewriteConfig) -> Patch | None:
    """The patch of one frame; None where nothing is to change or the face is off screen."""
    found = plan.place(picture)
    if found is None:
        return None
    row, here = found
    frame = picture.window(here.x, here.y, here.alpha.shape[1], here.alpha.shape[0]).astype(np.float32)
    coarse, nearest = blend(plan.bank, here.raster, plan.choice.rows[row], plan.choice.weights[row])
    return settle(here, frame, two_band(coarse, nearest, config.texture_gain))
