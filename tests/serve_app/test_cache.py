"""What a cancelled fit leaves is found by the next one; a finished avatar is whole, a failed one leaves nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deployments.contracts import Avatar
from deployments.errors import Cancelled, NoFaceError
from serve_app.cache import Cache


def test_a_cancelled_fit_goes_on_in_its_own_folder(tmp_path: Path) -> None:
    cache, found = Cache(tmp_path), []

    def fit(folder: Path) -> Avatar:
        half = folder / "half"
        found.append(half.read_text() if half.exists() else "")
        half.write_text("half of the work")
        if len(found) == 1:
            raise Cancelled("stopped")
        half.unlink()
        return Avatar("fake", folder, "digest")

    with pytest.raises(Cancelled):
        cache.avatar("key", fit)
    avatar = cache.avatar("key", fit)
    assert found == ["", "half of the work"]
    assert sorted(path.name for path in avatar.path.iterdir()) == ["cached.json"]
    assert [path.name for path in avatar.path.parent.iterdir()] == ["key"]


def test_a_failed_fit_leaves_nothing(tmp_path: Path) -> None:
    def fit(folder: Path) -> Avatar:
        (folder / "half").write_text("useless")
        raise NoFaceError("nobody")

    with pytest.raises(NoFaceError):
        Cache(tmp_path).avatar("key", fit)
    assert not list((tmp_path / "avatars").iterdir())


@pytest.mark.parametrize("damage", ["cut", "gone", "facts"])
def test_a_damaged_avatar_is_fitted_anew(tmp_path: Path, damage: str) -> None:
    cache, fits = Cache(tmp_path), []

    def fit(folder: Path) -> Avatar:
        fits.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "tensors").write_bytes(bytes(100))
        return Avatar("fake", folder, "digest")

    place = cache.avatar("key", fit).path
    assert cache.avatar("key", fit).path == place and len(fits) == 1
    if damage == "cut":
        (place / "deep" / "tensors").write_bytes(bytes(99))
    elif damage == "gone":
        (place / "deep" / "tensors").unlink()
    else:
        (place / "cached.json").write_text("{")
    assert cache.avatar("key", fit).path == place and len(fits) == 2
    assert (place / "deep" / "tensors").stat().st_size == 100
    (place / "whole.marker").touch()  # a store's
    assert cache.avatar("key", fit).path == place and len(fits) == 2


def test_what_a_killed_fit_left_goes_after_some_days(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    whole, killed, young = (tmp_path / "avatars" / name for name in ("key", ".key-x1", ".key-x2"))
    for folder in (whole, killed, young):
        folder.mkdir(parents=True)
    for folder in (whole, killed):
        os.utime(folder, (time.time() - 15 * 86400,) * 2)
    cache.prune(14)
    assert sorted((tmp_path / "avatars").iterdir()) == [young, whole]
