"""What nobody waits for: results past their time, files that nothing refers to, callbacks that are due."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serve_app.jobs.store import JobStore
from serve_app.media_store import MediaStore
from serve_app.service.log import log

COLLECTED_ROOMS = ("inputs", "results", "reports")
YOUNG_SECONDS = 6 * 3600.0  # a file may be stored before the row that refers to it
CHUNK_SECONDS = 6 * 3600.0  # folders of chunks that no job touched for so long
ROUND_SECONDS = 60.0


class Housekeeping:
    """A thread that sends callbacks every second and cleans up every minute."""

    def __init__(self, jobs: JobStore, media: MediaStore, send_callbacks: Callable[[], int]) -> None:
        self._jobs, self._media, self._send = jobs, media, send_callbacks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._turn, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the task at hand."""
        self._stop.set()
        self._thread.join(10)

    def _turn(self) -> None:
        cleaned = 0.0
        while not self._stop.wait(1.0):
            try:
                self._send()
                if time.monotonic() - cleaned > ROUND_SECONDS:
                    cleaned = time.monotonic()
                    self.clean(time.time())
            except Exception as error:  # noqa: BLE001 the next round may go well
                log.error("housekeeping_failed", error=f"{type(error).__name__}: {error}")

    def clean(self, now: float) -> None:
        """One round."""
        for job in self._jobs.expired(now):
            # Also of a job that ended without a result: it may have been written before that was seen.
            forget(job.result or f"results/{job.id}.mp4", job.report or f"reports/{job.id}", self._media)
            self._jobs.delete(job.id)
            log.info("job_expired", job=job.id)
        gone = self._media.collect(self._jobs.keys_in_use(), YOUNG_SECONDS, COLLECTED_ROOMS)
        if gone:
            log.info("files_collected", files=gone)
        drop_chunks(self._media, now)


def forget(result: str | None, report: str | None, media: MediaStore) -> None:
    """Delete what a job made."""
    if result is not None:
        media.delete(result)
    if report is not None:
        media.delete_folder(report)


def drop_chunks(media: MediaStore, now: float) -> None:
    """Delete the chunks of jobs that nobody works on any more, on any machine."""
    youngest: dict[str, float] = {}
    for key, age in media.keys("jobs/"):
        folder = key.split("/")[1]
        youngest[folder] = min(age, youngest.get(folder, age))
    for folder, age in youngest.items():
        if age > CHUNK_SECONDS:
            media.delete_folder(f"jobs/{folder}")
    for place in (media.root / "jobs").glob("*"):  # copies, and folders that are empty
        if youngest.get(place.name, CHUNK_SECONDS) >= CHUNK_SECONDS and now - newest(place) > CHUNK_SECONDS:
            shutil.rmtree(place, ignore_errors=True)


def newest(folder: Path) -> float:
    """When something in a folder was last written, seconds since 1970."""
    return max((path.stat().st_mtime for path in [folder, *folder.glob("*")]), default=0.0)
