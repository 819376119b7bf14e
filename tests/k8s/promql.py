"""What a PromQL query asks for, by a real parser, held against what our own exposition tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, BinaryExpr, Call, MatchOp, MatrixSelector, VectorSelector

OF_COUNTERS = ("rate", "irate", "increase")
OF_TARGETS = {"instance", "job", "pod", "namespace"}  # labels that Prometheus adds to every series


@dataclass
class Series:
    """A metric name as it is exposed."""

    kind: str
    values: dict[str, set[str]] = field(default_factory=dict)  # label -> values seen


def read_exposition(text: str) -> dict[str, Series]:
    """Series by name, of an exposition that has a sample of each."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    found: dict[str, Series] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        kind = kinds.get(name) or kinds[re.sub(r"_(bucket|sum|count)$", "", name)]
        series = found.setdefault(name, Series("counter" if kind == "histogram" else kind))
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels):
            series.values.setdefault(label, set()).add(value)
    return found


def faults(query: str, exposed: dict[str, Series], known: Callable[[str, str], bool], counted: bool = False) -> list[str]:
    """What would make a query answer nothing, or nonsense.

    `known` tells whether a label can have a value; `counted` that a bare counter is meant.
    """
    try:
        tree = promql_parser.parse(query)
    except ValueError as error:
        return [str(error)]
    found: list[str] = []
    asked = 0

    def labels_of(part: object, counts: bool = False) -> set[str]:
        """The labels that a part keeps; `counts`: where only counters make sense."""
        nonlocal asked
        match part:
            case VectorSelector():
                asked += 1
                return selected(part, counts)
            case MatrixSelector():
                return labels_of(part.vector_selector, counts)
            case AggregateExpr():
                return aggregated(part, labels_of(part.expr))
            case Call():
                return called(part, [labels_of(arg, part.func.name in OF_COUNTERS) for arg in part.args])
            case BinaryExpr():
                return joined(labels_of(part.lhs), labels_of(part.rhs))
        inner = getattr(part, "expr", None)
        return labels_of(inner) if inner is not None else set()

    def selected(part: VectorSelector, counts: bool) -> set[str]:
        series = exposed.get(part.name or "")
        if series is None:
            found.append(f"{part.name}: nobody tells it")
            return set()
        if counts != (series.kind == "counter"):
            found.append(f"{part.name} is a {series.kind}")
        for matcher in part.matchers.matchers:
            if matcher.name not in series.values:
                found.append(f"{part.name} has no label {matcher.name}")
            elif matcher.op == MatchOp.Equal and not known(matcher.name, matcher.value):
                found.append(f"{matcher.name} is never {matcher.value}")
        return set(series.values) | OF_TARGETS

    def aggregated(part: AggregateExpr, under: set[str]) -> set[str]:
        if part.modifier is None:
            return set()
        named = set(part.modifier.labels)
        found.extend(f"no label {label} to go by" for label in sorted(named - under))
        return named if part.modifier.type == AggModifierType.By else under - named

    def called(part: Call, under: list[set[str]]) -> set[str]:
        if part.func.name == "histogram_quantile":
            if "le" not in under[1]:
                found.append("no le for histogram_quantile")
            return under[1] - {"le"}
        return set().union(*under)

    def joined(left: set[str], right: set[str]) -> set[str]:
        if left and right and left != right:
            found.append(f"{sorted(left)} never meets {sorted(right)}")
        return left or right

    labels_of(tree, counted and exposed.get(getattr(tree, "name", ""), Series("")).kind == "counter")
    return found if asked else [*found, "asks for no metric"]


def exposition(folder: Path) -> dict[str, Series]:
    """What an API process tells once jobs and a live portrait have ended."""
    from serve_app.api.metrics import Metrics
    from serve_app.api.services import EngineState
    from serve_app.jobs.spec import JobSpec
    from serve_app.jobs.store import open_jobs

    jobs = open_jobs(f"sqlite:///{folder / 'jobs.db'}")
    metrics = Metrics(jobs, lambda: {"vasa1": EngineState("vasa1", "for tests")}, folder)
    metrics.count_request("GET", "/health", 200, 0.1)
    for _ in range(2):
        jobs.create(JobSpec(engine="vasa1", source="clip"), "me")
    done, failed = jobs.claim("w", 10), jobs.claim("w", 10)
    assert done is not None and failed is not None
    jobs.succeed(done.id, done.fence, "r", None, {"frames": 5, "stage_seconds": {"render": 1.0}}, 60)
    jobs.fail(failed.id, failed.fence, "no_face", "none")
    return read_exposition(metrics.text().decode())
