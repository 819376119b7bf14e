"""Batches: the whole manifest is checked first, equal rows are made once, and a killed batch goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.errors import InputError
from deployments.media.probe import probe
from serve_app.batches.manifest import ManifestError, read_manifest
from serve_app.batches.report import Summary, as_csv, as_html, plain
from serve_app.batches.rows import Place, RowResult
from serve_app.batches.run import Batch, run_batch
from serve_app.cache import Cache
from serve_app.cli import app
from serve_app.executor import SerialExecutor
from serve_app.personalize import Wanted, create_template
from serve_app.script import Value, parse_script
from serve_app.templates import Templates

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = 'segments:\n  - {start: 0.4, end: 1.4, text: "Hello {{name}}"}\n'
ONE = parse_script(SCRIPT)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Path:
    """A cache with a template."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "script.yaml").write_text(SCRIPT)
    cache = Cache(folder / "cache")
    parts = (face_clip, folder / "script.yaml")
    create_template(Templates(cache.folder), "hello", parts, "fake", "largest", cache, SerialExecutor())
    return folder


def batch(home: Path, out: Path, manifest: Path, skip_invalid: bool = False) -> Batch:
    return Batch(manifest, Place("hello", str(home / "cache"), str(out), home / "mirror"), Wanted("fake"), skip_invalid)


