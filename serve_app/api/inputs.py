"""Media of a request: from an upload, a URL or an asset to a checked file with its place in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from serve_app.api.errors import ApiError, about
from serve_app.api.schemas import MediaRef
from serve_app.api.services import ApiSettings, Services
from serve_app.api.uploads import UNSAFE, Form
from serve_app.whole_files import content_digest

if TYPE_CHECKING:
    from serve_app.intake import MediaFacts, MediaLimits

Kind = Literal["video", "audio", "image"]
ROOM = "inputs"
MAX_KNOWN = 10_000
PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")


@dataclass(frozen=True)
class Checked:
    """A media file that may be used: where it lies now, what it is, and its key in the store."""

    param: str
    path: Path
    facts: MediaFacts
    key: str
    kept: bool  # an asset: it lies in the store already
    name: str  # as the caller calls it; never used as a path


class Intake:
    """Brings in the media of one request. Blocking: runs in a thread."""

    def __init__(self, services: Services, owner: str, form: Form) -> None:
        self._services, self._owner, self._form = services, owner, form
        self._used: set[str] = set()
        self._stored: list[str] = []
        self._located: dict[str, tuple[Path, str | None]] = {}  # by field: nothing is fetched twice

    def check(self, source: MediaRef, kind: Kind, param: str, *, face: bool = False) -> Checked:
        """The file behind a field, probed; with `face`, a video must show one. Raises ApiError that names the field."""
        with about(param):
            path, key = self._once(source, param)
            digest = PurePosixPath(key).stem if key else content_digest(path)
            facts = self._facts(path, digest, kind, face and self._services.settings.look_for_face)
            place = key or f"{ROOM}/{digest[:2]}/{digest}{facts.suffix}"
            return Checked(param, path, facts, place, key is not None, self._name(source))

    def _facts(self, path: Path, digest: str, kind: Kind, face: bool) -> MediaFacts:
        from serve_app.intake import check_media

        known = self._services.facts
        facts: MediaFacts | None = known.get((digest, kind, face))
        if facts is None:
            facts = check_media(path, kind, media_limits(self._services.settings), face=face)
            if len(known) >= MAX_KNOWN:
                known.clear()
            known[digest, kind, face] = facts
        return facts

    def _name(self, source: MediaRef) -> str:
        name = source.file_id or ""
        if source.url is not None:
            return unquote(urlsplit(source.url).path)
        if name in self._form.files:
            return self._form.files[name].filename
        return self._services.jobs.asset(name, self._owner).name

    def locate(self, source: MediaRef, param: str) -> Path:
        """The file behind a field, not probed yet."""
        with about(param):
            return self._once(source, param)[0]

    def check_no_extra(self) -> None:
        """Raise ApiError for a file part that no field speaks of."""
        extra = sorted(set(self._form.files) - self._used)
        if extra:
            raise ApiError(f"expected only files that a field refers to, got {', '.join(extra)!r} beside them", param=extra[0])

    def store(self, items: list[Checked]) -> None:
        """Put the files into the store, each content once."""
        media = self._services.media
        for item in items:
            if item.kept:
                continue
            if not media.exists(item.key):
                self._stored.append(item.key)
            kept = media.put_content(item.path, ROOM, item.facts.suffix)
            assert kept == item.key, "the store names content as we do"

    def store_again(self, items: list[Checked]) -> None:
        """Bring back what a refused request with equal files took away between our storing and our job's row."""
        for item in items:
            if not item.kept and not self._services.media.exists(item.key):
                self._services.media.put(item.path, item.key)

    def take_back(self) -> None:
        """Delete what this request stored and no job or asset uses: nothing stays of a refusal."""
        in_use = self._services.jobs.keys_in_use() if self._stored else set()
        for key in set(self._stored) - in_use:
            self._services.media.delete(key)

    def _once(self, source: MediaRef, param: str) -> tuple[Path, str | None]:
        if param not in self._located:
            self._located[param] = self._locate(source, param)
        return self._located[param]

    def _locate(self, source: MediaRef, param: str) -> tuple[Path, str | None]:
        if source.url is not None:
            return self._download(source.url, param), None
        name = source.file_id or ""
        if name in self._form.files:
            self._used.add(name)
            return self._form.files[name].path, None
        if name.startswith("asset_"):
            asset = self._services.jobs.asset(name, self._owner)
            return self._services.media.fetch(asset.key), asset.key
        raise ApiError(f"expected a file part, a URL (http or https) or an asset id (asset_…), got {name[:80]!r}", param=param)

    def _download(self, url: str, param: str) -> Path:
        from serve_app.intake import fetch_url

        settings = self._services.settings
        into = self._form.folder / "fetched" / UNSAFE.sub("_", param)
        into.parent.mkdir(parents=True, exist_ok=True)
        return fetch_url(
            url, into, limit_bytes=settings.max_upload_bytes, allow=settings.address_rule(), timeout=settings.url_timeout_seconds
        )


def media_limits(settings: ApiSettings) -> MediaLimits:
    """What media may be."""
    from serve_app.intake import MediaLimits

    return MediaLimits(
        max_seconds=settings.max_seconds_per_clip, max_side=settings.max_side, max_fps=settings.max_frames_per_second
    )


def is_picture(path: Path) -> bool:
    """Whether a file starts like a picture."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(PICTURE_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
