"""Talking clips as data: tracked mouths and their sound, kept in a folder so that tracking is done once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Track

CLIP_SUFFIXES = (".mp4", ".mov", ".mpg", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class SpokenClip:
    """One clip. `speaker` groups clips of one person, so that nobody is tested on himself."""

    name: str
    speaker: str
    landmarks: NDArray[np.float32]  # [T, 478, 3] pixels
    usable: NDArray[np.bool_]  # [T]
    shot: NDArray[np.int32]  # [T]
    times: NDArray[np.float64]  # [T] seconds from the first frame
    sound: NDArray[np.float32]  # [N] mono, 16 kHz, sample 0 at the first frame

    def canonical_points(self) -> NDArray[np.float32]:
        """Landmarks [T, 478, 3] in the head frame, eye distances; rows that are not usable repeat the nearest usable."""
        from deployments.face.pose import canonical

        usable = np.flatnonzero(self.usable)
        nearest = usable[np.abs(np.arange(len(self.usable))[:, None] - usable).argmin(1)]
        return canonical(self.landmarks[usable]).points[np.searchsorted(usable, nearest)]


def list_clips(folders: Sequence[Path], one_speaker: Sequence[Path] = ()) -> list[tuple[Path, str]]:
    """(path, speaker) of every clip in the folders: the speaker is the file name without trailing digits, or the
    folder's name for folders of one speaker."""
    found = []
    for folder in (*folders, *one_speaker):
        for path in sorted(Path(folder).iterdir()):
            if path.suffix.lower() in CLIP_SUFFIXES:
                found.append((path, folder.name if folder in one_speaker else path.stem.rstrip("0123456789")))
    return found


def load_clip(path: Path, speaker: str, cache: Path) -> SpokenClip:
    """Track a clip and read its sound, or take both from the cache folder. Raises MediaError, NoFaceError."""
    key = hashlib.sha256(f"{path.name} {path.stat().st_size}".encode()).hexdigest()[:12]
    kept = cache / f"{path.stem}-{key}.npz"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        track, times, sound = _measure(path)
        np.savez(kept, landmarks=track.landmarks, usable=track.usable, shot=track.shot, times=times, sound=sound)
    with np.load(kept, allow_pickle=False) as data:
        return SpokenClip(path.stem, speaker, **{name: data[name] for name in data.files})


def _measure(path: Path) -> tuple[Track, NDArray[np.float64], NDArray[np.float32]]:
    from deployments.face.track import track_clip
    from deployments.media.probe import probe
    from deployments.media.sound import read_sound

    clip = probe(path)
    sound = read_sound(path, rate=16000, origin=int(clip.pts[0]) * clip.time_base)
    return track_clip(clip, passes=1), clip.times(), sound
