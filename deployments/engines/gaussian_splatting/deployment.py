"""One GPU a replica, where there is one: the Gaussians stay on it between jobs."""

from __future__ import annotations

from deployments.engines.scaling import ReplicaSettings

DEPLOYMENT = ReplicaSettings(gpus=1.0, cpus=1.0, min_replicas=0)
