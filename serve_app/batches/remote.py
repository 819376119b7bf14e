"""A batch made by a running server: rows go through its API, a few at a time, and come back into the same store and table.

Every row has an idempotency key made of what it says, so that the same command, started again, joins the jobs that go on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from deployments.contracts import Progress, no_progress
from deployments.errors import LipSyncError, OptionError, RenderError
from serve_app.batches.manifest import Mistake, Row, read_manifest, refuse
from serve_app.batches.report import Summary, summarize, write_report
from serve_app.batches.rows import RowResult, RowTask, figures_of, open_store, told, url_of, write_record
from serve_app.batches.run import Batch, make_all
from serve_app.cache import digest_of
from serve_app.client import Remote, RemoteError
from serve_app.executor import OnTick, Tick
from serve_app.personalize import Wanted
from serve_app.request import check_slot_mode
from serve_app.script import DEFAULT_VOICE, Script, Value, parse_script
from serve_app.speech import check_said

Task = TypeVar("Task")
Result = TypeVar("Result")
AT_ONCE = 8  # rows that the server is asked for side by side
MOST_KEYS = 50  # jobs of one row that failed in earlier runs
ENDLESS = ("server_away", "invalid_api_key")  # what the next row would meet as well


class Threads:
    """Rows side by side in threads that wait for a server. They end with the program, so that an interrupt is prompt."""

    def __init__(self, count: int) -> None:
        self._count = count

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """In order, one by one: what is mapped here is work of this machine."""
        return map(function, tasks)

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """As they come; one tick per task. The first error ends all."""
        waiting: SimpleQueue[Task] = SimpleQueue()
        ended: SimpleQueue[Result | BaseException] = SimpleQueue()
        for task in tasks:
            waiting.put(task)

        def work() -> None:
            while True:
                try:
                    ended.put(function(waiting.get_nowait(), lambda count: None))
                except Empty:
                    return
                except BaseException as error:  # noqa: BLE001 raised where the results are taken
                    ended.put(error)
                    return

        for _ in range(min(self._count, len(tasks))):
            threading.Thread(target=work, daemon=True).start()
        for _ in tasks:
            result = ended.get()
            if isinstance(result, BaseException):
                raise result
            on_tick(1)
            yield result


def run_remote(
    batch: Batch, remote: Remote, at_once: int = AT_ONCE, progress: Progress = no_progress
) -> tuple[Summary, list[RowResult]]:
    """The batch's template is the id of one on the server; its cache is not used.

    Raises ManifestError before the first row is sent if one is wrong; a row that fails later does not stop the others.
    """
    started = time.monotonic()
    check_slot_mode(batch.wanted.sync_mode)
    place, template = batch.place, batch.place.template
    script = script_of(remote.template(template), template)
    rows, mistakes = read_manifest(batch.manifest, script, batch.bring)
    mistakes += check_speeches(script, rows, batch.wanted, progress)
    if not batch.skip_invalid:
        refuse(mistakes)
    wrong = {mistake.number for mistake in mistakes}
    tasks = [
        RowTask(place, row, batch.wanted, key_of(batch, script, row), batch.measure) for row in rows if row.number not in wrong
    ]
    render = partial(remote_row, remote, script)
    results = make_all(tasks, Threads(at_once), progress, render, warm=lambda task: True)
    results += [RowResult(m.number, m.name, "invalid", error=m.error) for m in mistakes]
    summary = summarize(template, batch.wanted.engine, time.monotonic() - started, results)
    write_report(open_store(place), summary, results)
    return summary, sorted(results, key=lambda result: result.number)


def script_of(job: dict[str, Any], template: str) -> Script:
    """The script of a template that is ready. Raises OptionError."""
    if job["status"] != "completed" or not job.get("script"):
        raise OptionError(f"expected a template of the server that is ready, got {template!r}, which is {job['status']}")
    return parse_script(job["script"], template)


def key_of(batch: Batch, script: Script, row: Row) -> str:
    """Equal for rows that ask the server for the same file."""
    values = {name: told(absolute(value)) for name, value in sorted({**script.defaults, **row.values}.items())}
    return digest_of("remote row", batch.place.template, values, asdict(batch.wanted))


def absolute(value: Value) -> Value:
    """A recording by its whole path."""
    return value if value.audio is None else replace(value, audio=value.audio.absolute())


def check_speeches(script: Script, rows: Sequence[Row], wanted: Wanted, progress: Progress) -> list[Mistake]:
    """Rows that the embedded voice cannot say in the time of the slots; of its own voices, the server tells row by row."""
    found: dict[str, str] = {}
    progress("check", 0, len(rows))
    for done, row in enumerate(rows, 1):
        same = repr(sorted(row.values.items()))
        if same not in found:
            found[same] = why_not(script, row, wanted)
        progress("check", done, len(rows))
    pairs = [(row, found[repr(sorted(row.values.items()))]) for row in rows]
    return [Mistake(row.number, row.name, error) for row, error in pairs if error]


def why_not(script: Script, row: Row, wanted: Wanted) -> str:
    """Why a row cannot be said; empty where it can."""
    try:
        for source in script.fill(row.values):
            if (source.voice or script.voice) == DEFAULT_VOICE:
                check_said(source, DEFAULT_VOICE, wanted.sync_mode)
    except LipSyncError as error:
        return str(error)
    return ""


def remote_row(remote: Remote, script: Script, task: RowTask, tick: Tick) -> RowResult:
    """One row by the server, its file, thumbnail and record here. Raises RemoteError where no row can be made any more."""
    started = time.monotonic()
    number, name = task.row.number, task.row.name
    try:
        done = fetch_row(remote, script, task)
    except RemoteError as error:
        if error.code in ENDLESS:
            raise
        done = RowResult(number, name, "failed", task.key, error=str(error))
    except LipSyncError as error:
        done = RowResult(number, name, "failed", task.key, error=str(error))
    except Exception as error:  # noqa: BLE001 a row must never end the batch
        done = RowResult(number, name, "failed", task.key, error=f"{type(error).__name__}: {error}")
    done = replace(done, seconds=round(time.monotonic() - started, 3))
    if done.status == "done":
        write_record(task.place, done)
    tick(1)
    return done


def fetch_row(remote: Remote, script: Script, task: RowTask) -> RowResult:
    """See `remote_row`. Raises the errors of `deployments.errors`, or RemoteError."""
    from deployments.media.thumbnail import write_thumbnail
    from serve_app.pipeline import probe_clip

    store, name = open_store(task.place), task.row.name
    video, picture, report = f"{name}.mp4", f"thumbnails/{name}.jpg", f"reports/{name}"
    for key in (video, picture):
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
    folder = store.root / report if task.measure else None
    job = remote.take(job_of(remote, task), store.root / video, folder)
    segment = script.lines[0].segment
    write_thumbnail(probe_clip(store.root / video), (segment.start + segment.end) / 2, store.root / picture)
    store.put(store.root / picture, picture)
    store.put(store.root / video, video)
    measured = folder is not None and (folder / "report.json").is_file()
    if measured:
        store.put_folder(store.root / report, report)
    return RowResult(
        *(task.row.number, name, "done", task.key, url_of(task.place, video), picture),
        cpu_seconds=None,
        frames=int(job.get("frames") or 0),
        changed=None,
        copied=None,
        note=f"job {job['id']}",
        report=f"{report}/report.html" if measured else "",
        figures=figures_of(store.root / report / "report.json") if measured else {},
    )


def job_of(remote: Remote, task: RowTask) -> dict[str, Any]:
    """The row's job on the server: a new one, or the one that an earlier run began. One that failed then is tried anew."""
    fields, recordings = body_of(task)
    for number in range(MOST_KEYS):
        try:
            job = remote.create(fields, recordings, f"lipsync-batch-{task.key}-{int(task.measure)}-{number}")
        except RemoteError as error:
            if error.code == "idempotency_conflict":  # another version of the server read the row another way
                continue
            raise
        if job["status"] != "failed" and (job["status"] != "completed" or job.get("content_url")):
            return job
    raise RenderError(f"expected the server to make {task.row.name}, got {MOST_KEYS} jobs that failed; look at its log")


def body_of(task: RowTask) -> tuple[dict[str, str], dict[str, Path]]:
    """Form fields of `POST /v1/videos`, and the recordings by the name of their part."""
    wanted = task.wanted
    values = sorted(task.row.values.items())
    recordings = {f"recording-{name}": value.audio for name, value in values if value.audio is not None}
    variables = {
        name: {"text": value.text, "ipa": value.ipa} if value.audio is None else {"audio": f"recording-{name}"}
        for name, value in values
    }
    fields = {
        "template_id": task.place.template,
        "variables": json.dumps(variables),
        "model": wanted.engine,
        "sync_mode": wanted.sync_mode,
        "report": "true" if task.measure else "false",
        "options": json.dumps({"quality": wanted.quality, "expression": wanted.expression, **wanted.options}),
    }
    return fields, recordings
