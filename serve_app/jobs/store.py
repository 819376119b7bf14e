"""The durable table of jobs. All changes are legal, and a worker that lost its job changes nothing.

A lease says until when a worker is believed to live; the fence is a number that rises with every claim. Every write of a
worker carries its fence and is refused if a newer one exists (Kleppmann 2016, "How to do distributed locking").
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from serve_app.jobs.assets import AssetTable
from serve_app.jobs.outbox import Outbox
from serve_app.jobs.records import FINAL, NEXT, ChunkRow, IdempotencyConflict, IllegalChange, Job, JobNotFound, StaleFence, Status
from serve_app.jobs.rows import of_job, to_chunk, to_job
from serve_app.jobs.spec import JobSpec
from serve_app.jobs.tables import callbacks, chunks, idempotency, jobs, open_engine

MAX_ATTEMPTS = 5
LEARNED = ("avatar", "template")  # kinds whose ids other requests name
KEEP_SECONDS = 7 * 86400.0  # rows of jobs that made nothing
Clock = Callable[[], float]


def open_jobs(url: str, clock: Clock = time.time) -> JobStore:
    """The table at a database's address; made if it is not there. Raises OptionError or OutputError."""
    return JobStore(open_engine(url), clock)


class JobStore(AssetTable, Outbox):
    """Safe for threads and processes: every process opens its own."""

    def __init__(self, engine: Engine, clock: Clock = time.time) -> None:
        self._engine, self._clock = engine, clock

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def create(
        self,
        spec: JobSpec,
        owner: str,
        *,
        metadata: dict[str, str] | None = None,
        callback_url: str | None = None,
        request_id: str = "",
        idempotency: tuple[str, str] | None = None,
        info: dict[str, Any] | None = None,
    ) -> tuple[Job, bool]:
        """A new queued job, or the one that the same idempotency (key, digest) made before; True if it is new.

        Raises IdempotencyConflict where the key came with another digest.
        """
        kind = spec.kind if spec.kind in LEARNED else "video"
        job = Job(
            f"{kind}_{uuid.uuid4().hex}",
            owner,
            spec,
            "queued",
            self._clock(),
            metadata=metadata or {},
            callback_url=callback_url,
            request_id=request_id,
            info=info or {},
        )
        with self._write() as db:
            if idempotency is not None:
                known = self._claim_key(db, owner, *idempotency, job.id)
                if known != job.id:
                    return self._row(db, known), False
            db.execute(jobs.insert().values(**of_job(job)))
        return job, True

    def _claim_key(self, db: Connection, owner: str, key: str, digest: str, job: str) -> str:
        """The job that an idempotency key belongs to from now on."""
        values = {"owner": owner, "key": key, "digest": digest, "job": job}
        mine = _insert(db)(idempotency).values(**values)
        # An update that changes nothing locks the row of an earlier request, so its job cannot be deleted before we read it.
        either = mine.on_conflict_do_update(index_elements=["owner", "key"], set_={"owner": owner})
        found = db.execute(either.returning(idempotency.c.digest, idempotency.c.job)).one()
        if found.digest != digest:
            raise IdempotencyConflict(f"expected the same request again under the key {key!r}, got another; use a new key")
        return str(found.job)

    def knows_key(self, owner: str, key: str) -> bool:
        """Whether a request with this idempotency key made a job that is still there."""
        mine = sa.and_(idempotency.c.owner == owner, idempotency.c.key == key)
        with self._read() as db:
            return db.execute(sa.select(idempotency.c.job).where(mine)).first() is not None

    def get(self, id: str, owner: str | None = None) -> Job:
        """One job. Raises JobNotFound, also for another owner's."""
        with self._read() as db:
            return self._row(db, id, owner)

    def find(
        self,
        owner: str | None,
        *,
        status: Status | None = None,
        kind: str | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> list[Job]:
        """Jobs by arrival; `after` is the id of the last one seen, `kind` avatar, template, or video for all others."""
        wanted = sa.select(jobs)
        if owner is not None:
            wanted = wanted.where(jobs.c.owner == owner)
        if status is not None:
            wanted = wanted.where(jobs.c.status == status)
        if kind is not None:
            wanted = wanted.where(jobs.c.kind == kind if kind in LEARNED else jobs.c.kind.not_in(LEARNED))
        with self._read() as db:
            if after is not None:
                mine = sa.true() if owner is None else jobs.c.owner == owner
                last = db.execute(sa.select(jobs.c.seq).where(jobs.c.id == after, mine)).scalar()
                if last is None:
                    raise JobNotFound(f"expected the id of a job after which to go on, got {after!r}")
                wanted = wanted.where(jobs.c.seq < last if newest_first else jobs.c.seq > last)
            order = jobs.c.seq.desc() if newest_first else jobs.c.seq
            return [to_job(row) for row in db.execute(wanted.order_by(order).limit(limit))]

    def claim(self, worker: str, lease: float) -> Job | None:
        """The oldest job that waits, or whose worker is no longer believed to live; None if there is none."""
        while True:
            with self._write() as db:
                now = self._clock()
                open_ = jobs.c.status.in_(("queued", "running"))  # so that finished jobs are not even looked at
                free = sa.or_(jobs.c.status == "queued", jobs.c.lease_until < now)
                pick = sa.select(jobs).where(open_, free).order_by(jobs.c.seq).limit(1).with_for_update(skip_locked=True)
                row = db.execute(pick).first()
                if row is None:
                    return None
                job = to_job(row)
                if job.cancel_requested:
                    self._finish(db, job, "cancelled")
                elif job.attempt >= MAX_ATTEMPTS:
                    words = f"{job.attempt} workers were lost while they had this job; the last one was {job.worker}"
                    self._finish(db, job, "failed", error_code="attempts_exhausted", error=words)
                else:
                    return self._take(db, job, worker, now, lease)

    def _take(self, db: Connection, job: Job, worker: str, now: float, lease: float) -> Job:
        values = {
            "status": "running",
            "worker": worker,
            "lease_until": now + lease,
            "attempt": job.attempt + 1,
            "fence": job.fence + 1,
            "started_at": job.started_at or now,
        }
        db.execute(jobs.update().where(jobs.c.id == job.id).values(**values))
        return self._row(db, job.id)

    def heartbeat(self, id: str, fence: int, lease: float) -> bool:
        """Renew the lease; True if the caller wants the job to end. Raises StaleFence."""
        with self._write() as db:
            job = self._mine(db, id, fence)
            db.execute(jobs.update().where(jobs.c.id == id).values(lease_until=self._clock() + lease))
            return job.cancel_requested

    def progress(self, id: str, fence: int, stage: str, done: int, total: int, fraction: float, eta: float | None = None) -> None:
        """How far the job is; the fraction never falls. Raises StaleFence."""
        rising = sa.case((jobs.c.fraction > fraction, jobs.c.fraction), else_=fraction)
        self._change(id, fence, {"stage": stage, "done": done, "total": total, "fraction": rising, "eta": eta})

    def note(self, id: str, fence: int, facts: dict[str, Any]) -> None:
        """Facts that callers ask for. Raises StaleFence."""
        with self._write() as db:
            job = self._mine(db, id, fence)
            db.execute(jobs.update().where(jobs.c.id == id).values(info=json.dumps({**job.info, **facts})))

    def commit_chunk(self, chunk: ChunkRow) -> bool:
        """Keep a finished chunk; False if that span was kept before. Raises StaleFence."""
        with self._write() as db:
            self._mine(db, chunk.job, chunk.fence)
            values = {name: getattr(chunk, name) for name in chunks.c.keys()}
            kept = _insert(db)(chunks).values(**values).on_conflict_do_nothing().returning(chunks.c.start)
            return db.execute(kept).first() is not None

    def chunks(self, id: str) -> list[ChunkRow]:
        """Finished chunks by their first frame."""
        with self._read() as db:
            return [to_chunk(row) for row in db.execute(sa.select(chunks).where(chunks.c.job == id).order_by(chunks.c.start))]

    def succeed(self, id: str, fence: int, result: str | None, report: str | None, facts: dict[str, Any], keep: float) -> Job:
        """The job is done; what it made is kept for `keep` seconds. Raises StaleFence."""
        with self._write() as db:
            job = self._mine(db, id, fence)
            values = {"result": result, "report": report, "info": json.dumps({**job.info, **facts})}
            ends = {"fraction": 1.0, "eta": 0.0, "done": job.total, "expires_at": self._clock() + keep}
            return self._finish(db, job, "succeeded", **values, **ends)

    def drop_report(self, id: str, fence: int) -> None:
        """There will be no report of a job that succeeded: its worker ended while it was made."""
        mine = sa.and_(jobs.c.id == id, jobs.c.fence == fence, jobs.c.status == "succeeded")
        with self._write() as db:
            db.execute(jobs.update().where(mine).values(report=None))

    def fail(self, id: str, fence: int, code: str, message: str) -> Job:
        """The job cannot be done. Raises StaleFence."""
        with self._write() as db:
            return self._finish(db, self._mine(db, id, fence), "failed", error_code=code, error=message)

    def cancelled(self, id: str, fence: int) -> Job:
        """The worker stopped because it was asked to. Raises StaleFence."""
        with self._write() as db:
            return self._finish(db, self._mine(db, id, fence), "cancelled")

    def give_back(self, id: str, fence: int) -> None:
        """Back to the queue: this worker ends, and the attempt does not count. Raises StaleFence."""
        with self._write() as db:
            job = self._mine(db, id, fence)
            if job.cancel_requested:
                self._finish(db, job, "cancelled")
                return
            values = {"status": "queued", "attempt": job.attempt - 1, "lease_until": 0.0, "worker": ""}
            db.execute(jobs.update().where(jobs.c.id == id).values(**values))

    def request_cancel(self, id: str, owner: str | None = None) -> Job:
        """A queued job is cancelled at once, a running one is asked to end, a finished one stays as it is."""
        with self._write() as db:
            job = self._row(db, id, owner, lock=True)
            if job.status == "queued":
                return self._finish(db, job, "cancelled", cancel_requested=True)
            if job.status == "running":
                db.execute(jobs.update().where(jobs.c.id == id).values(cancel_requested=True))
            return self._row(db, id)

    def delete(self, id: str, owner: str | None = None) -> Job:
        """Forget a finished job and its chunks. Raises IllegalChange for one that is not finished."""
        with self._write() as db:
            job = self._row(db, id, owner, lock=True)
            if job.status not in FINAL:
                raise IllegalChange(f"expected a finished job, got one that is {job.status}; cancel it first")
            for table, column in ((chunks, chunks.c.job), (callbacks, callbacks.c.job), (idempotency, idempotency.c.job)):
                db.execute(table.delete().where(column == id))
            db.execute(jobs.delete().where(jobs.c.id == id))
            return job

    def expired(self, now: float) -> list[Job]:
        """Finished jobs past their time."""
        with self._read() as db:
            return [to_job(row) for row in db.execute(sa.select(jobs).where(jobs.c.expires_at < now))]

    def ended_since(self, time: float) -> list[Job]:
        """Jobs that ended at that time or later, oldest first."""
        wanted = sa.select(jobs).where(jobs.c.completed_at >= time).order_by(jobs.c.completed_at)
        with self._read() as db:
            return [to_job(row) for row in db.execute(wanted)]

    def counts(self) -> dict[Status, int]:
        """Jobs by status."""
        with self._read() as db:
            rows = db.execute(sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status))
            found = {str(status): int(count) for status, count in rows}
            return {status: found.get(status, 0) for status in NEXT}

    def queue_seconds(self) -> float:
        """Age of the oldest queued job; 0 if none waits."""
        with self._read() as db:
            oldest = db.execute(sa.select(sa.func.min(jobs.c.created_at)).where(jobs.c.status == "queued")).scalar()
            return 0.0 if oldest is None else max(0.0, self._clock() - float(oldest))

    def keys_in_use(self) -> set[str]:
        """Every key of the media store that a job, a chunk or an asset refers to; a report's is its folder."""
        with self._read() as db:  # assets first: one may be deleted as soon as a job has its key
            found: set[str | None] = {asset.key for asset in self._all_assets(db)}
            for text, result, report in db.execute(sa.select(jobs.c.spec, jobs.c.result, jobs.c.report)):
                spec = json.loads(text)
                sounds = [piece for part in spec["speech"] for piece in (part, *part.get("pieces", ()))]
                found |= {spec["source"], result, report, *(sound["audio"] for sound in sounds)}
            for key, segment in db.execute(sa.select(chunks.c.key, chunks.c.segment)):
                found |= {key, segment}
            return {key for key in found if key is not None}

    def _change(self, id: str, fence: int, values: dict[str, Any]) -> None:
        """One guarded write without a read."""
        rule = sa.and_(jobs.c.id == id, jobs.c.fence == fence, jobs.c.status == "running")
        with self._write() as db:
            if db.execute(jobs.update().where(rule).values(**values)).rowcount != 1:
                raise stale(id, fence)

    def _mine(self, db: Connection, id: str, fence: int) -> Job:
        """The locked row of a job that this fence still owns. Raises StaleFence."""
        row = db.execute(sa.select(jobs).where(jobs.c.id == id).with_for_update()).first()
        if row is None or row.fence != fence or row.status != "running":
            raise stale(id, fence)
        return to_job(row)

    def _row(self, db: Connection, id: str, owner: str | None = None, lock: bool = False) -> Job:
        wanted = sa.select(jobs).where(jobs.c.id == id)
        row = db.execute(wanted.with_for_update() if lock else wanted).first()
        if row is None or (owner is not None and row.owner != owner):
            raise JobNotFound(f"expected the id of a job, got {id!r}; it may have been deleted")
        return to_job(row)

    def _finish(self, db: Connection, job: Job, status: Status, **values: Any) -> Job:
        """The last change of a job, and the message that somebody may wait for, in one transaction."""
        if status not in NEXT[job.status]:
            raise IllegalChange(f"expected a job that can become {status}, got one that is {job.status}")
        now = self._clock()
        ends = {"status": status, "completed_at": now, "expires_at": now + KEEP_SECONDS, **values}
        db.execute(jobs.update().where(jobs.c.id == job.id).values(**ends))
        if job.callback_url is not None:
            db.execute(callbacks.insert().values(job=job.id, url=job.callback_url, attempt=0, due_at=now))
        return self._row(db, job.id)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            yield db

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._engine.begin() as db:
            yield db


def stale(id: str, fence: int) -> StaleFence:
    """The error of a worker that lost its job."""
    return StaleFence(f"expected {id} to be this worker's (fence {fence}), but it was taken over, ended or deleted; stop")


def _insert(db: Connection) -> Any:
    """The database's own insert, which knows what to do about a row with the same key."""
    if db.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite
    from sqlalchemy.dialects.postgresql import insert as insert_postgres

    return insert_postgres
