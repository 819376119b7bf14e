"""What a job of many frames may hold: pages that all workers share, and a block of what is computed from them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import MESH_POINTS, Avatar, Motion, Track
from deployments.errors import WeightsError
from deployments.face.mesh import FaceMesh
from deployments.face.pose import STABLE, canonical
from deployments.face.retarget import BLOCK, ShapeModel
from deployments.memory import give_back, let_go
from deployments.motion.lip_space import LipSpace
from deployments.records import load_track, pick_rows, save_track
from deployments.retrieval.bank import Bank
from deployments.retrieval.config import RetrievalConfig
from deployments.retrieval.plan import Plan, PlanKey
from deployments.weights import map_bytes

FRAMES = 2 * BLOCK + 300
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def track() -> Track:
    """A head of random points that turns, talks, is cut to twice and lost once."""
    head = RNG.normal(0, 60, (MESH_POINTS, 3))
    drift = np.cumsum(RNG.normal(0, 0.3, (FRAMES, 1, 3)), axis=0)
    landmarks = head + 300 + drift + RNG.normal(0, 2, (FRAMES, MESH_POINTS, 3))
    usable = np.ones(FRAMES, np.bool_)
    usable[700:710] = False
    shot = np.searchsorted([BLOCK - 3, 900], np.arange(FRAMES), side="right").astype(np.int32)
    return Track(landmarks.astype(np.float32), np.ones(FRAMES, np.float32), usable, shot)


@pytest.fixture(scope="module")
def motion() -> Motion:
    size = LipSpace.load().size
    return Motion(RNG.normal(0, 0.05, (FRAMES, size)).astype(np.float32), np.ones(FRAMES, np.float32))


@pytest.fixture(scope="module")
def bank(track: Track) -> Bank:
    """Twenty mouths without pictures: which are shown is decided without looking at them."""
    points, size = 468, LipSpace.load().size
    row = {name: RNG.normal(0, 0.1, (20, width)).astype(np.float32) for name, width in (("c", size), ("a", 3), ("k", 12))}
    ring = RNG.normal(0, 1, (21, 3)).astype(np.float32)
    reach = np.concatenate([RNG.uniform(0, 1, points), np.zeros(21)]).astype(np.float32)
    mesh = FaceMesh(np.array([[0, 1, 2]], np.int32), ring, reach, reach)
    basis = RNG.normal(0, 0.1, (size, 3 * (points + 21))).astype(np.float32)
    shape = ShapeModel(RNG.normal(0, 1, (points + 21, 3)).astype(np.float32), basis)
    stable = canonical(track.landmarks[:50]).points[0][list(STABLE)]
    corner, light, pictures = np.zeros((20, 2), np.int32), np.zeros((20, 3), np.float32), np.zeros((20, 8, 8, 3), np.uint8)
    vertices = np.zeros((20, points + 21, 2), np.float32)
    return Bank(
        np.arange(20, dtype=np.int32), corner, vertices, row["c"], row["a"], row["k"], light, pictures, stable, mesh, shape
    )


def test_rows_computed_a_block_at_a_time_are_those_of_the_whole_job_to_the_bit(track: Track, motion: Motion, bank: Bank) -> None:
    plan, whole = (Plan(bank, motion, track, RetrievalConfig()) for _ in range(2))
    rows = plan.row[plan.row >= 0]
    assert len(rows) == FRAMES - 10
    for row in [0, *np.sort(RNG.choice(rows, 100)).tolist(), len(rows) - 1, 0]:
        own, target = plan.vertices(row)
        assert (own == whole.own[row]).all() and (target == whole.target[row]).all()
    assert np.abs(whole.target - whole.own).max() > 0.01, "the mouth must move"


def test_a_plan_holds_no_vertices_but_those_of_a_block(track: Track, motion: Motion, bank: Bank) -> None:
    plan = Plan(bank, motion, track, RetrievalConfig())
    seen = 0
    for row in range(FRAMES - 10):
        plan.vertices(row)
        seen = max(seen, held(plan, track))
    assert seen < track.landmarks.nbytes, "as filmed and as wanted, all rows are twice that"


def held(plan: Plan, track: Track) -> int:
    """Bytes of the arrays that a plan holds besides the track's and the bank's."""
    arrays = [value for part in (plan, plan.faces, plan.choice) for value in vars(part).values()]
    arrays += list(plan._near)
    return sum(value.nbytes for value in arrays if isinstance(value, np.ndarray) and value is not track.landmarks)


def test_a_track_is_the_file_s_own_pages_and_nobody_writes_to_them(track: Track, tmp_path: Path) -> None:
    save_track(track, tmp_path / "a.safetensors")
    first, second = (load_track(tmp_path / "a.safetensors") for _ in range(2))
    for name in ("landmarks", "score", "usable", "shot"):
        assert (getattr(first, name) == getattr(track, name)).all() and getattr(first, name).dtype == getattr(track, name).dtype
    assert first.light is None
    assert inode_of(first.landmarks) == (tmp_path / "a.safetensors").stat().st_ino == inode_of(second.landmarks)
    with pytest.raises(ValueError, match="read-only"):
        first.landmarks[0] = 0


def inode_of(array: np.ndarray) -> int | None:
    """Of the file that an array's memory is mapped from."""
    place = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        start, stop = (int(edge, 16) for edge in words[0].split("-"))
        if start <= place < stop:
            return int(words[4])
    return None


