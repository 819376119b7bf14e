"""What of a clip goes on as it was filmed: which frames keep their packets, and where that sets the borders of chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deployments.contracts import Clip
from deployments.media.smart import CannotCopy, Copying, copying
from serve_app.planner import Plan, cut_around, cut_at
from serve_app.request import SyncRequest


def keep_filmed(request: SyncRequest, clip: Clip, plan: Plan, workers: int, streams: bool) -> Plan:
    """The plan of a job with segments, cut so that nothing is rendered where nothing changes.

    Where the source allows it, its packets are copied there (`plan.match`). Where it does not, `plan.note` says why, and
    these frames are encoded once, for all jobs of the clip; a stream begins with short chunks instead.
    A plan of an earlier try (`request.edges`) stays as it was cut.
    """
    if not plan.segments or request.chunks is not None:
        return plan
    changing = plan.weight > 0
    try:
        found = copying(clip, request.quality)
    except CannotCopy as reason:
        note = f"pictures encoded again as a whole ({reason})"
        if streams:
            return replace(plan, note=note)
        starts = np.arange(clip.frames)
        return replace(plan, note=note, spans=cut_at(request.edges, clip.frames) or cut_around(changing, starts, workers))
    spans = cut_at(request.edges, clip.frames) or cut_around(changing | ~found.whole, found.entries, workers)
    kept = replace(plan, spans=spans)
    if not any(kept.still(span) for span in spans):
        return replace(plan, note="pictures encoded again as a whole (every closed group of the source has changes)")
    return replace(kept, match=found.match) if whole_groups(kept, found) else replace(plan, spans=spans)


def whole_groups(plan: Plan, found: Copying) -> bool:
    """Whether all spans without changes consist of whole closed groups."""
    borders = {*found.entries.tolist(), len(plan.weight)}
    still = [span for span in plan.spans if plan.still(span)]
    return all({span.start, span.stop} <= borders and found.whole[span.start : span.stop].all() for span in still)
