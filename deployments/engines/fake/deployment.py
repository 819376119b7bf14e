"""For tests: as many replicas as a test asks for."""

from __future__ import annotations

from deployments.engines.scaling import ReplicaSettings

DEPLOYMENT = ReplicaSettings(gpus=0, cpus=0, min_replicas=1)
