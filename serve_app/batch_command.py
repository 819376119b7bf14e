"""`lipsync batch`: a manifest of customers through one template."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.errors import OptionError, RenderError
from serve_app.flags import Choices, Emotion
from serve_app.personalize_command import Debug, Engine, Quiet, SlotMode
from serve_app.request import Quality

if TYPE_CHECKING:
    from serve_app.batches.manifest import Bring
    from serve_app.batches.report import Summary
    from serve_app.batches.rows import RowResult
    from serve_app.batches.run import Batch, Pool
    from serve_app.personalize import Wanted
    from serve_app.planner import SyncMode

SERVER_PATIENCE = 600  # seconds


def register(app: typer.Typer) -> None:
    """Add the command to the `lipsync` program."""
    app.command()(batch)


def batch(
    manifest: Annotated[str, typer.Argument(help="CSV, JSON lines or Parquet: a column per variable, and `id` if you like.")],
    template: Annotated[str, typer.Option("--template", "-t", help="See `lipsync template list`.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or s3://bucket/prefix of the results and the table.")],
    engine: Engine = "video_rewrite",
    sync_mode: SlotMode = "silence",
    quality: Annotated[Quality, typer.Option(help="Of the pictures that are made anew.")] = "high",
    expression: Annotated[float, typer.Option(help="How wide the mouth moves: 0 to 2.")] = 1.0,
    emotion: Emotion = "neutral",
    option: Choices = None,
    store: Annotated[
        str | None, typer.Option(help="Where templates and avatars are: a server's store, for its ids; default: LIPSYNC_CACHE.")
    ] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Make the rows that can be made.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="A quality report for every row; takes longer than the row.")
    ] = False,
    server: Annotated[
        str | None, typer.Option(help="Have it made by the server at this URL; TEMPLATE is an id there (key: LIPSYNC_API_KEY).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one per core. With --server, rows at once; default: 8.")
    ] = None,
    ray: Annotated[
        bool | None, typer.Option("--ray/--no-ray", help="Actors of a Ray cluster; default: inside a Ray job.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(help="Per actor; default: what the engine asks for, where the cluster has any now.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say a template for every row of MANIFEST. The same command again goes on where it was."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from deployments.settings import cache_folder, inside_ray_job
        from serve_app.batches.rows import Place
        from serve_app.batches.run import Batch, run_batch
        from serve_app.cache import open_cache
        from serve_app.progress import Bars

        here = open_cache(cache_folder()).folder
        where = out if "://" in out else str(Path(out).absolute())
        file, bring = manifest_file(manifest, here)
        wanted = wishes(engine, sync_mode, quality, expression, option or [], emotion)
        asked = Batch(file, Place(template, store or str(here), where, here / "mirror"), wanted, skip_invalid, measure, bring)
        if server is not None:
            if store or ray or gpus is not None:
                raise OptionError("expected --server without --store, --ray and --gpus: the server has its own; leave them out")
            summary, results = by_server(server, asked, workers, quiet)
        else:
            with pool_of(workers, inside_ray_job() if ray is None else ray, engine, gpus) as pool, Bars(quiet) as bars:
                summary, results = run_batch(asked, pool, bars)
        say(f"{summary.line()}\n{where}/report.html")
        failed = [result for result in results if result.status == "failed"]
        if failed:
            raise RenderError(f"{len(failed)} of {len(results)} rows failed, first {failed[0].name}: {failed[0].error}")

    guarded(work, debug)


def wishes(engine: str, sync_mode: SyncMode, quality: Quality, expression: float, options: list[str], emotion: str) -> Wanted:
    """What is asked for beside the rows. Raises OptionError for options that the engine does not take."""
    from serve_app.personalize import Wanted
    from serve_app.request import check_options, read_choices

    wanted = Wanted(engine, sync_mode, quality, expression, read_choices(None, None, options, emotion))
    check_options(engine, wanted.options)
    return wanted


def by_server(server: str, asked: Batch, rows_at_once: int | None, quiet: bool) -> tuple[Summary, list[RowResult]]:
    """The same batch through the API of a server, with the caller's key; it may be busy for a while."""
    from serve_app.batches.remote import AT_ONCE, run_remote
    from serve_app.client import Remote
    from serve_app.config import Secrets
    from serve_app.progress import Bars

    remote = Remote(server, Secrets().api_key or None, patience=SERVER_PATIENCE)
    with Bars(quiet) as bars:
        return run_remote(asked, remote, rows_at_once or AT_ONCE, bars)


def manifest_file(where: str, cache: Path) -> tuple[Path, Bring | None]:
    """A manifest as a file of this machine, and what fetches the files beside it.

    Raises MediaMissing for one that the store does not have.
    """
    if "://" not in where:
        return Path(where), None
    from serve_app.batches.rows import mirror_of
    from serve_app.media_store import MediaStore, check_key

    folder, _, name = where.rpartition("/")
    mirror = MediaStore(folder, mirror_of(folder, cache / "mirror", "manifests"))

    def bring(key: str) -> Path:
        check_key(key)
        if not mirror.local:
            (mirror.root / key).unlink(missing_ok=True)  # it may have changed since
        return mirror.fetch(key)

    return bring(name), bring


@contextmanager
def pool_of(workers: int | None, ray: bool, engine: str, gpus: float | None = None) -> Iterator[Pool]:
    """Local processes, or actors of a cluster."""
    if ray:
        from deployments.engines.registry import replica_settings
        from serve_app.batch import RayPool

        with RayPool(workers, replica_settings(engine).gpus, gpus) as actors:
            yield actors
        return
    from serve_app.config import Settings
    from serve_app.executor import make_executor

    with make_executor(workers or Settings().workers) as executor:
        yield executor
