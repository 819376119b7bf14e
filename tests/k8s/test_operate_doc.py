"""docs/operate.md: its commands exist, and its figures are the measured ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k8s.cli import app

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "operate.md").read_text()
COMMANDS = sorted({found.split("#")[0].strip() for found in re.findall(r"python -m k8s ([^`\n]+)", TEXT)})


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_as_written(command: str) -> None:
    nowhere = {"KUBECONFIG": str(ROOT / "no-such-kubeconfig")}
    done = CliRunner().invoke(app, [*shlex.split(command), "--no-more"], env=nowhere)
    if command.startswith("batch"):  # it hands on what it does not know
        assert done.exit_code == 7 and "expected a kubeconfig" in done.output
    else:
        assert done.exit_code == 2 and "No such option: --no-more" in done.output, "everything before it is known"


def test_the_simulated_day_is_the_one_in_the_results() -> None:
    rows = result("autoscale")["results"]
    for row in rows:
        words = f"| {row['policy']} | {row['gpu_hours']} | {row['busy_share']:.0%} | {row['peak_gpus']} "
        assert f"{words}| {row['wait_p50_s']:.0f} s | {row['wait_p95_s']:.0f} s |" in TEXT
    assert f"{rows[0]['jobs']:,} jobs" in TEXT


def test_capacity_follows_from_the_measured_run() -> None:
    run = result("pipeline")
    rows = run["engines"]["video_rewrite"]
    first, again = rows["first_run"]["total"] * 2, rows["avatar_cached"]["total"] * 2
    for words in (f"{first:.0f} core seconds", f"{again:.0f} for every further", f"about {86400 / first:.0f} videos"):
        assert words in TEXT
    assert run["clip"]["workers"] == 2 and f"or {86400 / again:.0f} on known clips" in TEXT


def test_every_place_in_it_is_there() -> None:
    for place in re.findall(r"`((?:k8s|serve_app|benchmarks|tests)/[\w./-]+)`", TEXT):
        assert (ROOT / place).exists(), place
