"""The media store as a folder and as a real S3 server: whole or nothing, seen by all machines, collected when old."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from deployments.errors import InputError, OptionError, OutputError
from serve_app.media_store import LONGEST_KEY, MediaMissing, MediaStore, check_key
from serve_app.whole_files import MARKER
from tests.service.conftest import Stores, make_s3

OLD = 7 * 3600.0


def make(folder: Path, name: str, content: bytes = b"content") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def keys(store: MediaStore, prefix: str) -> list[str]:
    return sorted(key for key, _ in store.keys(prefix))


def grow_old(store: MediaStore, stores: Stores, key: str) -> None:
    stores.grow_old(store, key, OLD)
    assert dict(store.keys(key.rpartition("/")[0]))[key] > OLD - 60


@pytest.mark.parametrize("key", ["a", "inputs/ab/clip_1-x.mp4", "reports/video_1/index.html", "a/.hidden", "x@2.png", "a" * 200])
def test_plain_keys_are_accepted(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key",
    ["", "/x", "../x", "a/../b", "a//b", "a/./b", "a/", ".", "..", "a\0b", "a\nb", "a\n", "a b", "a\\b", "ä", "a/..."]
    + ["a" * 201, "/".join(["abcdefghi"] * (LONGEST_KEY // 10 + 1))],
)
def test_other_keys_are_refused_by_every_door(key: str, tmp_path: Path) -> None:
    store = MediaStore(str(tmp_path / "store"))
    path = make(tmp_path, "file")
    make(tmp_path, "x")
    doors = [store.fetch, store.fetch_folder, store.open, store.size, store.exists, store.delete, store.delete_folder]
    for door in (*doors, lambda key: store.put(path, key), lambda key: store.put_folder(tmp_path, key)):
        with pytest.raises(InputError, match="expected a key"):
            door(key)
    assert keys(store, "") == []


def test_a_file_comes_back_on_every_machine(stores: Stores, tmp_path: Path) -> None:
    here, there = stores.open(), stores.open()
    content = os.urandom(100_000)
    here.put(make(tmp_path, "clip", content), "inputs/aa/clip.mp4")
    for store in (here, there):
        assert store.exists("inputs/aa/clip.mp4") and store.size("inputs/aa/clip.mp4") == 100_000
        with store.open("inputs/aa/clip.mp4") as file:
            file.seek(50_000)
            assert file.read(10) == content[50_000:50_010]
        assert store.fetch("inputs/aa/clip.mp4").read_bytes() == content
        assert store.fetch("inputs/aa/clip.mp4") == store.root / "inputs/aa/clip.mp4"


def test_what_is_not_there_is_missing(store: MediaStore, tmp_path: Path) -> None:
    store.put(make(tmp_path, "file"), "inputs/aa/clip.mp4")
    for key in ("inputs/aa/other.mp4", "inputs/aa", "inputs/aa/clip.mp4/below"):
        assert not store.exists(key)
        for door in (store.fetch, store.open, store.fetch_folder):
            if store.local and (key, door) == ("inputs/aa", store.fetch_folder):
                continue  # a folder of this machine
            with pytest.raises(MediaMissing):
                door(key)
    store.delete("inputs/aa/other.mp4")
    store.delete_folder("inputs/zz")
    assert keys(store, "") == ["inputs/aa/clip.mp4"]


def test_another_machine_s_changes_are_seen_at_once(stores: Stores, tmp_path: Path) -> None:
    here, there = stores.open(), stores.open()
    path = make(tmp_path, "file")
    here.put(path, "jobs/k/a")
    assert keys(there, "jobs/k") == ["jobs/k/a"] and not there.exists("jobs/k/b")
    here.put(path, "jobs/k/b")
    assert there.exists("jobs/k/b") and keys(there, "jobs/k/") == ["jobs/k/a", "jobs/k/b"]
    here.delete("jobs/k/a")
    assert not there.exists("jobs/k/a") and keys(there, "jobs/k/") == ["jobs/k/b"]


def test_a_prefix_is_a_folder_not_the_beginning_of_a_name(store: MediaStore, tmp_path: Path) -> None:
    for key in ("jobs/k/a", "jobs/kk/a", "jobs/k2"):
        store.put(make(tmp_path, "file"), key)
    assert keys(store, "jobs/k") == keys(store, "jobs/k/") == ["jobs/k/a"]
    store.delete_folder("jobs/k")
    assert keys(store, "jobs") == ["jobs/k2", "jobs/kk/a"]


def test_equal_content_is_stored_once(store: MediaStore, tmp_path: Path) -> None:
    first = store.put_content(make(tmp_path, "a", b"same"), "inputs", ".mp4")
    second = store.put_content(make(tmp_path, "b", b"same"), "inputs", ".mp4")
    digest = hashlib.sha256(b"same").hexdigest()
    assert first == second == f"inputs/{digest[:2]}/{digest}.mp4"
    other = store.put_content(make(tmp_path, "c", b"other"), "inputs", ".mp4")
    assert keys(store, "inputs") == sorted([first, other])


def test_a_put_replaces_what_was_there(stores: Stores, tmp_path: Path) -> None:
    here = stores.open()
    here.put(make(tmp_path, "a", b"old"), "results/a.mp4")
    here.put(make(tmp_path, "b", b"new"), "results/a.mp4")
    assert here.fetch("results/a.mp4").read_bytes() == stores.open().fetch("results/a.mp4").read_bytes() == b"new"


def test_a_result_made_in_its_place_is_stored(stores: Stores) -> None:
    here, there = stores.open(), stores.open()
    here.put(make(here.root, "results/a.mp4", b"made here"), "results/a.mp4")
    assert there.fetch("results/a.mp4").read_bytes() == b"made here"


@pytest.mark.parametrize("source", ["vanished", "a folder"])
def test_a_put_that_fails_leaves_nothing(stores: Stores, tmp_path: Path, source: str) -> None:
    here = stores.open()
    path = tmp_path / "source"
    if source == "a folder":
        path.mkdir()
    for put in (lambda: here.put(path, "inputs/aa/clip.mp4"), lambda: here.put_content(path, "inputs", ".mp4")):
        with pytest.raises(OutputError, match="expected"):
            put()
    for store in (here, stores.open()):
        assert not store.exists("inputs/aa/clip.mp4") and keys(store, "inputs") == []
        assert [path for path in store.root.rglob("*") if path.is_file()] == []
        with pytest.raises(MediaMissing):
            store.fetch("inputs/aa/clip.mp4")


def test_a_put_that_fails_in_the_middle_keeps_what_was_there(tmp_path: Path) -> None:
    """/proc/self/mem opens, and its first byte cannot be read."""
    store = MediaStore(str(tmp_path / "store"))
    store.put(make(tmp_path, "old", b"old"), "results/a.mp4")
    with pytest.raises(OutputError):
        store.put(Path("/proc/self/mem"), "results/a.mp4")
    assert store.fetch("results/a.mp4").read_bytes() == b"old"
    assert [path.name for path in (store.root / "results").iterdir()] == ["a.mp4"], "nothing half copied is left"


def test_a_store_that_does_not_answer_is_no_missing_file(s3_server: str, tmp_path: Path) -> None:
    stores = make_s3(s3_server, tmp_path)
    path = make(tmp_path, "file")
    dead = {**stores.options, "endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    store = MediaStore(stores.url, tmp_path / "mirror", {**dead, "skip_instance_cache": True, "retries": 1})
    for door in (store.exists, store.fetch, store.size, store.open, lambda key: store.put(path, key)):
        with pytest.raises(OutputError, match="expected the store to answer"):
            door("inputs/aa/clip.mp4")
    assert not (store.root / "inputs/aa/clip.mp4").exists(), "no copy of what was not stored"


def test_a_fetch_that_fails_leaves_no_copy(stores: Stores) -> None:
    store = stores.open()
    with pytest.raises(MediaMissing):
        store.fetch("inputs/aa/clip.mp4")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_folder_comes_back_whole_on_every_machine(stores: Stores, tmp_path: Path) -> None:
    here, there = stores.open(), stores.open()
    for name in ("index.html", "zebra.npz", "below/picture.png"):
        make(tmp_path / "report", name, name.encode())
    here.put_folder(tmp_path / "report", "reports/a")
    for store in (here, there):
        folder = store.fetch_folder("reports/a")
        assert folder == store.root / "reports/a"
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        found.pop(MARKER, None)
        assert found == {name: name.encode() for name in ("index.html", "zebra.npz", "below/picture.png")}
    assert keys(there, "reports") == ["reports/a/below/picture.png", "reports/a/index.html", "reports/a/zebra.npz"]
    here.delete_folder("reports/a")
    for store in (here, stores.open()):
        with pytest.raises(MediaMissing):
            store.fetch_folder("reports/a")


def test_a_folder_without_its_marker_is_not_there(s3_server: str, tmp_path: Path) -> None:
    stores = make_s3(s3_server, tmp_path)
    here = stores.open()
    make(tmp_path / "avatar", "cached.json")
    here.put_folder(tmp_path / "avatar", "avatars/a")
    here.delete(f"avatars/a/{MARKER}")
    there = stores.open()
    with pytest.raises(MediaMissing):
        there.fetch_folder("avatars/a")
    assert not (there.root / "avatars/a").exists()


def test_a_folder_of_which_one_file_was_read_is_fetched_whole(stores: Stores, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        make(tmp_path / "report", name)
    stores.open().put_folder(tmp_path / "report", "reports/a")
    there = stores.open()
    there.fetch("reports/a/b.json")
    assert (there.fetch_folder("reports/a") / "a.json").is_file()


def test_half_a_folder_is_never_seen(stores: Stores, tmp_path: Path) -> None:
    here = stores.open()
    make(tmp_path / "avatar", "a.json")
    (tmp_path / "avatar" / "b.npz").symlink_to("/proc/self/mem")  # cannot be read
    with pytest.raises(OutputError):
        here.put_folder(tmp_path / "avatar", "avatars/a")
    for store in (here, stores.open()):
        with pytest.raises(MediaMissing):
            store.fetch_folder("avatars/a")
    with pytest.raises(OutputError):
        here.put_folder(tmp_path / "nothing", "avatars/a")


def test_the_collector_takes_what_is_old_and_unused(store: MediaStore, stores: Stores, tmp_path: Path) -> None:
    for key in ("inputs/aa/used", "inputs/aa/old", "inputs/aa/young", "results/old"):
        store.put(make(tmp_path, "file"), key)
        if "young" not in key:
            grow_old(store, stores, key)
    assert store.collect({"inputs/aa/used"}, 3600, ("inputs",)) == 1
    assert keys(store, "") == ["inputs/aa/used", "inputs/aa/young", "results/old"]


def test_a_file_that_comes_again_is_young_again(store: MediaStore, stores: Stores, tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    key = store.put_content(path, "inputs", ".mp4")
    grow_old(store, stores, key)
    assert store.put_content(path, "inputs", ".mp4") == key
    assert store.collect(set(), 3600, ("inputs",)) == 0
    assert store.exists(key)


def test_a_file_that_comes_again_while_the_collector_runs_stays(store: MediaStore, stores: Stores, tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    key = store.put_content(path, "inputs", ".mp4")
    grow_old(store, stores, key)

    class Asked(set[str]):
        def __contains__(self, asked: object) -> bool:
            store.put_content(path, "inputs", ".mp4")  # at the worst moment: its age is read, its use is looked up
            return False

    assert store.collect(Asked(), 3600, ("inputs",)) == 0
    assert store.exists(key)


def test_the_collector_sweeps_what_dead_processes_left(stores: Stores) -> None:
    store = stores.open()
    for name in ("inputs/.clip.dead.part.mp4", "jobs/a/.chunk.dead.part.m4s", "avatars/.folder-dead/model.npz"):
        dead = make(store.root, name)
        for path in (dead, dead.parent):
            os.utime(path, (time.time() - OLD,) * 2)
    alive = make(store.root, "inputs/.clip.alive.part.mp4")
    assert store.collect(set(), 3600, ("inputs",)) == 3
    assert [path for path in store.root.rglob("*") if path.is_file()] == [alive]


def test_an_object_store_needs_a_mirror() -> None:
    with pytest.raises(OptionError, match="expected a mirror folder"):
        MediaStore("s3://bucket/prefix")
    with pytest.raises(OutputError, match="expected a store"):
        MediaStore("nothing://bucket", Path("/tmp"))
