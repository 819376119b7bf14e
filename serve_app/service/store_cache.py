"""The cache of a server: the same entries, kept in the media store, so that every machine finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deployments.contracts import Avatar, Track
from serve_app.cache import Cache
from serve_app.media_store import MediaMissing, MediaStore
from serve_app.whole_files import MARKER


class StoreCache(Cache):
    """Entries live below the store's root; what another machine made is brought first, what is made here is kept."""

    def __init__(self, store: MediaStore) -> None:
        super().__init__(store.root)
        self._store = store

    def track(self, key: str, make: Callable[[], Track]) -> tuple[Track, Path]:
        """See `Cache.track`."""
        name = f"tracks/{key}.safetensors"
        self._bring(name, self._store.fetch)
        found = super().track(key, make)
        if not self._kept(name):
            self._store.put(found[1], name)
        return found

    def avatar(self, key: str, fit: Callable[[Path], Avatar]) -> Avatar:
        """See `Cache.avatar`."""
        name = f"avatars/{key}"
        self._bring(name, self._store.fetch_folder)
        avatar = super().avatar(key, fit)
        if not self._kept(f"{name}/{MARKER}"):
            self._store.put_folder(avatar.path, name)
        return avatar

    def job(self, key: str) -> Path:
        """See `Cache.job`: chunks that a run on another machine finished are brought here."""
        folder = super().job(key)
        if not self._store.local:
            for name, _ in list(self._store.keys(f"jobs/{key}/")):
                self._bring(name, self._store.fetch)
        return folder

    def drop_job(self, key: str) -> None:
        """See `Cache.drop_job`."""
        super().drop_job(key)
        if not self._store.local:
            self._store.delete_folder(f"jobs/{key}")

    def _kept(self, name: str) -> bool:
        """Whether the store has it: what is addressed by content is sent once, not with every job."""
        return self._store.local or self._store.exists(name)

    def _bring(self, name: str, fetch: Callable[[str], Path]) -> None:
        if self._store.local:
            return
        try:
            fetch(name)
        except MediaMissing:
            return
