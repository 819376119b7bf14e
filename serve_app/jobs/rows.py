"""Rows of the tables as records, and back."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from serve_app.jobs.records import Asset, Callback, ChunkRow, Job
from serve_app.jobs.spec import JobSpec

PLAIN = (
    "id owner status created_at stage done total fraction eta started_at completed_at expires_at attempt fence worker "
    "lease_until cancel_requested result report error_code error callback_url request_id"
).split()


def to_job(row: sa.Row[Any]) -> Job:
    """A row of `jobs`."""
    found = row._mapping
    values = {name: found[name] for name in PLAIN}
    values["cancel_requested"] = bool(values["cancel_requested"])
    spec = JobSpec.model_validate_json(found["spec"])
    return Job(spec=spec, info=json.loads(found["info"]), metadata=json.loads(found["metadata"]), **values)


def of_job(job: Job) -> dict[str, Any]:
    """Values for a new row of `jobs`."""
    values = {name: getattr(job, name) for name in PLAIN}
    texts = {"spec": job.spec.model_dump_json(), "info": json.dumps(job.info), "metadata": json.dumps(job.metadata)}
    return {**values, **texts, "kind": job.spec.kind}


def to_chunk(row: sa.Row[Any]) -> ChunkRow:
    """A row of `chunks`."""
    return ChunkRow(**row._mapping)


def to_asset(row: sa.Row[Any]) -> Asset:
    """A row of `assets`."""
    return Asset(**row._mapping)


def to_callback(row: sa.Row[Any]) -> Callback:
    """A row of `callbacks`."""
    return Callback(**row._mapping)
