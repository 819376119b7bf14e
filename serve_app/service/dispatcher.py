"""Claims jobs from the table and sees them through. Any number of these may run; each may die at any moment."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from deployments.errors import Cancelled, LipSyncError, OutputError
from serve_app.executor import Executor
from serve_app.jobs.records import Job, StaleFence
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import DatabaseTrouble
from serve_app.media_store import MediaStore
from serve_app.service.log import log
from serve_app.service.runner import Flags, JobRun, Stopped

MakeExecutor = Callable[[Job, Flags], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class DispatchSettings:
    """How a dispatcher works. Times in seconds."""

    slots: int = 2  # jobs at once: while one is stitched, the other one renders
    lease: float = 20.0
    beat: float = 0.5  # heartbeat; also how soon a cancellation is seen
    idle: float = 0.2  # between looks into an empty queue
    keep: float = 7 * 86400  # results


class Dispatcher:
    """Threads that claim, run and watch jobs. `start()`, later `stop()`."""

    def __init__(
        self, jobs: JobStore, media: MediaStore, make_executor: MakeExecutor, settings: DispatchSettings | None = None
    ) -> None:
        self._jobs, self._media, self._make_executor = jobs, media, make_executor
        self._settings = settings or DispatchSettings()
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._running: dict[str, tuple[JobRun, threading.Thread]] = {}
        self._lock = threading.Lock()
        self._stopping, self._over = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in (self._claim_jobs, self._beat)]
        self.last_beat = time.monotonic()

    def start(self) -> None:
        """Begin to claim jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 10.0) -> None:
        """Claim no more; give running jobs back to the queue, where another dispatcher goes on with them."""
        self._stopping.set()
        limit = time.monotonic() + patience
        claimer, beater = self._threads
        claimer.join(patience)  # first: a job that it claims this moment must be given back too
        with self._lock:
            running = list(self._running.values())
        for run, _ in running:
            run.flags.stop.set()
        for _, thread in running:
            thread.join(max(0.0, limit - time.monotonic()))
        self._over.set()  # leases were renewed up to here
        beater.join(max(0.0, limit - time.monotonic()))

    def healthy(self) -> bool:
        """Whether both loops still turn."""
        return all(thread.is_alive() for thread in self._threads) and time.monotonic() - self.last_beat < self._settings.lease

    def _claim_jobs(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                free = len(self._running) < self._settings.slots
            job = self._claim() if free else None
            if job is None:
                self._stopping.wait(self._settings.idle)
                continue
            run = JobRun(job, self._jobs, self._media, self._settings.keep, Flags())
            thread = threading.Thread(target=self._see_through, args=(run,), name=job.id, daemon=True)
            with self._lock:
                self._running[job.id] = (run, thread)
            if self._stopping.is_set():
                run.flags.stop.set()
            thread.start()

    def _claim(self) -> Job | None:
        try:
            return self._jobs.claim(self._name, self._settings.lease)
        except Exception as error:  # noqa: BLE001 a database that is away comes back; the loop must outlive it
            log.error("claim_failed", error=f"{type(error).__name__}: {error}")
            self._stopping.wait(self._settings.beat)
            return None

    def _beat(self) -> None:
        while not self._over.wait(self._settings.beat):
            self.last_beat = time.monotonic()
            with self._lock:
                running = [run for run, _ in self._running.values() if not run.settled]
            for run in running:
                self._renew(run)

    def _renew(self, run: JobRun) -> None:
        try:
            if self._jobs.heartbeat(run.job.id, run.job.fence, self._settings.lease):
                run.flags.cancel.set()
        except StaleFence:
            run.flags.lost.set()
        except Exception as error:  # noqa: BLE001 one missed beat is no reason to end; the lease is longer
            log.error("heartbeat_failed", job=run.job.id, error=f"{type(error).__name__}: {error}")

    def _see_through(self, run: JobRun) -> None:
        """One job in its thread, to one of its ends."""
        job, started = run.job, time.monotonic()
        about = {"job": job.id, "request": job.request_id, "engine": job.spec.engine, "attempt": job.attempt}
        log.info("job_started", **about)
        try:
            with self._make_executor(job, run.flags) as executor:
                run.work(executor)
            log.info("job_succeeded", seconds=round(time.monotonic() - started, 3), **about)
        except Exception as error:  # noqa: BLE001 whatever it is, the row must say so
            self._ended(run, error, about)
        finally:
            with self._lock:
                self._running.pop(job.id, None)

    def _ended(self, run: JobRun, error: Exception, about: dict[str, object]) -> None:
        """Say in the table why a job ended early."""
        id_, fence = run.job.id, run.job.fence
        try:
            match error:
                case _ if run.settled:  # the video is whole; callers are told that no report will follow
                    self._jobs.drop_report(id_, fence)
                    self._media.delete_folder(f"reports/{id_}")
                    log.warning("report_failed", error=f"{type(error).__name__}: {error}", **about)
                case StaleFence():
                    log.warning("job_lost", **about)
                case Stopped():
                    self._jobs.give_back(id_, fence)
                    log.info("job_given_back", **about)
                case Cancelled() if run.flags.cancel.is_set():
                    self._jobs.cancelled(id_, fence)
                    log.info("job_cancelled", **about)
                case LipSyncError():
                    self._jobs.fail(id_, fence, error.code, str(error))
                    log.warning("job_failed", code=error.code, error=str(error), **about)
                case DatabaseTrouble():  # the job is not to blame: its lease ends, and it is tried again
                    log.error("job_left", error=f"{type(error).__name__}: {error}", **about)
                case OSError():
                    self._jobs.fail(id_, fence, OutputError.code, f"the disk or a file failed: {error}")
                    log.error("job_failed", code=OutputError.code, error=str(error), **about)
                case _:
                    self._jobs.fail(id_, fence, "internal_error", f"{type(error).__name__}; the server's log says more")
                    log.error("job_failed", code="internal_error", exc_info=error, **about)
        except StaleFence:
            log.warning("job_lost", **about)
        except Exception as second:  # noqa: BLE001 the database is away: the lease ends, and another one takes over
            log.error("job_end_not_written", error=f"{type(second).__name__}: {second}", **about)
