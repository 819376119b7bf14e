"""Tracks and motions on disk: safetensors, written whole or not at all, so that any worker may read them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Motion, Track
from deployments.weights.load import load_tensors, map_tensors

EXTRA = "extra."


def save_track(track: Track, path: Path) -> None:
    """Write a track. Raises OSError."""
    rows = {"landmarks": track.landmarks, "score": track.score, "shot": track.shot}
    if track.light is not None:
        rows["light"] = track.light
    _save({**rows, "usable": track.usable.astype(np.uint8)}, path, {})


def load_track(path: Path) -> Track:
    """What `save_track` wrote, read only and shared by all processes that read it. Raises WeightsError."""
    rows = map_tensors(path, "landmarks", "score", "usable", "shot")
    return Track(rows["landmarks"], rows["score"], rows["usable"].astype(np.bool_), rows["shot"], rows.get("light"))


def save_motion(motion: Motion, path: Path) -> None:
    """Write the arrays of a motion; its `info` is for the report and does not travel. Raises OSError."""
    extra = {EXTRA + name: rows for name, rows in motion.extra.items()}
    _save({"coefficients": motion.coefficients, "weight": motion.weight, **extra}, path, {})


def load_motion(path: Path) -> Motion:
    """Read what `save_motion` wrote. Raises WeightsError."""
    rows = load_tensors(path, "coefficients", "weight")
    extra = {name.removeprefix(EXTRA): part for name, part in rows.items() if name.startswith(EXTRA)}
    return Motion(rows["coefficients"], rows["weight"], extra=extra)


def pick_rows(track: Track, order: NDArray[np.int64]) -> Track:
    """The track of an output that shows source frame `order[t]` at frame t.

    A jump between two source frames starts a new shot: nothing may be smoothed over it.
    """
    jump = np.concatenate([[False], np.abs(np.diff(order)) != 1])
    change = np.concatenate([[False], np.diff(track.shot[order]) != 0])
    shot = np.cumsum(jump | change).astype(np.int32)
    # a run of frames is seen where it lies, and not copied
    run = len(order) > 0 and bool((np.diff(order) == 1).all())
    rows = slice(int(order[0]), int(order[-1]) + 1) if run else order
    light = None if track.light is None else track.light[rows]
    return Track(track.landmarks[rows], track.score[rows], track.usable[rows], shot, light)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write a JSON object whole or not at all. Raises OSError."""
    write_atomic(path, json.dumps(facts, indent=2, sort_keys=True).encode())


def _save(arrays: dict[str, NDArray[Any]], path: Path, facts: dict[str, str]) -> None:
    from safetensors.numpy import save

    write_atomic(path, save({name: np.ascontiguousarray(rows) for name, rows in arrays.items()}, facts))
