"""Descriptors between machines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import Avatar, Span
from deployments.errors import RenderError
from deployments.media.encode import EncodeOptions
from deployments.media.probe import probe
from deployments.wire import makes, pack, reads, unpack
from deployments.worker import ChunkTask, StreamTask


def chunk_task(root: Path, clip: Path) -> ChunkTask:
    found = probe(clip)
    stream = StreamTask(found.pts, found.time_base, root / "jobs/a/sound.mka", root / "jobs/a/c.m4s")
    avatar = Avatar("fake", root / "avatars/x", "digest")
    span, motion, track = Span(0, 10), root / "jobs/a/motion.safetensors", root / "tracks/t.safetensors"
    return ChunkTask(found, span, None, "fake", avatar, motion, track, EncodeOptions(), root / "jobs/a/c.mkv", stream)


def test_a_task_finds_its_files_on_another_machine(face_clip: Path) -> None:
    here, there = face_clip.parent, Path("/another/place")
    task = chunk_task(here, face_clip)
    sent = pack(task, here)
    assert str(here) not in repr(sent), "no path of a machine may travel"
    moved = unpack(sent, there)
    assert moved.clip.path == there / face_clip.name and moved.out == there / "jobs/a/c.mkv"
    assert moved.stream is not None and moved.stream.sound == there / "jobs/a/sound.mka"
    assert (moved.clip.pts == task.clip.pts).all() and moved.span == task.span and moved.encode == task.encode
    assert set(map(str, makes(moved))) == {"/another/place/jobs/a/c.mkv", "/another/place/jobs/a/c.m4s"}
    files, folders = reads(moved)
    assert len(files) == 4 and folders == [there / "avatars/x"]
    assert np.array_equal(moved.stream.pts, task.clip.pts)


def test_a_file_outside_the_store_never_travels(face_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="expected every file of a job below"):
        pack(chunk_task(tmp_path, face_clip), tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "@store/../secret", "@other/x"])
def test_a_descriptor_cannot_name_a_place_outside(path: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="expected a key"):
        unpack([Path(path)], tmp_path)
