"""A portrait is rendered as one piece by a CPU task; a replica is only started when it is asked for."""

from __future__ import annotations

from deployments.engines.scaling import ReplicaSettings

DEPLOYMENT = ReplicaSettings(gpus=0, cpus=0.25)
