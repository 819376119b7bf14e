"""Warps pictures on the CPU: no GPU is held. Resident from the start, since it is the default engine."""

from __future__ import annotations

from deployments.engines.scaling import ReplicaSettings

DEPLOYMENT = ReplicaSettings(gpus=0, cpus=0.25, min_replicas=1)