def written(tmp_path: Path, text: str, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def lipsync(*words: str | Path, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "LIPSYNC_CACHE": str(cache)}
    command = [sys.executable, "-m", "serve_app", "batch", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_batch_makes_every_row_and_equal_rows_once(home: Path, tmp_path: Path) -> None:
    manifest = written(tmp_path, "id,name\nann,Ann\nbob,Bob\nann2, Ann \n")
    summary, results = run_batch(batch(home, tmp_path / "out", manifest), SerialExecutor())
    assert summary.counts == {"done": 2, "same": 1} and [r.name for r in results] == ["ann", "bob", "ann2"]
    files = {name: (tmp_path / "out" / f"{name}.mp4").read_bytes() for name in ("ann", "bob", "ann2")}
    assert files["ann"] == files["ann2"] != files["bob"] and probe(tmp_path / "out" / "bob.mp4").frames == 45
    table = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [(row["id"], row["status"], row["changed"]) for row in table] == [
        ("ann", "done", "24"),
        ("bob", "done", "24"),
        ("ann2", "same", "24"),
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        page.count("<tr>") == 4
        and 'src="thumbnails/bob.jpg"' in page
        and (tmp_path / "out/thumbnails/bob.jpg").stat().st_size > 500
    )


def test_what_is_done_stays_and_what_changed_is_made_again(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch(home, out, written(tmp_path, "id,name\na,Ann\nb,Bob\n")), SerialExecutor())
    before = (out / "a.mp4").stat().st_mtime_ns
    summary, results = run_batch(batch(home, out, written(tmp_path, "id,name\na,Ann\nb,Peter\nc,Ann\n")), SerialExecutor())
    assert [(r.name, r.status) for r in results] == [("a", "kept"), ("b", "done"), ("c", "same")]
    assert (out / "a.mp4").stat().st_mtime_ns == before and summary.counts == {"kept": 1, "done": 1, "same": 1}
    (out / "a.mp4").unlink()
    _, results = run_batch(batch(home, out, written(tmp_path, "id,name\na,Ann\n")), SerialExecutor())
    assert results[0].status == "done" and (out / "a.mp4").is_file()


def test_an_engine_that_learned_the_person_later_stands_in_the_list(
    home: Path, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(home / "cache"))
    templates, facts = Templates(home / "cache"), {"digest": probe(face_clip).digest, "engines": [], "notes": []}
    for name in ("said", "listed"):
        templates.create(name, face_clip, SCRIPT, facts)
    words = ["personalize", "said", "--var", "name=Ann", "-e", "fake", "-o", str(tmp_path / "o.mp4"), "-q", "--workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    place = Place("listed", str(home / "cache"), str(tmp_path / "out"), home / "mirror")
    run_batch(Batch(written(tmp_path, "name\nAnn\n"), place, Wanted("fake")), SerialExecutor())
    for name in ("said", "listed"):
        assert templates.open(name).engines == ("fake",)
        templates.delete(name)


def test_the_whole_manifest_is_checked_before_the_first_frame(home: Path, tmp_path: Path) -> None:
    rows = "id,name\na,Ann\nb,<break/>\nc,שלום\nd,Maximilian Alexander Bartholomew\nd,Bob\ne/f,Bob\n"
    manifest = written(tmp_path, rows)
    with pytest.raises(ManifestError) as caught:
        run_batch(batch(home, tmp_path / "out", manifest), SerialExecutor())
    told = str(caught.value)
    assert "5 that are not" in told and not list((tmp_path / "out").glob("*.mp4"))
    for words in (
        "row 2 (b)",
        "markup",
        "row 3 (c)",
        "Latin",
        "row 4 (d)",
        "of speech for this slot",
        "got 'd' in row 4",
        "row 6",
    ):
        assert words in told
    summary, results = run_batch(batch(home, tmp_path / "out", manifest, skip_invalid=True), SerialExecutor())
    assert summary.counts == {"done": 1, "invalid": 5} and results[1].status == "invalid"


def test_a_row_that_fails_does_not_stop_the_others(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "b.mp4").mkdir(parents=True)
    summary, results = run_batch(
        batch(home, tmp_path / "out", written(tmp_path, "id,name\na,Ann\nb,Bob\nc,Bob\n")), SerialExecutor()
    )
    assert summary.counts == {"done": 1, "failed": 2} and "as b:" in results[2].error
    assert "b.mp4" in results[1].error and not (tmp_path / "out" / "records" / "b.json").exists()


@pytest.mark.slow
def test_a_killed_batch_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    names = ["Ann", "Bob", "Carl", "Dora", "Emil", "Fritz", "Gina", "Hans"]
    manifest = written(tmp_path, "\n".join(["name", *names]))
    words = (manifest, "--template", "hello", "--out", tmp_path / "out", "--engine", "fake", "--workers", "2", "-q")
    process = lipsync(*words, cache=home / "cache")
    records = tmp_path / "out" / "records"
    limit = time.monotonic() + 120
    while len(list(records.glob("*.json"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path.stem: (tmp_path / "out" / f"{path.stem}.mp4").stat().st_mtime_ns for path in records.glob("*.json")}
    assert 2 <= len(done) < 8, "it must have been killed in the middle"
    again = lipsync(*words, cache=home / "cache")
    said, errors = again.communicate(timeout=180)
    assert again.returncode == 0, errors
    assert f"8 rows: {8 - len(done)} done, {len(done)} kept" in said
    assert all((tmp_path / "out" / f"{name}.mp4").stat().st_mtime_ns == when for name, when in done.items())
    assert all(probe(tmp_path / "out" / f"row-{k:06d}.mp4").frames == 45 for k in range(1, 9))
    assert not list((tmp_path / "out").glob(".*part*")), "nothing half written is left"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", '\ufeffname,id\r\nAnn,a\r\n"O\'Neil, Jr.",b\r\n'),
        ("rows.csv", "\ufeffname;id\r\nAnn;a\r\nO'Neil, Jr.;b\r\n"),
        ("rows.csv", "name\tid\nAnn\ta\nO'Neil, Jr.\tb\n"),
        ("rows.jsonl", '\ufeff{"name": "Ann", "id": "a"}\n\n{"name": "O\'Neil, Jr.", "id": "b"}\n'),
    ],
)
def test_csv_and_json_lines_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    rows, mistakes = read_manifest(written(tmp_path, text, name), ONE)
    assert not mistakes and [(row.number, row.name, row.values) for row in rows] == [
        (1, "a", {"name": Value("Ann")}),
        (2, "b", {"name": Value("O'Neil, Jr.")}),
    ]


def test_parquet_says_the_same_with_numbers_and_empty_cells(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    script = parse_script('segments: [{start: 0, end: 1, text: "{{name}} {{count}}"}]\ndefaults: {count: one}')
    table = pyarrow.table({"id": ["a", "b"], "name": ["Ann", "O'Neil, Jr."], "count": pyarrow.array([None, 7], pyarrow.int64())})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1)
    rows, mistakes = read_manifest(tmp_path / "rows.parquet", script)
    assert not mistakes and [(row.number, row.name, row.values) for row in rows] == [
        (1, "a", {"name": Value("Ann")}),
        (2, "b", {"name": Value("O'Neil, Jr."), "count": Value("7")}),
    ]
    parquet.write_table(pyarrow.table({"name": [["Ann"]]}), tmp_path / "rows.parquet")
    with pytest.raises(ManifestError, match="nested"):
        read_manifest(tmp_path / "rows.parquet", script)


def test_an_id_that_is_a_slot_is_a_variable(tmp_path: Path) -> None:
    script = parse_script('segments: [{start: 0, end: 1, text: "Order {{id}}"}]')
    rows, _ = read_manifest(written(tmp_path, "id\n17\n"), script)
    assert rows[0].values == {"id": Value("17")} and rows[0].name == "row-000001"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rows.csv", "\n", "got none"),
        ("rows.csv", "name\n", "got none"),
        ("rows.csv", "name,id\nAnn\n", "cells"),
        ("rows.csv", "name\nAnn,a,b\n", "cells"),
        ("rows.csv", "name, name\nAnn,Bob\n", "name again"),
        ("rows.jsonl", "[1]\n", "object"),
        ("rows.jsonl", '{"name": {"first": "Ann"}}\n', "nested"),
        ("rows.jsonl", '{"name": "Ann"\n', "JSON"),
        ("rows.parquet", "no", "pyarrow|Parquet"),
        ("rows.xlsx", "PK", r"\.csv, \.jsonl"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        read_manifest(written(tmp_path, text, name), ONE)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="manifest"):
        read_manifest(tmp_path / "no.csv", ONE)


def test_recordings_lie_beside_the_manifest(tmp_path: Path) -> None:
    written(tmp_path, "RIFF", "ann.wav")
    rows, mistakes = read_manifest(written(tmp_path, "name\n@ann.wav\n@bob.wav\n"), ONE)
    assert rows[0].values["name"].audio == tmp_path / "ann.wav" and "bob.wav" in mistakes[0].error


def test_recordings_are_found_from_a_relative_manifest_too(
    home: Path, tmp_path: Path, speech_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "id,name\nann,@ann.wav\n")
    (tmp_path / "ann.wav").write_bytes(speech_file.read_bytes())
    place = Place("hello", str(home / "cache"), str(tmp_path / "out"), home / "mirror")
    _, results = run_batch(Batch(Path("rows.csv"), place, Wanted("fake", "cut_off")), SerialExecutor())
    assert [result.status for result in results] == ["done"]


def test_a_name_is_no_formula_in_the_table() -> None:
    table = as_csv([RowResult(1, "a", "failed", error="=HYPERLINK(1)")])
    assert "'=HYPERLINK" in table and plain("-") == "'-" and plain("Ann") == "Ann"


def test_a_measured_batch_has_figures_and_pages(home: Path, tmp_path: Path) -> None:
    place = Place("hello", str(home / "cache"), str(tmp_path / "out"), home / "mirror")
    asked = Batch(written(tmp_path, "id,name\nann,Ann\n"), place, Wanted("fake"), measure=True)
    run_batch(replace(asked, measure=False), SerialExecutor())
    _, results = run_batch(asked, SerialExecutor())
    assert results[0].status == "done", "the row of the first run has no report"
    assert run_batch(asked, SerialExecutor())[1][0].status == "kept"
    assert (tmp_path / "out" / results[0].report).is_file() and 0 < results[0].figures["picture.flicker"] < 3
    assert "picture.upper_psnr" in (tmp_path / "out" / "report.csv").read_text().splitlines()[0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "upper psnr</th>" in page and f"{results[0].figures['picture.upper_psnr']:.4g}</td>" in page


def test_a_pace_is_told_only_where_rows_were_made() -> None:
    assert Summary("t", "fake", 90.0, {"done": 2, "kept": 1}).line() == "3 rows: 2 done, 1 kept; 90.0 s, 80 rows an hour"
    kept = Summary("t", "fake", 9.0, {"kept": 3})
    assert kept.line() == "3 rows: 3 kept; 9.0 s" and "rows an hour" not in as_html(kept, [])


def test_records_are_plain_json(home: Path, tmp_path: Path) -> None:
    run_batch(batch(home, tmp_path / "out", written(tmp_path, "name\nAnn\n")), SerialExecutor())
    record = json.loads((tmp_path / "out" / "records" / "row-000001.json").read_text())
    assert record["status"] == "done" and record["url"] == f"{tmp_path}/out/row-000001.mp4" and record["frames"] == 45
