"""A manifest: rows of variables as CSV, JSON lines or Parquet. All of it is checked before the first frame."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import LipSyncError, OptionError
from serve_app.request import check_input
from serve_app.script import Script, Value, parse_value

NAME_COLUMN = "id"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@-]{0,99}")
MOST_ROWS = 1_000_000
Bring = Callable[[str], Path]
SHOWN = 20  # mistakes that are told at once


@dataclass(frozen=True)
class Row:
    """One customer."""

    number: int  # from 1, as in the manifest
    name: str  # of its files
    values: dict[str, Value]


@dataclass(frozen=True)
class Mistake:
    """Why a row cannot be made."""

    number: int
    name: str
    error: str


class ManifestError(OptionError):
    """Rows of a manifest cannot be made."""

    code = "invalid_manifest"


def read_manifest(path: Path, script: Script, bring: Bring | None = None) -> tuple[list[Row], list[Mistake]]:
    """Rows, and what is wrong with the others; `bring` fetches recordings beside a manifest that came from a store.

    Raises InputError or ManifestError for the file as a whole.
    """
    check_input(path, "manifest")
    readers = {".csv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(f"expected a manifest that ends in {', '.join(readers)}; got {path.name!r}")
    rows: list[Row] = []
    mistakes: list[Mistake] = []
    taken: dict[str, int] = {}
    number = 0
    for number, cells in enumerate(reader(path), 1):
        if number > MOST_ROWS:
            raise ManifestError(f"expected at most {MOST_ROWS} rows, got more in {path.name}; split it")
        name = str(cells.get(NAME_COLUMN) or f"row-{number:06d}")
        try:
            if bring is not None:
                for words in filter(lambda cell: cell.startswith("@"), cells.values()):
                    bring(words[1:])
            rows.append(read_row(number, cells, script, path.parent, taken))
        except LipSyncError as error:
            mistakes.append(Mistake(number, name, str(error)))
    if number == 0:
        raise ManifestError(f"expected rows in {path.name}, got none; the first line names the variables")
    return rows, mistakes


def read_row(number: int, cells: dict[str, str], script: Script, folder: Path, taken: dict[str, int]) -> Row:
    """One row; recordings (`@file`) lie beside the manifest. Raises OptionError, SpeechError or InputError."""
    slots = script.slots()
    own = NAME_COLUMN in cells and NAME_COLUMN not in slots
    name = (cells.get(NAME_COLUMN, "") if own else "") or f"row-{number:06d}"
    if not NAME.fullmatch(name):
        raise OptionError(f"expected an id of letters, digits, _, @ and - (at most 100), got {name[:60]!r}")
    if name.lower() in taken:
        raise OptionError(f"expected every id once, got {name!r} in row {taken[name.lower()]} too")
    taken[name.lower()] = number
    given = {key: words for key, words in cells.items() if words != "" and not (own and key == NAME_COLUMN)}
    values = {key: parse_value(key, words, folder, script.strictest()) for key, words in given.items()}
    script.fill(values)
    return Row(number, name, values)


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header; UTF-8, with or without a mark. Raises ManifestError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            sign = separator(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=sign)
            check_columns(path.name, reader.fieldnames or ())
            for cells in reader:
                if None in cells or None in cells.values():
                    raise ManifestError(
                        f"{path.name}, line {reader.line_num}: expected {len(reader.fieldnames or ())} cells as in the header, "
                        "got another number; put words with commas in quotes"
                    )
                yield {key.strip(): words.strip() for key, words in cells.items()}
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path.name}: expected UTF-8 text, got other bytes ({error}); save it as UTF-8") from error
        except csv.Error as error:
            raise ManifestError(f"{path.name}, line {reader.line_num}: expected CSV, got: {error}") from error


def separator(header: str) -> str:
    """What stands between cells: spreadsheets write semicolons where a comma is part of numbers, and tabs."""
    return next((sign for sign in ",;\t" if sign in header), ",")


def check_columns(name: str, columns: Sequence[str]) -> None:
    """Raise ManifestError for a column that is there twice: one of them would be silent."""
    names = [column.strip() for column in columns]
    twice = sorted({column for column in names if column and names.count(column) > 1})
    if twice:
        raise ManifestError(f"{name}: expected every column once, got {', '.join(twice)} again; rename or remove one")


def read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    """One JSON object a line. Raises ManifestError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield as_words(f"{path.name}, line {number}", json.loads(line))
    except ValueError as error:
        raise ManifestError(f"{path.name}: expected one JSON object a line, got: {error}") from error


def read_parquet(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a Parquet file. Raises ManifestError, also where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ManifestError(
            f"expected pyarrow to read {path.name}, which is not installed; "
            "pip install 'lipsync-serve[parquet]', or save the rows as CSV or JSON lines"
        ) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from (as_words(path.name, row) for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise ManifestError(f"expected a Parquet file, got {path.name}: {error}") from error


def as_words(where: str, row: Any) -> dict[str, str]:
    """Cells as text. Raises ManifestError for anything that is not plain."""
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: expected an object of variables, got {type(row).__name__}")
    nested = [key for key, cell in row.items() if isinstance(cell, (dict, list))]
    if nested:
        raise ManifestError(f"{where}: expected words and numbers, got something nested in {', '.join(map(str, nested))}")
    return {str(key): "" if cell is None else str(cell).strip() for key, cell in row.items()}


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise ManifestError that tells the first mistakes."""
    if mistakes:
        ordered = sorted(mistakes, key=lambda mistake: mistake.number)
        told = "\n".join(f"  row {m.number} ({m.name}): {m.error}" for m in ordered[:SHOWN])
        more = f"\n  and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
        raise ManifestError(
            f"expected every row to be right, got {len(ordered)} that are not; correct them or use --skip-invalid\n{told}{more}"
        )
