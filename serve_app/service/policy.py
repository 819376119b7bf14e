"""Ray Serve's autoscaling policy of the engines. Runs in Serve's controller, ten times a second: it must never wait.

Serve copies this module by value into the controller, so it holds nothing but the class; all else is imported there.
"""

from __future__ import annotations

from typing import Any, Protocol


class Bounds(Protocol):
    """What is asked of Serve's autoscaling config."""

    def get_target_ongoing_requests(self) -> float:
        """Requests in flight that one replica is meant to have."""


class Context(Protocol):
    """What is asked of Serve's context."""

    deployment_name: str
    total_num_requests: float
    raw_metrics: Any  # what replicas tell: {name: {replica: values with their times}}
    config: Bounds


class QueuePolicy:
    """Replicas for the seconds of video that wait in the table; while the table is away, for the requests at replicas.

    A replica that speaks live is taken: as many come on top, and a free one for the next caller.

    Serve itself keeps the bounds and waits before it scales, up or down.
    """

    def __init__(self, database: str = "", patience: float = 30.0, cost: float = 1.0) -> None:
        from serve_app.service.scaling import look_at

        self._look, self._patience, self._cost = look_at(database), patience, cost

    def __call__(self, context: Context) -> tuple[float, dict[str, Any]]:
        """Wanted replicas, and no state of our own."""
        from serve_app.service.scaling import Load, Speed, speaking, wanted_for_streams, wanted_replicas

        streams = wanted_for_streams(speaking(context.raw_metrics))
        asked = context.total_num_requests / context.config.get_target_ongoing_requests()
        seen = self._look.latest()
        if seen is None:
            return max(asked, streams), {}
        engine = context.deployment_name
        wanted = wanted_replicas(seen.loads.get(engine, Load()), Speed(seen.costs.get(engine, self._cost), self._patience))
        return max(wanted + streams, min(asked, 1.0)), {}  # a fit that no job in the table stands for keeps its replica
