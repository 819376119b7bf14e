"""The tables, and how each database is opened. The same SQL runs on SQLite (one machine) and PostgreSQL (clusters)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, Engine, make_url
from sqlalchemy.types import TypeDecorator

from deployments.errors import OptionError, OutputError

DRIVERS = ("sqlite", "postgresql+psycopg")
BUSY_SECONDS = 30
CONNECT_SECONDS = 10
LOCK = 7_262_145  # number of the advisory lock under which PostgreSQL's tables are made
LOST_MS = 60_000  # a machine that vanished inside a transaction holds its rows' locks for so long, not for hours


class Words(TypeDecorator[str]):
    """Text of any origin and length. Databases refuse zero bytes and halves of letters (file names that are no UTF-8)."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What can be stored of a text."""
        return None if value is None else value.replace("\0", "").encode(errors="replace").decode()


DatabaseTrouble = sa.exc.SQLAlchemyError  # whatever a database answers that is not what was asked for

meta = sa.MetaData()
jobs = sa.Table(
    "jobs",
    meta,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),  # order of arrival, also within one clock tick
    sa.Column("id", Words, nullable=False, unique=True),
    sa.Column("owner", Words, nullable=False),
    sa.Column("kind", Words, nullable=False),
    sa.Column("spec", Words, nullable=False),
    sa.Column("status", Words, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("stage", Words, nullable=False, default=""),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("fraction", sa.Double, nullable=False, default=0.0),
    sa.Column("eta", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("worker", Words, nullable=False, default=""),
    sa.Column("lease_until", sa.Double, nullable=False, default=0.0),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("result", Words),
    sa.Column("report", Words),
    sa.Column("info", Words, nullable=False, default="{}"),
    sa.Column("error_code", Words),
    sa.Column("error", Words),
    sa.Column("metadata", Words, nullable=False, default="{}"),
    sa.Column("callback_url", Words),
    sa.Column("request_id", Words, nullable=False, default=""),
    sa.Index("jobs_by_status", "status", "seq"),
    sa.Index("jobs_by_owner", "owner", "seq"),
    sa.Index("jobs_by_expiry", "expires_at"),
    sqlite_autoincrement=True,  # no number is given twice, also after the newest job was deleted
)
chunks = sa.Table(
    "chunks",
    meta,
    sa.Column("job", Words, primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("stop", sa.Integer, primary_key=True),
    sa.Column("key", Words, nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("segment", Words),
)
idempotency = sa.Table(
    "idempotency",
    meta,
    sa.Column("owner", Words, primary_key=True),
    sa.Column("key", Words, primary_key=True),
    sa.Column("digest", Words, nullable=False),
    sa.Column("job", Words, nullable=False),
)
assets = sa.Table(
    "assets",
    meta,
    sa.Column("id", Words, primary_key=True),
    sa.Column("owner", Words, nullable=False),
    sa.Column("key", Words, nullable=False),
    sa.Column("kind", Words, nullable=False),
    sa.Column("name", Words, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
callbacks = sa.Table(
    "callbacks",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", Words, nullable=False),
    sa.Column("url", Words, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("due_at", sa.Double, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice: a sender's late word must not meet another message
)


def open_engine(url: str) -> Engine:
    """A connection pool with all tables made. Raises OptionError for an unknown database, OutputError if it is away."""
    place = check_url(url)
    try:
        engine = _open_sqlite(place) if place.drivername == "sqlite" else _open_postgres(place)
        with engine.begin() as connection:
            if place.drivername != "sqlite":  # two processes that start at once must not both make the tables
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            meta.create_all(connection)
            _check_columns(connection, place)
        return engine
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise OutputError(f"expected a job table at {place.render_as_string()}, got: {cause}; check the address") from error


def check_url(url: str) -> URL:
    """The parsed address. Raises OptionError."""
    try:
        place = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the text is not repeated: it may hold a password
        kind = url.partition(":")[0][:20]
        raise OptionError(
            f"expected a database like sqlite:////folder/jobs.db or postgresql+psycopg://user@host/name, got {kind!r} and more"
        ) from None
    if place.drivername not in DRIVERS:
        raise OptionError(f"expected a database of {', '.join(DRIVERS)}; got {place.drivername!r}")
    if place.drivername == "sqlite" and place.database in (None, "", ":memory:"):
        raise OptionError("expected a file like sqlite:////folder/jobs.db, got a database in memory; jobs must outlive a process")
    return place


def _check_columns(connection: Connection, place: URL) -> None:
    """Raise OutputError for tables that another version made."""
    found = sa.inspect(connection)
    for table in meta.sorted_tables:
        lacking = sorted(set(table.c.keys()) - {column["name"] for column in found.get_columns(table.name)})
        if lacking:
            columns, where = ", ".join(lacking), place.render_as_string()
            raise OutputError(f"expected {columns} in table {table.name} of {where}, got an older table; name a new database")


def _open_postgres(place: URL) -> Engine:
    engine = sa.create_engine(place, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS})
    event.listen(engine, "connect", _set_up_postgres)
    return engine


def _set_up_postgres(connection: Any, record: Any) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {LOST_MS}")
    connection.commit()


def _open_sqlite(place: URL) -> Engine:
    Path(str(place.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(place, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    """Readers never wait for the writer (WAL); a job that was acknowledged survives a power cut (FULL)."""
    connection.isolation_level = None  # the driver would begin by itself, and too late
    for setting in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    """Writers queue at the start: a lock that is upgraded in the middle of a transaction cannot wait."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
