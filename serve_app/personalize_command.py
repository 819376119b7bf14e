"""`lipsync template …`, `lipsync personalize`: one filmed message for many, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.errors import OptionError
from serve_app.flags import Choices, Emotion
from serve_app.planner import SyncMode
from serve_app.request import Quality

if TYPE_CHECKING:
    from serve_app.cache import Cache
    from serve_app.executor import Executor
    from serve_app.media_store import MediaStore
    from serve_app.script import Value
    from serve_app.templates import Templates

Engine = Annotated[str, typer.Option("--engine", "-e", "--lip-sync-model", help="See `lipsync models`.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("--var", "-v", help="NAME=WORDS, NAME=WORDS|ipa:SOUNDS or NAME=@recording.wav; may repeat."),
]
SlotMode = Annotated[
    SyncMode,
    typer.Option(help="Too much for a slot: silence refuses it (default), cut_off ends it, bounce and remap make it longer."),
]

Store = Annotated[str | None, typer.Option(help="Templates of a store (s3://…), or a server's; default: LIPSYNC_CACHE.")]

template = typer.Typer(help="Filmed messages with slots: create, list, show, delete.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the `lipsync` program."""
    from serve_app.batch_command import register as register_batch

    app.add_typer(template, name="template")
    app.command()(personalize)
    register_batch(app)


