"""How many replicas of an engine a server keeps, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaSettings:
    """Defaults of one engine; an operator may change each of them."""

    gpus: float = 1.0  # per replica, where there are GPUs; 0: the engine does not use one
    cpus: float = 1.0
    min_replicas: int = 0  # 0: started by the first job that asks for it
    max_replicas: int = 8
    idle_seconds: float = 600.0  # before a replica that nobody asks is given up
    start_seconds: float = 2.0  # of waiting work before one more is started
    shutdown_seconds: float = 180.0  # longer than the longest chunk
    health_seconds: float = 10.0
