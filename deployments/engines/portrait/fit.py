"""Keep the one picture of a clip of a still."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from deployments.contracts import Avatar, Clip, Span, Track
from deployments.errors import NoFaceError
from deployments.portrait.model import PortraitModel, fit_portrait


def keep_picture(clip: Clip, track: Track, out: Path) -> str:
    """Keep the first usable frame and its landmarks in `out`; returns their digest. Raises NoFaceError."""
    from safetensors.numpy import save_file

    from deployments.media.decode import decode

    usable = np.flatnonzero(track.usable)
    if len(usable) == 0:
        raise NoFaceError(f"{clip.path.name}: a portrait needs one frame with a face, got none; use another picture")
    frame = int(usable[0])
    picture = next(iter(decode(clip, Span(frame, frame + 1))))
    tensors = {"photo": np.ascontiguousarray(picture.rgb()), "landmarks": np.ascontiguousarray(track.landmarks[frame])}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "portrait.safetensors")
    return hashlib.sha256(tensors["photo"].tobytes() + tensors["landmarks"].tobytes()).hexdigest()


def load_model(avatar: Avatar) -> PortraitModel:
    """The model of a fitted avatar; computed again, which is faster than reading it."""
    from deployments.motion.lip_space import LIP_JAW
    from deployments.weights import load_tensors

    tensors = load_tensors(avatar.path / "portrait.safetensors")
    landmarks = tensors["landmarks"][None].astype(np.float32)
    track = Track(landmarks, np.ones(1, np.float32), np.ones(1, bool), np.zeros(1, np.int32))
    return fit_portrait(tensors["photo"].astype(np.uint8), track, LIP_JAW)
