"""One row of a batch, plain Python in whatever process: render, keep, write down. A row is there whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from deployments.errors import Cancelled, LipSyncError
from deployments.records import write_json
from serve_app.batches.manifest import Mistake, Row
from serve_app.cache import Cache, digest_of
from serve_app.executor import SerialExecutor
from serve_app.media_store import MediaMissing, MediaStore
from serve_app.personalize import Wanted, as_request, check_speech, personalize
from serve_app.pipeline import probe_clip, unchanged_chunks
from serve_app.script import Value
from serve_app.service.store_cache import StoreCache
from serve_app.templates import Template, Templates, bring
from serve_app.whole_files import content_digest

Status = Literal["done", "kept", "same", "failed", "invalid"]
Tick = Callable[[int], None]
FIGURES = (("picture", "upper_psnr"), ("picture", "flicker"), ("picture", "outside_changed_mean"), ("landmarks", "lmd_percent"))
SYNC_FIGURES = ("correlation", "lag_ms", "confidence")
RECORDINGS = "recordings"
CHECKED_AT_ONCE = 25  # rows whose speech one task tries


@dataclass(frozen=True)
class Place:
    """Where things are: URLs, so that another machine finds them too."""

    template: str
    cache: str  # templates, tracks, avatars
    out: str  # results
    mirror: Path  # local copies, where a URL is no folder


@dataclass(frozen=True)
class RowTask:
    """What a worker is told of one row."""

    place: Place
    row: Row
    wanted: Wanted
    key: str  # what the result is made of
    measure: bool = False  # a quality report beside the result


@dataclass(frozen=True)
class CheckTask:
    """Rows whose speech shall be tried."""

    place: Place
    rows: tuple[Row, ...]
    wanted: Wanted


@dataclass(frozen=True)
class RowResult:
    """What became of a row."""

    number: int
    name: str
    status: Status
    key: str = ""
    url: str = ""
    thumbnail: str = ""
    seconds: float = 0.0
    cpu_seconds: float | None = 0.0  # None, here and below: whoever made the row does not tell
    frames: int = 0
    changed: int | None = 0
    copied: int | None = 0
    note: str = ""
    error: str = ""
    report: str = ""  # page of the quality report
    figures: dict[str, float] = field(default_factory=dict)


def row_key(template: Template, row: Row, wanted: Wanted) -> str:
    """Equal for rows that ask for the same file. A newer program keeps what an older one made for a batch."""
    script = [(str(line.segment), line.text, *filter(None, [line.voice])) for line in template.script.lines]
    values = {name: told(value) for name, value in sorted({**template.script.defaults, **row.values}.items())}
    return digest_of("row", template.digest, template.face, template.script.voice, script, values, asdict(wanted))


def told(value: Value) -> Any:
    """A variable by its content."""
    if value.audio is None:
        return [value.text, value.ipa]
    return content_digest(value.audio) if value.audio.is_absolute() else value.audio.stem


def shared(place: Place, row: Row) -> Row:
    """The row with its recordings where all workers find them: by keys of the results' store, or as absolute paths."""
    local = open_store(place).local
    files = {name: value.audio for name, value in row.values.items() if value.audio is not None}
    found = {name: path.absolute() if local else Path(keep_recording(place, path)) for name, path in files.items()}
    return replace(row, values=row.values | {name: Value(audio=path) for name, path in found.items()})


@lru_cache(maxsize=4096)
def keep_recording(place: Place, path: Path) -> str:
    """Key of a recording. Raises OutputError."""
    return open_store(place).put_content(path, RECORDINGS, path.suffix)


def values_here(place: Place, row: Row) -> dict[str, Value]:
    """A row's variables with recordings as files of this machine. Raises MediaMissing."""
    away = {name: value.audio for name, value in row.values.items() if value.audio is not None and not value.audio.is_absolute()}
    return row.values | {name: Value(audio=open_store(place).fetch(key.as_posix())) for name, key in away.items()}


def render_row(task: RowTask, tick: Tick) -> RowResult:
    """Make one row's file, its thumbnail and its record. Only Cancelled is raised; all else is the row's own failure."""
    started, busy = time.monotonic(), time.process_time()
    number, name = task.row.number, task.row.name
    try:
        done = make_row(task, tick)
    except Cancelled:
        raise
    except LipSyncError as error:
        done = RowResult(number, name, "failed", task.key, error=str(error))
    except Exception as error:  # noqa: BLE001 a row must never end the batch
        done = RowResult(number, name, "failed", task.key, error=f"{type(error).__name__}: {error}")
    done = replace(done, seconds=round(time.monotonic() - started, 3), cpu_seconds=round(time.process_time() - busy, 3))
    if done.status == "done":
        write_record(task.place, done)
    tick(1)
    return done


