"""Alerts and the dashboard ask, in PromQL that a real parser reads, for metrics and labels that our own API tells."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest
from overlays import ROOT, of_kind
from promql import Series, exposition, faults

from deployments.engines.registry import engine_names
from serve_app.api.metrics import FULL
from serve_app.jobs.records import Status

STAGES = set(re.findall(r'job\.stage\("(\w+)"\)', (ROOT / "serve_app" / "pipeline.py").read_text()))
VALUES = {"stage": STAGES, "status": {*get_args(Status)}, "engine": set(engine_names()), "code": {FULL}}


def known(label: str, value: str) -> bool:
    """Whether a label is ever that."""
    return value in VALUES[label]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    """What the API tells."""
    return exposition(tmp_path_factory.mktemp("exposed"))


def test_the_dashboard_asks_for_metrics_that_exist(exposed: dict[str, Series]) -> None:
    board = json.loads((ROOT / "k8s" / "monitoring" / "dashboard.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for query in [target["expr"] for panel in board["panels"] for target in panel["targets"]]:
        assert not faults(query, exposed, known), query


def test_alerts_ask_for_metrics_that_exist_and_the_handbook_says_what_to_do(exposed: dict[str, Series]) -> None:
    handbook = (ROOT / "docs" / "operate.md").read_text()
    (made,) = of_kind("gpu-prod", "PrometheusRule")
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    for rule in rules:
        assert not faults(rule["expr"], exposed, known), rule["expr"]
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("critical", "warning")
        assert re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]) in ([], ["engine"])
        assert "$labels" not in rule["annotations"]["summary"] or "by (engine)" in rule["expr"], "a label that is summed away"
        assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in handbook, rule["alert"]
    assert set(re.findall(r"\| `(Lipsync\w+)`", handbook)) == {rule["alert"] for rule in rules}, "and of no other"


def test_queries_and_names_in_the_handbook_are_real(exposed: dict[str, Series]) -> None:
    told = re.findall(r"`([^`]*lipsync_[a-z]+_[a-z_]+[^`]*)`", (ROOT / "docs" / "operate.md").read_text())
    queries = [words for words in told if "(" in words]
    assert len(queries) >= 2 and len(told) > len(queries)
    for words in told:
        assert not faults(words, exposed, known, counted=words not in queries), words


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("max by engine (lipsync_jobs)", "invalid promql"),
        ("increse(lipsync_frames_total[5m])", "unknown function"),
        ("rate(lipsync_frames_total)", "expected type matrix"),
        ("max(lipsync_job)", "lipsync_job: nobody tells it"),
        ('max(lipsync_jobs{statu="queued"})', "no label statu"),
        ('max(lipsync_jobs{status="waiting"})', "status is never waiting"),
        ("max by (colour) (lipsync_jobs)", "no label colour"),
        ("sum by (engine) (max by (code) (rate(lipsync_jobs_ended_total[5m])))", "no label engine"),
        ("rate(lipsync_jobs[5m])", "lipsync_jobs is a gauge"),
        ("max(lipsync_frames_total)", "lipsync_frames_total is a counter"),
        ("histogram_quantile(0.5, sum(rate(lipsync_http_request_seconds_bucket[5m])))", "no le"),
        ("max by (engine) (lipsync_replicas) < max by (status) (lipsync_jobs)", "never meets"),
        ("1 + 1", "asks for no metric"),
    ],
)
def test_a_query_that_answers_nothing_would_be_seen(exposed: dict[str, Series], query: str, fault: str) -> None:
    assert fault in " ".join(faults(query, exposed, known))
