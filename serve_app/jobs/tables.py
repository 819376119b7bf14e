"""The tables, and how each database is opened. The same SQL runs on SQLite (one machine) and PostgreSQL (clusters)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from deployments.errors import OptionError, OutputError

DRIVERS = ("sqlite", "postgresql+psycopg")
BUSY_SECONDS = 30
LOCK = 7_262_145  # number of the advisory lock under which PostgreSQL's tables are made

meta = sa.MetaData()
jobs = sa.Table(
    "jobs",
    meta,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),  # order of arrival, also within one clock tick
    sa.Column("id", sa.String(80), nullable=False, unique=True),
    sa.Column("owner", sa.String(80), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("stage", sa.String(40), nullable=False, default=""),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("fraction", sa.Double, nullable=False, default=0.0),
    sa.Column("eta", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(200), nullable=False, default=""),
    sa.Column("lease_until", sa.Double, nullable=False, default=0.0),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("result", sa.String(400)),
    sa.Column("report", sa.String(400)),
    sa.Column("info", sa.Text, nullable=False, default="{}"),
    sa.Column("error_code", sa.String(80)),
    sa.Column("error", sa.Text),
    sa.Column("metadata", sa.Text, nullable=False, default="{}"),
    sa.Column("callback_url", sa.Text),
    sa.Column("request_id", sa.String(200), nullable=False, default=""),
    sa.Index("jobs_by_status", "status", "seq"),
    sa.Index("jobs_by_owner", "owner", "seq"),
)
chunks = sa.Table(
    "chunks",
    meta,
    sa.Column("job", sa.String(80), primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("stop", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(400), nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("segment", sa.String(400)),
)
idempotency = sa.Table(
    "idempotency",
    meta,
    sa.Column("owner", sa.String(80), primary_key=True),
    sa.Column("key", sa.String(256), primary_key=True),
    sa.Column("digest", sa.String(128), nullable=False),
    sa.Column("job", sa.String(80), nullable=False),
)
assets = sa.Table(
    "assets",
    meta,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("owner", sa.String(80), nullable=False),
    sa.Column("key", sa.String(400), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
callbacks = sa.Table(
    "callbacks",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String(80), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("due_at", sa.Double, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice: a sender's late word must not meet another message
)


def open_engine(url: str) -> Engine:
    """A connection pool with all tables made. Raises OptionError for an unknown database, OutputError if it is away."""
    place = check_url(url)
    try:
        engine = _open_sqlite(place) if place.drivername == "sqlite" else sa.create_engine(place, pool_pre_ping=True)
        with engine.begin() as connection:
            if place.drivername != "sqlite":  # two processes that start at once must not both make the tables
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            meta.create_all(connection)
        return engine
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise OutputError(f"expected a job table at {place.render_as_string()}, got: {cause}; check the address") from error


def check_url(url: str) -> URL:
    """The parsed address. Raises OptionError."""
    try:
        place = make_url(url)
    except sa.exc.ArgumentError:
        raise OptionError(f"expected a database like sqlite:////folder/jobs.db or postgresql+psycopg://…, got {url!r}") from None
    if place.drivername not in DRIVERS:
        raise OptionError(f"expected a database of {', '.join(DRIVERS)}; got {place.drivername!r}")
    return place


def _open_sqlite(place: URL) -> Engine:
    if place.database:
        Path(place.database).parent.mkdir(parents=True, exist_ok=True)
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
