"""What the mouth does, in a few distances per frame, free of head pose and size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Track
from deployments.face.pose import canonical, parts_of

MEASURES = ("aperture", "outer height", "width", "inner width", "lip protrusion", "jaw drop")
CLOSED = 0.02
"""Inner-lip gap in outer-eye distances below which a mouth counts as closed (about 1.8 mm on an adult)."""


def mouth_measures(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Six mouth distances [T, 6] of head-frame points [T, 478, 3], in outer-eye distances.

    aperture |13-14|, outer height |0-17|, width |61-291|, inner width |78-308|, protrusion = depth of the lip corners
    minus depth of the lip centre (head frame: z grows away from the camera), jaw drop |2-152|.
    """

    def gap(a: int, b: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(points[:, a].astype(np.float64) - points[:, b], axis=-1))

    protrusion = points[:, [61, 291], 2].mean(1) - points[:, [0, 17], 2].mean(1)
    return np.stack([gap(13, 14), gap(0, 17), gap(61, 291), gap(78, 308), protrusion, gap(2, 152)], axis=1)


def track_measures(track: Track) -> NDArray[np.float64]:
    """`mouth_measures` [T, 6] of a whole track; NaN rows where no face is usable."""
    out = np.full((len(track.usable), len(MEASURES)), np.nan)
    if track.usable.any():
        faces = canonical(track.landmarks, rows=np.flatnonzero(track.usable))
        out[track.usable] = np.concatenate([mouth_measures(faces.points_of(part)) for part in parts_of(len(faces.rows))])
    return out


def aperture_statistics(aperture: NDArray[np.float64]) -> dict[str, float]:
    """Mean, deviation, 1st and 99th percentile, and share of closed frames (gap < 0.02) of an aperture [T] with NaN."""
    values = aperture[np.isfinite(aperture)]
    if values.size == 0:
        return dict.fromkeys(("mean", "deviation", "p01", "p99", "closed_share"), float("nan"))
    low, high = np.percentile(values, (1, 99))
    return {
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "p01": float(low),
        "p99": float(high),
        "closed_share": float((values < CLOSED).mean()),
    }