def test_a_file_that_is_cut_off_or_no_track_is_refused(track: Track, tmp_path: Path) -> None:
    save_track(track, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for broken in (data[:-1], data[:40], b"", data[:8] + b"x" + data[9:]):
        (tmp_path / "b.safetensors").write_bytes(broken)
        with pytest.raises(WeightsError):
            load_track(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("order", "shared"),
    [(np.arange(50), True), (np.arange(7, 40), True), (np.array([0, 1, 2, 1, 0]), False), (np.array([3, 4, 6, 7]), False)],
)
def test_frames_in_a_row_are_seen_where_they_lie(track: Track, order: np.ndarray, shared: bool) -> None:
    picked = pick_rows(track, order)
    assert (picked.landmarks == track.landmarks[order]).all() and (picked.usable == track.usable[order]).all()
    assert np.shares_memory(picked.landmarks, track.landmarks) is shared


def test_a_plan_s_key_knows_what_was_written_since(track: Track, motion: Motion, tmp_path: Path) -> None:
    avatar, config = Avatar("video_rewrite", tmp_path, "0"), RetrievalConfig()
    mine = Track(track.landmarks.copy(), track.score, track.usable, track.shot)
    before = PlanKey(avatar, motion, mine, config)
    assert before == PlanKey(avatar, motion, track, config)
    mine.landmarks[3, 4, 1] += 1
    assert before != PlanKey(avatar, motion, mine, config)
    save_track(mine, tmp_path / "a.safetensors")
    for _ in range(2):
        assert PlanKey(avatar, motion, load_track(tmp_path / "a.safetensors"), config) == PlanKey(avatar, motion, mine, config)


def test_pages_that_were_let_go_are_not_held_and_come_back_when_they_are_looked_at(tmp_path: Path) -> None:
    size = 4 << 20
    (tmp_path / "pictures.u8").write_bytes(bytes(range(256)) * (size // 256))
    pictures = map_bytes(tmp_path / "pictures.u8", (size // 4096, 4096))
    total = int(pictures.sum(dtype=np.int64))
    assert mapped_kilobytes(tmp_path / "pictures.u8") == size // 1024
    let_go(pictures)
    assert mapped_kilobytes(tmp_path / "pictures.u8") == 0
    assert int(pictures.sum(dtype=np.int64)) == total


def mapped_kilobytes(file: Path) -> int:
    """How much of a file this process holds."""
    sections = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    ours = [section for section in sections if str(file) in section.partition("\n")[0]]
    return sum(int(size) for section in ours for size in re.findall(r"^Rss: +(\d+) kB", section, flags=re.MULTILINE))


def test_what_is_free_goes_back_to_the_system() -> None:
    parts = [bytearray(100_000) for _ in range(800)]  # too small to be mapped one by one
    kept = parts[::8]  # between those that are free, so that the heap cannot shrink by itself
    del parts
    before = own_kilobytes()
    give_back()
    assert before - own_kilobytes() > 40_000 and len(kept) == 100


def own_kilobytes() -> int:
    """Memory of this process that is no file's."""
    found = re.search(r"^Pss_Anon: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1])
