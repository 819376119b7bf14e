"""Messages that callers wait for, written with a job's last change and sent until they arrive: a part of the job table."""

from __future__ import annotations

from contextlib import AbstractContextManager

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from serve_app.jobs.records import Callback
from serve_app.jobs.rows import to_callback
from serve_app.jobs.tables import callbacks

SENDING_SECONDS = 60.0  # a sender that dies in the middle leaves the message to the next one after this


class Outbox:
    """The methods of `JobStore` that know callbacks."""

    def _write(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def due_callbacks(self, now: float, limit: int) -> list[Callback]:
        """Messages to send now; nobody else gets them for a minute."""
        pick = sa.select(callbacks).where(callbacks.c.due_at <= now).order_by(callbacks.c.due_at, callbacks.c.id)
        with self._write() as db:
            found = [to_callback(row) for row in db.execute(pick.limit(limit).with_for_update(skip_locked=True))]
            if found:
                ids = [callback.id for callback in found]
                later = callbacks.update().where(callbacks.c.id.in_(ids)).values(due_at=now + SENDING_SECONDS)
                db.execute(later)
        return found

    def callback_done(self, id: int) -> None:
        """It arrived."""
        with self._write() as db:
            db.execute(callbacks.delete().where(callbacks.c.id == id))

    def callback_failed(self, id: int, again_at: float | None) -> None:
        """It did not; try again at a time, or give up (None)."""
        if again_at is None:
            self.callback_done(id)
            return
        with self._write() as db:
            later = {"due_at": again_at, "attempt": callbacks.c.attempt + 1}
            db.execute(callbacks.update().where(callbacks.c.id == id).values(**later))
