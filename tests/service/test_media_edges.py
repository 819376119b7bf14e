"""The media store at its edges: writers killed in the middle, collectors that race with writers, copies nobody needs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from deployments.errors import OutputError
from serve_app.media_store import MediaStore
from tests.service.conftest import Stores

ROOT = Path(__file__).resolve().parents[2]
OLD = 7 * 3600.0
PUT = """
import sys
from pathlib import Path
from deployments.errors import OutputError
from serve_app.media_store import MediaStore
MediaStore(sys.argv[1]).put(Path(sys.argv[2]), sys.argv[3])
"""


def make(place: Path, content: bytes = b"content") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def age(path: Path) -> None:
    """As if it had been written hours ago."""
    then = time.time() - OLD
    os.utime(path, (then, then))


def test_a_writer_killed_in_the_middle_leaves_nothing_under_the_key(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", PUT, str(tmp_path / "store"), str(pipe), "results/a.mp4"], env=place)
    with pipe.open("wb", buffering=0) as source:  # opens as soon as the child reads
        source.write(b"x" * (1 << 20))  # more than the pipe holds: the child has read some of it
        store = MediaStore(str(tmp_path / "store"))
        (part,) = (store.root / "results").iterdir()
        assert not store.exists("results/a.mp4") and list(store.keys("")) == []
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert store.collect(set(), 0.0, ["results"]) == 0 and part.exists(), "it might still be written"
    age(part)
    assert store.collect(set(), 0.0, ["results"]) == 1 and not part.exists()


def test_files_of_a_folder_that_is_still_made_are_no_keys(tmp_path: Path) -> None:
    store = MediaStore(str(tmp_path))
    young = make(tmp_path / "avatars" / ".made-aside" / "parts" / "weights.bin")
    age(young)
    assert list(store.keys("avatars/")) == []
    assert store.collect(set(), 60.0, ["avatars"]) == 0 and young.exists()


def test_a_folder_in_use_keeps_its_files(store: MediaStore, tmp_path: Path) -> None:
    make(tmp_path / "made" / "index.html")
    make(tmp_path / "made" / "pictures" / "0.png")
    for key in ("reports/a", "reports/ab"):
        store.put_folder(tmp_path / "made", key)
    assert store.collect({"reports/a"}, -1.0, ["reports"]) == 2
    assert {key for key, _ in store.keys("reports/")} == {"reports/a/index.html", "reports/a/pictures/0.png"}


def test_copies_of_what_was_deleted_elsewhere_do_not_stay(stores: Stores, tmp_path: Path) -> None:
    here, there = stores.open(), stores.open()
    here.put(make(tmp_path / "file"), "results/a.mp4")
    here.put(make(tmp_path / "file"), "results/b.mp4")
    copies = [there.fetch(f"results/{name}.mp4") for name in "ab"]
    here.delete("results/a.mp4")
    for copy in copies:
        if copy.exists():
            age(copy)
    there.collect({"results/b.mp4"}, 60.0, ["results"])
    assert [copy.exists() for copy in copies] == [False, True]
    assert here.exists("results/b.mp4")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_put_again_while_it_is_collected_is_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store, source, move = MediaStore(str(tmp_path / "store")), make(tmp_path / "file"), os.rename
    key = store.put_content(source, "inputs", ".bin")
    age(store.root / key)

    def move_beside_a_writer(here: Path, there: Path) -> None:
        if moment == "before":
            store.put_content(source, "inputs", ".bin")
        move(here, there)
        if moment == "after":
            store.put_content(source, "inputs", ".bin")

    monkeypatch.setattr(os, "rename", move_beside_a_writer)
    store.collect(set(), 60.0, ["inputs"])
    assert store.fetch(key).read_bytes() == b"content"
    assert [path.name for path in (store.root / key).parent.iterdir()] == [Path(key).name], "nothing is left beside it"


def test_a_stored_file_may_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    store = MediaStore(str(tmp_path / "store"))
    store.put(make(tmp_path / "file"), "results/a.mp4")
    plain = make(tmp_path / "plain")
    assert stat.S_IMODE((store.root / "results/a.mp4").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_content_is_read_in_blocks(tmp_path: Path) -> None:
    big, store = tmp_path / "big", MediaStore(str(tmp_path / "store"))
    with big.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        key = store.put_content(big, "inputs", ".mp4")
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store.size(key) == 64 << 20 and highest < 8 << 20


def test_a_result_that_is_not_in_its_place_is_no_result(tmp_path: Path) -> None:
    store = MediaStore(str(tmp_path))
    with pytest.raises(OutputError, match="expected a file to keep"):
        store.put(tmp_path / "results" / "a.mp4", "results/a.mp4")
