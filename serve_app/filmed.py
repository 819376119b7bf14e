"""What of a clip goes on as it was filmed: which frames keep their packets, and where that sets the borders of chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Span
from deployments.media.smart import CannotCopy, Copying, copying
from serve_app.overflow import as_filmed
from serve_app.planner import Plan, cut_around, cut_at
from serve_app.request import SyncRequest


def keep_filmed(request: SyncRequest, clip: Clip, plan: Plan, workers: int, streams: bool) -> Plan:
    """The plan of a job with segments, cut so that nothing is rendered where nothing changes.

    Where the source allows it, its packets are copied there (`plan.match`). Where it does not, `plan.note` says why. Frames
    that neither change nor can be copied are encoded once, for all jobs of the clip; a stream without copies begins with
    short chunks instead.
    A plan of an earlier try (`request.edges`) stays as it was cut.
    """
    if not plan.segments or request.chunks is not None:
        return plan
    try:
        found = copying(clip, request.quality)
    except CannotCopy as reason:
        found, note = None, f"pictures encoded again as a whole ({reason})"
    else:
        note = "pictures encoded again as a whole (every closed group of the source has changes)"
    if found is not None and plan.inserted:
        found = moved(found, plan.timeline.order)
    spans = cut_at(request.edges, len(plan.timeline.order)) or cut(plan, found, workers)
    copied = frozenset(span for span in spans if found is not None and plan.still(span) and whole_groups(span, found))
    if found is not None and copied:
        return replace(plan, spans=spans, match=found.match, copied=copied)
    return replace(plan, note=note) if streams else replace(plan, spans=spans, note=note)


def moved(found: Copying, order: NDArray[np.int64]) -> Copying:
    """The same groups by the numbers of output frames [T_out]; a frame that is shown again is new."""
    filmed = as_filmed(order)
    places = np.flatnonzero(filmed)
    return replace(found, entries=places[np.searchsorted(order[places], found.entries)], whole=found.whole[order] & filmed)


def cut(plan: Plan, found: Copying | None, workers: int) -> tuple[Span, ...]:
    """The plan's frames in spans that change, that do not, and that are copied."""
    if found is not None:
        return cut_around(plan.weight > 0, found.whole, found.entries, workers)
    return cut_around(plan.weight > 0, np.zeros(len(plan.weight), np.bool_), np.zeros(1, np.int64), workers)


def whole_groups(span: Span, found: Copying) -> bool:
    """Whether a span consists of whole closed groups."""
    borders = {*found.entries.tolist(), len(found.whole)}
    return {span.start, span.stop} <= borders and bool(found.whole[span.start : span.stop].all())