def make_row(task: RowTask, tick: Tick) -> RowResult:
    """Render into the store's folder, then keep. Raises the errors of `deployments.errors`."""
    from deployments.media.thumbnail import write_thumbnail

    store, cache = open_store(task.place), open_cache_at(task.place)
    template = open_template(task.place)
    name = task.row.name
    video, picture = f"{name}.mp4", f"thumbnails/{name}.jpg"
    for key in (video, picture):
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
    report = f"reports/{name}"
    folder = store.root / report if task.measure else None
    job = personalize(
        *(template, values_here(task.place, task.row), store.root / video, task.wanted, cache, SerialExecutor()),
        progress=lambda *_: tick(0),
        report=folder,
    )
    first = template.script.lines[0].segment
    write_thumbnail(probe_clip(job.out), (first.start + first.end) / 2, store.root / picture)
    store.put(store.root / picture, picture)
    store.put(job.out, video)
    if folder is not None:
        store.put_folder(folder, report)
    return RowResult(
        *(task.row.number, name, "done", task.key, url_of(task.place, video), picture),
        frames=job.frames,
        changed=job.patched,
        copied=job.copied,
        note=job.note,
        report=f"{report}/report.html" if folder else "",
        figures=figures_of(folder / "report.json") if folder else {},
    )


def figures_of(path: Path) -> dict[str, float]:
    """What of a quality report stands in the table."""
    told = json.loads(path.read_text(encoding="utf-8"))
    found = {f"{room}.{name}": (told.get(room) or {}).get(name) for room, name in FIGURES}
    found |= {f"sync.{name}": ((told.get("sync") or {}).get("out") or {}).get(name) for name in SYNC_FIGURES}
    return {name: round(float(value), 4) for name, value in found.items() if value is not None}


def same_as(task: RowTask, other: RowResult) -> RowResult:
    """The row that says what another row says: its file is copied. Raises OutputError."""
    store = open_store(task.place)
    name = task.row.name
    store.put(store.fetch(f"{other.name}.mp4"), f"{name}.mp4")
    done = replace(
        other,
        number=task.row.number,
        name=name,
        status="same",
        url=url_of(task.place, f"{name}.mp4"),
        seconds=0.0,
        cpu_seconds=0.0,
        note=f"says the same as {other.name}",
    )
    write_record(task.place, done)
    return done


def check_rows(task: CheckTask) -> list[Mistake]:
    """Rows whose speech does not fit its slots, or cannot be said."""
    template, mistakes = open_template(task.place), []
    clip = probe_clip(template.clip)
    for row in task.rows:
        try:
            check_speech(template, clip, values_here(task.place, row), task.wanted.sync_mode)
        except LipSyncError as error:
            mistakes.append(Mistake(row.number, row.name, str(error)))
    return mistakes


def earlier(task: RowTask) -> RowResult | None:
    """The record of a row that an earlier run made of the same things, if its file is there; its report too, where wanted."""
    store = open_store(task.place)
    try:
        facts = json.loads(store.open(record_of(task.row.name)).read())
        known = RowResult(**{**facts, "number": task.row.number, "status": "kept"})
    except (MediaMissing, ValueError, TypeError):
        return None
    missing = task.measure and not known.report
    return known if known.key == task.key and not missing and store.exists(f"{task.row.name}.mp4") else None


def is_warm(task: RowTask) -> bool:
    """Whether all that rows share has been made already; else one row goes ahead of the others."""
    template, cache = open_template(task.place), open_cache_at(task.place)
    request = as_request(template, values_here(task.place, task.row), Path("unused.mp4"), task.wanted)
    return all(path.is_file() for path in unchanged_chunks(request, cache))


def write_record(place: Place, done: RowResult) -> None:
    """Say that a row is done: last, so that what is said is there."""
    store, key = open_store(place), record_of(done.name)
    write_json(store.root / key, asdict(done))
    store.put(store.root / key, key)


def record_of(name: str) -> str:
    """Key of a row's record."""
    return f"records/{name}.json"


def url_of(place: Place, key: str) -> str:
    """Where others find a file."""
    return f"{place.out.rstrip('/')}/{key}"


@lru_cache(maxsize=4)
def open_store(place: Place) -> MediaStore:
    """The results' store."""
    return MediaStore(place.out, mirror_of(place.out, place.mirror, "out"))


def cache_store(url: str, mirror: Path) -> MediaStore:
    """The store that holds templates and avatars."""
    return MediaStore(url, mirror_of(url, mirror, "cache"))


def mirror_of(url: str, mirror: Path, room: str) -> Path:
    """Where copies of a store lie: two stores may use the same names."""
    return mirror / f"{room}-{digest_of(url.rstrip('/'))[:12]}"


@lru_cache(maxsize=4)
def open_cache_at(place: Place) -> Cache:
    """The cache: a folder, or a store that several machines share."""
    if "://" in place.cache:
        return StoreCache(cache_store(place.cache, place.mirror))
    return Cache(Path(place.cache))


@lru_cache(maxsize=4)
def open_template(place: Place) -> Template:
    """The batch's template. Raises TemplateMissing."""
    if "://" in place.cache:
        bring(cache_store(place.cache, place.mirror), place.template)
    return Templates(open_cache_at(place).folder).open(place.template)
