"""A whole batch: check every row, go on where an earlier run ended, make what is left, write the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from deployments.contracts import Progress, no_progress
from serve_app.batches.manifest import Bring, Mistake, Row, read_manifest, refuse
from serve_app.batches.report import Summary, summarize, write_report
from serve_app.batches.rows import (
    CHECKED_AT_ONCE,
    CheckTask,
    Place,
    RowResult,
    RowTask,
    check_rows,
    earlier,
    is_warm,
    open_cache_at,
    open_store,
    open_template,
    render_row,
    row_key,
    same_as,
    shared,
)
from serve_app.executor import OnTick, SerialExecutor, Tick
from serve_app.personalize import Wanted
from serve_app.pipeline import fit_avatar, probe_clip, track_face
from serve_app.templates import Templates

Task = TypeVar("Task")
Result = TypeVar("Result")


class Pool(Protocol):
    """Processes that rows go to: `executor.LocalExecutor`, or actors of a cluster."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """In order."""
        ...

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """As they come."""
        ...


@dataclass(frozen=True)
class Batch:
    """What is asked for."""

    manifest: Path
    place: Place
    wanted: Wanted
    skip_invalid: bool = False
    measure: bool = False  # a quality report for every row
    bring: Bring | None = None  # fetches what lies beside the manifest


def run_batch(batch: Batch, pool: Pool, progress: Progress = no_progress) -> tuple[Summary, list[RowResult]]:
    """Raises ManifestError before the first frame if a row is wrong; a row that fails later does not stop the others."""
    started = time.monotonic()
    template = open_template(batch.place)
    check_wanted(batch.wanted)
    rows, mistakes = read_manifest(batch.manifest, template.script, batch.bring)
    rows = [shared(batch.place, row) for row in rows]
    mistakes += check_speeches(batch, rows, pool, progress)
    if not batch.skip_invalid:
        refuse(mistakes)
    results = [RowResult(m.number, m.name, "invalid", error=m.error) for m in mistakes]
    wrong = {mistake.number for mistake in mistakes}
    right = [row for row in rows if row.number not in wrong]
    tasks = [RowTask(batch.place, row, batch.wanted, row_key(template, row, batch.wanted), batch.measure) for row in right]
    learn(batch, progress)
    results += make_all(tasks, pool, progress)
    summary = summarize(template.name, batch.wanted.engine, time.monotonic() - started, results)
    write_report(open_store(batch.place), summary, results)
    return summary, sorted(results, key=lambda result: result.number)


def check_wanted(wanted: Wanted) -> None:
    """Raise OptionError for an engine or a mode that does not exist."""
    from deployments.engines.registry import get_engine
    from serve_app.request import check_slot_mode

    get_engine(wanted.engine)
    check_slot_mode(wanted.sync_mode)


def check_speeches(batch: Batch, rows: Sequence[Row], pool: Pool, progress: Progress) -> list[Mistake]:
    """Rows that the voice cannot say in the time of the slots. Equal rows are tried once."""
    different = list({repr(sorted(row.values.items())): row for row in reversed(rows)}.values())[::-1]
    groups = [
        CheckTask(batch.place, tuple(different[k : k + CHECKED_AT_ONCE]), batch.wanted)
        for k in range(0, len(different), CHECKED_AT_ONCE)
    ]
    found: list[Mistake] = []
    progress("check", 0, len(groups))
    for done, mistakes in enumerate(pool.map(check_rows, groups), 1):
        found += mistakes
        progress("check", done, len(groups))
    wrong = {repr(sorted(row.values.items())): m for m in found for row in different if row.number == m.number}
    known = [(row, wrong.get(repr(sorted(row.values.items())))) for row in rows]
    return [Mistake(row.number, row.name, mistake.error) for row, mistake in known if mistake is not None]


def learn(batch: Batch, progress: Progress) -> None:
    """Track and avatar of the template, once, before rows ask for them side by side."""
    template, cache, here = open_template(batch.place), open_cache_at(batch.place), SerialExecutor()
    tracked = track_face(probe_clip(template.clip), template.face, cache, here, progress)
    fit_avatar(batch.wanted.engine, tracked, cache, here, progress)
    if "://" not in batch.place.cache:
        Templates(cache.folder).learned(template, batch.wanted.engine)


def make_all(
    tasks: Sequence[RowTask],
    pool: Pool,
    progress: Progress,
    render: Callable[[RowTask, Tick], RowResult] = render_row,
    warm: Callable[[RowTask], bool] = is_warm,
) -> list[RowResult]:
    """Every row once: kept from an earlier run, rendered, or copied from the row that says the same."""
    results: dict[str, RowResult] = {}
    by_key: dict[str, RowResult] = {}
    for task in tasks:
        known = earlier(task)
        if known is not None:
            results[task.row.name] = by_key[task.key] = known
    waiting = {task.key: task for task in reversed(tasks) if task.key not in by_key}
    fresh = [task for task in tasks if waiting.get(task.key) is task]
    done = len(results)
    progress("rows", done, len(tasks))

    def on_tick(count: int) -> None:
        nonlocal done
        done += count
        if count:
            progress("rows", done, len(tasks))

    ahead = 0 if not fresh or warm(fresh[0]) else 1  # what all share is made by one row before the others start
    for part in (fresh[:ahead], fresh[ahead:]):
        for result in pool.map_ticks(render, part, on_tick):
            results[result.name] = by_key[result.key] = result
    for task in tasks:
        if task.row.name not in results:
            results[task.row.name] = follow(task, by_key[task.key])
            on_tick(1)
    return list(results.values())


def follow(task: RowTask, other: RowResult) -> RowResult:
    """A row that says what another one says."""
    if other.status == "failed":
        return RowResult(task.row.number, task.row.name, "failed", task.key, error=f"as {other.name}: {other.error}")
    return same_as(task, other)
