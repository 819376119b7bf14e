"""Small networks per frame: one GPU serves several replicas; without one a core does it."""

from __future__ import annotations

from deployments.engines.scaling import ReplicaSettings

DEPLOYMENT = ReplicaSettings(gpus=0.25, cpus=1.0)
