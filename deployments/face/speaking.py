"""Who speaks: the face whose mouth moves with the clip's own sound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Span
from deployments.errors import NoFaceError, SpeechError
from deployments.face.choice import FaceChoice
from deployments.face.detect import FaceBox, FaceDetector
from deployments.face.landmarks import (
    LEFT_EYE_OUTER,
    LOWER_INNER_LIP,
    RIGHT_EYE_OUTER,
    UPPER_INNER_LIP,
    Landmarker,
    roi_of_box,
    roi_of_points,
)
from deployments.media.decode import decode
from deployments.media.sound import read_sound

WATCHED_SECONDS = 6.0
RATE = 16000
LAGS = 6  # frames either way: sound and picture of real files differ by up to 0.1 s


def speaking_choice(clip: Clip) -> FaceChoice:
    """The box of the speaking face, for `FaceChoice`. One face: that one. Raises NoFaceError without any face.

    Every face of the first frame that shows one is followed for six seconds; the loudness of the sound is compared
    with how fast each mouth opens and closes (the largest correlation within six frames either way wins).
    """
    openings, faces = watch(clip)
    if len(faces) > 1 and clip.audio:
        scores = [agreement(opening, loudness(clip, len(opening))) for opening in openings]
        face = faces[int(np.argmax(scores))]
    else:
        face = max(faces, key=lambda f: f.size)
    x, y = face.center
    return FaceChoice("box", box=(x - face.size / 2, y - face.size / 2, face.size, face.size))


def watch(clip: Clip) -> tuple[list[NDArray[np.float32]], list[FaceBox]]:
    """Mouth opening per frame (eye distances) of every face, and where the faces were first seen."""
    count = min(clip.frames, int(WATCHED_SECONDS * clip.average_rate))
    detector, landmarker = FaceDetector(), Landmarker()
    faces: list[FaceBox] = []
    rows: list[list[float]] = []
    last: list[NDArray[np.float32]] = []
    for picture in decode(clip, Span(0, clip.frames)):
        rgb = picture.rgb()
        if not faces:
            faces = detector.faces(rgb)
            last = [landmarker.points(rgb, roi_of_box(face))[0] for face in faces]
            rows = [[] for _ in faces]
        for k, points in enumerate(last):
            last[k] = landmarker.points(rgb, roi_of_points(points))[0]
            rows[k].append(opening(last[k]))
        if faces and len(rows[0]) >= count:
            break
    if not faces:
        raise NoFaceError(f"{clip.path.name}: nobody to choose from, no face in {clip.frames} frames")
    return [np.array(row, np.float32) for row in rows], faces


def opening(points: NDArray[np.float32]) -> float:
    """Distance of the inner lips in eye distances."""
    lips = float(np.linalg.norm(points[LOWER_INNER_LIP] - points[UPPER_INNER_LIP]))
    return lips / max(float(np.linalg.norm(points[LEFT_EYE_OUTER] - points[RIGHT_EYE_OUTER])), 1e-6)


def loudness(clip: Clip, count: int) -> NDArray[np.float32]:
    """Root mean square [count] of the clip's sound under each frame; zeros where it cannot be read."""
    try:
        sound = read_sound(clip.path, RATE, origin=clip.pts[0] * clip.time_base)
    except SpeechError:
        return np.zeros(count, np.float32)
    edges = np.concatenate([clip.times()[:count], [clip.times()[count - 1] + 1 / float(clip.average_rate)]]) * RATE
    pieces = [sound[int(a) : int(b)] for a, b in pairwise(edges)]
    return np.array([np.sqrt((piece**2).mean()) if len(piece) else 0.0 for piece in pieces], np.float32)


def agreement(opening: NDArray[np.float32], loud: NDArray[np.float32]) -> float:
    """Largest correlation of mouth movement with loudness within the allowed lags; 0 for a still mouth."""
    movement = np.abs(np.gradient(opening))
    best = 0.0
    for lag in range(-LAGS, LAGS + 1):
        a = movement[max(0, lag) : len(movement) + min(0, lag)]
        b = loud[max(0, -lag) : len(loud) + min(0, -lag)]
        if len(a) > 2 and a.std() > 1e-6 and b.std() > 1e-6:
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best
