"""What became of a batch, as a table: `report.csv` for programs, `report.html` for people."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.records import write_atomic
from serve_app.batches.rows import RowResult
from serve_app.media_store import MediaStore

COLUMNS = (
    "row", "id", "status", "url", "seconds", "cpu_seconds", "frames", "changed", "copied", "note", "error",
)  # fmt: skip
CSV, HTML, TEMPLATE = "report.csv", "report.html", "report.html.j2"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formula begins


@dataclass(frozen=True)
class Summary:
    """A batch in numbers."""

    template: str
    engine: str
    seconds: float
    counts: dict[str, int]

    @property
    def rows_per_hour(self) -> float:
        """Rows that were rendered in this run, by the hour."""
        return 3600 * self.counts.get("done", 0) / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """For the terminal."""
        parts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        pace = f", {self.rows_per_hour:.0f} rows an hour" if self.rows_per_hour else ""
        return f"{sum(self.counts.values())} rows: {parts}; {self.seconds:.1f} s{pace}"


def summarize(template: str, engine: str, seconds: float, results: Sequence[RowResult]) -> Summary:
    """Count."""
    return Summary(template, engine, seconds, dict(Counter(result.status for result in results)))


def write_report(store: MediaStore, summary: Summary, results: Sequence[RowResult]) -> None:
    """Both tables, rows in the manifest's order. Raises OutputError or OSError."""
    ordered = sorted(results, key=lambda result: result.number)
    for key, text in ((CSV, as_csv(ordered)), (HTML, as_html(summary, ordered))):
        write_atomic(store.root / key, text.encode())
        store.put(store.root / key, key)


def as_csv(results: Sequence[RowResult]) -> str:
    """The table with the figures that any row has."""
    figures = figures_of(results)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*COLUMNS, *figures])
    for result in results:
        writer.writerow([*map(plain, cells(result)), *(result.figures.get(name, "") for name in figures)])
    return out.getvalue()


def figures_of(results: Sequence[RowResult]) -> list[str]:
    """Names of the quality figures that any row has."""
    return sorted({name for result in results for name in result.figures})


def cells(result: RowResult) -> list[str]:
    """A row's cells, as `COLUMNS`."""
    numbers = (result.seconds, result.cpu_seconds, result.frames, result.changed, result.copied)
    told = ("" if number is None else str(number) for number in numbers)
    return [str(result.number), result.name, result.status, result.url, *told, result.note, result.error]


def plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: names come from strangers."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def as_html(summary: Summary, results: Sequence[RowResult]) -> str:
    """One page; thumbnails and videos lie beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("serve_app.batches", "data"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(summary=summary, results=results, figures=figures_of(results))
