"""Files that callers sent ahead: a part of the job table."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from serve_app.jobs.records import Asset, JobNotFound
from serve_app.jobs.rows import to_asset
from serve_app.jobs.tables import assets


class AssetTable:
    """The methods of `JobStore` that know assets."""

    def _read(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def _write(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def add_asset(self, asset: Asset) -> None:
        """Keep a new asset."""
        with self._write() as db:
            db.execute(assets.insert().values(**asdict(asset)))

    def asset(self, id: str, owner: str) -> Asset:
        """One asset. Raises JobNotFound, also for another owner's."""
        with self._read() as db:
            row = db.execute(sa.select(assets).where(assets.c.id == id, assets.c.owner == owner)).first()
        if row is None:
            raise JobNotFound(f"expected the id of an asset, got {id!r}; it may have been deleted")
        return to_asset(row)

    def assets(self, owner: str) -> list[Asset]:
        """All of an owner's, newest first."""
        wanted = sa.select(assets).where(assets.c.owner == owner).order_by(assets.c.created_at.desc(), assets.c.id)
        with self._read() as db:
            return [to_asset(row) for row in db.execute(wanted)]

    def delete_asset(self, id: str, owner: str) -> None:
        """Forget one. Raises JobNotFound."""
        with self._write() as db:
            if db.execute(assets.delete().where(assets.c.id == id, assets.c.owner == owner)).rowcount != 1:
                raise JobNotFound(f"expected the id of an asset, got {id!r}; it may have been deleted")

    def _all_assets(self, db: Connection) -> list[Asset]:
        return [to_asset(row) for row in db.execute(sa.select(assets))]