@template.command("create")
def create(
    clip: Path,
    script: Annotated[Path | None, typer.Argument(help="YAML: segments with times, or a transcript.")] = None,
    *,
    name: Annotated[str, typer.Option(help="What it is called from now on.")],
    transcript: Annotated[
        str | None, typer.Option(help='What CLIP says, instead of SCRIPT: "Hi {{customer_name|said:Ann}}, welcome."')
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Find the words in the clip's sound; times in SCRIPT are refused.")
    ] = False,
    engine: Engine = "video_rewrite",
    face: Annotated[str, typer.Option(help="largest, speaking, a number from the left, or x,y,w,h in pixels.")] = "largest",
    replace: Annotated[bool, typer.Option("--replace", help="Where the name is taken, forget the old one.")] = False,
    store: Annotated[
        str | None, typer.Option(help="Keep it there (s3://…), for batches on a cluster; default: LIPSYNC_CACHE.")
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep CLIP and SCRIPT (YAML) as a template; the person in it is learned once."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from serve_app.personalize import create_template
        from serve_app.planner import describe
        from serve_app.progress import Bars
        from serve_app.templates import Templates

        with machine(workers, store) as (cache, executor), Bars(quiet) as bars:
            templates = Templates(cache.folder)
            parts = (clip, told_script(script, transcript, auto))
            made = create_template(templates, name, parts, engine, face, cache, executor, bars, replace)
            if store is not None:
                send(made.folder, store)
        say(f"{made.name}  {made.seconds:.1f} s, variables: {', '.join(made.script.slots())}")
        for line in made.script.lines if auto or transcript else ():
            say(f"{describe(line.segment):>16}  {line.text}")
        for note in made.notes:
            say(f"note: {note}")

    guarded(work, debug)


def told_script(script: Path | None, transcript: str | None, auto: bool) -> Path | str:
    """The script's file, or one made of a transcript. Raises OptionError for both, none, or times where none are wanted."""
    if (script is None) == (transcript is None):
        raise OptionError("expected either a SCRIPT or --transcript, got both or none")
    if script is None:
        import yaml

        return yaml.safe_dump({"transcript": transcript}, allow_unicode=True)
    if auto:
        from serve_app.script import load_script, read_script
        from serve_app.transcript import is_transcript

        if not is_transcript(load_script(read_script(script), script.name)):
            raise OptionError(f"expected a transcript or segments without start and end for --auto, got times in {script.name}")
    return script


@template.command("list")
def show_all(store: Store = None, debug: Debug = False) -> None:
    """All templates."""
    from serve_app.cli import guarded, show

    def work() -> None:
        from deployments.settings import cache_folder
        from serve_app.templates import Templates, rows_of

        here = () if store else Templates(cache_folder())
        found = rows_of(shared(store)) if store else [(t.name, t.seconds, t.script, t.engines) for t in here]
        rows = [(name, f"{s:.1f} s", ", ".join(script.slots()), ", ".join(engines)) for name, s, script, engines in found]
        show(("template", "length", "variables", "learned by"), rows)

    guarded(work, debug)


@template.command("show")
def show_one(name: str, store: Store = None, debug: Debug = False) -> None:
    """What a template says, and what it must be told."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from serve_app.planner import describe

        found = templates_of(store, name).open(name)
        say(f"{found.name}  {found.clip}  {found.seconds:.1f} s, face {found.face}, learned by {', '.join(found.engines)}")
        for line in found.script.lines:
            say(f"{describe(line.segment):>16}  {line.text}")
        for slot in found.script.slots():
            given = found.script.defaults.get(slot)
            say(f"variable {slot}" + (f" = {given.text}" if given else ""))
        for note in found.notes:
            say(f"note: {note}")

    guarded(work, debug)


@template.command("delete")
def delete(name: str, store: Store = None, debug: Debug = False) -> None:
    """Forget a template: its clip and its script."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from serve_app.templates import ROOM

        templates_of(store, name).delete(name)
        if store:
            shared(store).delete_folder(f"{ROOM}/{name}")
        say(f"{name} is gone")

    guarded(work, debug)


def personalize(
    name: Annotated[str, typer.Argument(metavar="TEMPLATE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")],
    variables: Variables = None,
    customer_name: Annotated[str | None, typer.Option(help="Short for --var customer_name=...")] = None,
    destination: Annotated[str | None, typer.Option(help="Short for --var destination=...")] = None,
    engine: Engine = "video_rewrite",
    sync_mode: SlotMode = "silence",
    quality: Annotated[Quality, typer.Option(help="Of the pictures that are made anew.")] = "high",
    expression: Annotated[float, typer.Option(help="How wide the mouth moves: 0 to 2, 1 = as the person does.")] = 1.0,
    emotion: Emotion = "neutral",
    option: Choices = None,
    report: Annotated[Path | None, typer.Option(help="Folder of a quality report; default: none.")] = None,
    store: Store = None,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say a template for one customer."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from serve_app.personalize import Wanted
        from serve_app.personalize import personalize as run
        from serve_app.progress import Bars
        from serve_app.request import read_choices
        from serve_app.unified import Waker

        short = {"customer_name": customer_name, "destination": destination}
        pairs = [*(variables or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]
        wanted = Wanted(engine, sync_mode, quality, expression, read_choices(None, None, option or [], emotion))
        with machine(workers, store) as (cache, executor), Bars(quiet) as bars:
            found = templates_of(store, name).open(name)
            values = read_variables(pairs, found.script.strictest())
            job = run(found, values, out, wanted, cache, executor, bars, report, Waker(executor, engine))
            if store is None:
                templates_of(store, name).learned(found, engine)
        kept = f", {job.copied} copied" if job.copied else ""
        say(f"{job.out}  {job.frames} frames, {job.patched} changed{kept}, {sum(job.seconds.values()):.1f} s")
        if job.note:
            say(f"note: {job.note}")
        if job.page is not None:
            say(f"{job.page}  quality report")

    guarded(work, debug)


def read_variables(pairs: list[str], voice: str = "default") -> dict[str, Value]:
    """`NAME=VALUE` each; files are looked for from here. Raises OptionError, SpeechError or InputError."""
    from serve_app.script import parse_value

    values: dict[str, Value] = {}
    for pair in pairs:
        name, sign, words = pair.partition("=")
        if not sign or not name.strip():
            raise OptionError(f"expected a variable as NAME=VALUE, got {pair!r}")
        if name.strip() in values:
            raise OptionError(f"expected every variable once, got {name.strip()} again")
        values[name.strip()] = parse_value(name.strip(), words, Path.cwd(), voice)
    return values


def templates_of(store: str | None, name: str) -> Templates:
    """The templates of this machine, or of a store, with one of them brought here."""
    from deployments.settings import cache_folder
    from serve_app.templates import Templates, bring

    if store is None:
        return Templates(cache_folder())
    there = shared(store)
    bring(there, name)
    return Templates(there.root)


def send(folder: Path, store: str) -> None:
    """A template's folder to a store that several machines share."""
    from serve_app.templates import ROOM

    shared(store).put_folder(folder, f"{ROOM}/{folder.name}")


def shared(store: str) -> MediaStore:
    """The store of an address, with its copies on this machine."""
    from deployments.settings import cache_folder
    from serve_app.batches.rows import cache_store

    return cache_store(store, cache_folder() / "mirror")


@contextmanager
def machine(workers: int | None, store: str | None = None) -> Iterator[tuple[Cache, Executor]]:
    """The cache (of this machine, or a store) and the processes of this machine."""
    from deployments.settings import cache_folder
    from serve_app.cache import open_cache
    from serve_app.config import Settings
    from serve_app.executor import make_executor

    settings = Settings()
    cache = open_cache(cache_folder())
    cache.prune(settings.keep_days)
    if store is not None:
        from serve_app.service.store_cache import StoreCache

        cache = StoreCache(shared(store))
    with make_executor(workers or settings.workers) as executor:
        yield cache, executor
