"""What a cancelled fit leaves is found by the next one; a finished avatar is whole, a failed one leaves nothing."""

from __future__ import annotations

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
