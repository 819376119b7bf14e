"""`lipsync …`: the same pipeline with local processes."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.errors import Cancelled, LipSyncError, OptionError, OutputError
from serve_app.avatar_command import register as register_avatar
from serve_app.flags import Choices, Emotion
from serve_app.personalize_command import register as register_personalize
from serve_app.planner import SyncMode
from serve_app.request import Quality, SpeechSource, SyncRequest, check_input, read_choices, read_voice, segment
from serve_app.serve_command import register

if TYPE_CHECKING:
    from serve_app.pipeline import JobReport

app = typer.Typer(
    help="New speech in, the same video out with the mouth following it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights = typer.Typer(help="Model files: which there are, fetch them, check them.", no_args_is_help=True)
app.add_typer(weights, name="weights")
register(app)
register_personalize(app)
register_avatar(app)

Audio = Annotated[list[Path] | None, typer.Option("--audio", "-a", help="Sound file; once per --segment.")]
Words = Annotated[list[str] | None, typer.Option("--text", "-t", help="Words to speak; once per --segment.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Engine = Annotated[str, typer.Option("--engine", "-e", help="See `lipsync models`.")]
LengthMode = Annotated[SyncMode, typer.Option(help="If speech and clip differ in length; the default keeps the clip's length.")]
Face = Annotated[str, typer.Option(help="largest, speaking, a number from the left, or x,y,w,h in pixels.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")]
Expression = Annotated[float, typer.Option(help="How wide the mouth moves: 0 to 2, 1 = as the person does.")]
PortraitEngine = Annotated[
    str,
    typer.Option(
        "--engine",
        "-e",
        help="portrait: head and lids move by rules; vasa1: by a network that hears the speech; "
        "emo: the whole face by diffusion, with weights that you bring.",
    ),
]
Gaze = Annotated[str, typer.Option(help="Where the eyes look, X,Y in eye widths: right and down in the picture, within 0.3.")]
Distance = Annotated[float, typer.Option(help="How far away the head is: 0.8 to 1.25, 1 = as in the picture.")]
Pose = Annotated[
    str | None, typer.Option(help="How the head turns, YAW,PITCH,ROLL in degrees: right, down, clockwise; gaussian_splatting.")
]
Look = Annotated[
    str | None,
    typer.Option("--gaze", help="Where the eyes look, X,Y in eye widths: right, down, within 0.3; gaussian_splatting."),
]
Manner = Annotated[
    Path | None,
    typer.Option(help="Whose way of moving the head is taken: a clip, or the folder that `lipsync fit` printed; vasa1."),
]
QualityChoice = Annotated[Quality, typer.Option(help="Of the encoded picture.")]
Voice = Annotated[
    str, typer.Option(help="Of the words: default, NAME of a voice in LIPSYNC_VOICES, or a Piper voice's file.onnx.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


@app.command()
def sync(
    clip: Path,
    out: Out,
    audio: Audio = None,
    text: Words = None,
    segments: Annotated[list[str] | None, typer.Option("--segment", "-s", help="START-END in seconds; may repeat.")] = None,
    engine: Engine = "video_rewrite",
    sync_mode: LengthMode = "silence",
    chunks: Annotated[int | None, typer.Option(min=1, help="Pieces rendered side by side.")] = None,
    workers: Workers = None,
    face: Face = "largest",
    quality: QualityChoice = "high",
    expression: Expression = 1.0,
    voice: Voice = "default",
    pose: Pose = None,
    gaze: Look = None,
    emotion: Emotion = "neutral",
    option: Choices = None,
    report: Annotated[Path | None, typer.Option(help="Folder of the quality report; default: OUT's name + .report.")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave the quality report out.")] = False,
    server: Annotated[str | None, typer.Option(help="Have it made by the server at this URL (key: LIPSYNC_API_KEY).")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the person in CLIP say something else."""

    def work() -> None:
        from serve_app.progress import Bars
        from serve_app.unified import LipSync

        request = SyncRequest(
            clip=clip,
            speech=pair_sources(audio or [], text or [], segments or []),
            out=out,
            engine=engine,
            sync_mode=sync_mode,
            chunks=chunks,
            face=face,
            quality=quality,
            expression=expression,
            report=None if no_report else report or out.with_name(f"{out.stem}.report"),
            voice=read_voice(voice),
            options=read_choices(pose, gaze, option or [], emotion),
        )
        if server is not None:
            return by_server(server, request, quiet)
        with Bars(quiet) as bars:
            # said before the report, which takes longer than the rendering
            done = partial(tell_result, bars.say)
            job = LipSync(engine, workers=workers, progress=bars).run(request, done)
        if job.page is not None:
            say(f"{job.page}  quality report")

    guarded(work, debug)


def by_server(server: str, request: SyncRequest, quiet: bool) -> None:
    """Have a server make it, with the caller's key."""
    from serve_app.client import Remote
    from serve_app.config import Secrets
    from serve_app.progress import Bars

    with Bars(quiet) as bars:
        say(str(Remote(server, Secrets().api_key or None).sync(request, bars)))


@app.command()
def portrait(
    image: Path,
    out: Out,
    audio: Annotated[Path | None, typer.Option("--audio", "-a", help="Sound file.")] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Words to speak.")] = None,
    engine: PortraitEngine = "portrait",
    emotion: Emotion = "neutral",
    gaze: Gaze = "0,0",
    distance: Distance = 1.0,
    manner: Manner = None,
    quality: QualityChoice = "high",
    expression: Expression = 1.0,
    voice: Voice = "default",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a still picture speak."""

    def work() -> None:
        from deployments.portrait.controls import read_gaze
        from serve_app.portrait import PortraitRequest, run_portrait
        from serve_app.progress import Bars

        source = SpeechSource(audio=audio, text=text, voice=read_voice(voice))
        look = read_gaze(gaze)
        request = PortraitRequest(
            image,
            source,
            out,
            quality,
            expression=expression,
            engine=engine,
            emotion=emotion,
            gaze=look,
            distance=distance,
            manner=manner,
        )
        with Bars(quiet) as bars:
            say(str(run_portrait(request, bars)))

    guarded(work, debug)


@app.command()
def fit(
    clip: Path,
    engine: Engine = "video_rewrite",
    face: Face = "largest",
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn the person in CLIP ahead of time; later jobs on the same clip start at once."""

    def work() -> None:
        from serve_app.progress import Bars
        from serve_app.unified import LipSync

        check_input(clip, "video")
        with Bars(quiet) as bars:
            say(str(LipSync(engine, workers=workers, progress=bars).fit(clip, face)))

    guarded(work, debug)


@app.command()
def evaluate(
    out: Path,
    reference: Annotated[Path | None, typer.Option(help="The clip that OUT was made from.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder of the report; default: OUT's name + .report.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a result: synchrony, picture, borders; JSON and a page to look at."""

    def work() -> None:
        from deployments.quality.evaluate import evaluate as measure
        from deployments.quality.report import write_report
        from serve_app.progress import Bars

        for path in filter(None, (out, reference)):
            check_input(path, "video")
        with Bars(quiet) as bars:
            found = measure(out, reference, progress=bars)
        say(str(write_report(found, report or out.with_name(f"{out.stem}.report"))))

    guarded(work, debug)


@app.command()
def models(debug: Debug = False) -> None:
    """Engines that can be asked for."""

    def work() -> None:
        from deployments.engines.registry import engine_about

        show(("engine", "what it does"), list(engine_about().items()))

    guarded(work, debug)


@app.command()
def voices(debug: Debug = False) -> None:
    """Voices that words can be said with: the built-in one, and those in LIPSYNC_VOICES."""

    def work() -> None:
        from deployments.audio.voice import known_voices

        rows = [
            (facts.name, facts.language, f"{facts.rate} Hz", facts.problem or ", ".join(facts.speakers[:8]))
            for facts in known_voices()
        ]
        show(("voice", "language", "rate", "speakers"), rows)

    guarded(work, debug)


@weights.command("list")
def weights_list(debug: Debug = False) -> None:
    """Every model file, its size, licence, and whether it is here."""

    def work() -> None:
        from deployments.weights.fetch import cached_path
        from deployments.weights.manifest import read_manifest

        rows = [
            (f.name, f"{f.size / 1e6:.1f} MB", f.licence, "here" if cached_path(f).is_file() else "not yet", f.about)
            for f in read_manifest().values()
        ]
        show(("file", "size", "licence", "state", "what it is"), rows)

    guarded(work, debug)


@weights.command("pull")
def weights_pull(debug: Debug = False) -> None:
    """Fetch all model files that are not here yet."""

    def work() -> None:
        from deployments.weights.fetch import weights_path
        from deployments.weights.manifest import read_manifest

        for name in read_manifest():
            say(str(weights_path(name)))

    guarded(work, debug)


@weights.command("verify")
def weights_verify(debug: Debug = False) -> None:
    """Read every byte of the model files that are here; exit 4 if one is not the one in the manifest."""

    def work() -> None:
        from deployments.errors import WeightsError
        from deployments.weights.fetch import cached_path, verify
        from deployments.weights.manifest import read_manifest

        reasons = {f.name: verify(f, cached_path(f)) for f in read_manifest().values()}
        show(("file", "state"), [(name, reason or "verified") for name, reason in reasons.items()])
        if any(reasons.values()):
            raise WeightsError("expected every model file as in the manifest; run `lipsync weights pull`")

    guarded(work, debug)


def pair_sources(audio: list[Path], text: list[str], segments: list[str]) -> tuple[SpeechSource, ...]:
    """One speech per segment, in the order given. Raises OptionError."""
    if bool(audio) == bool(text):
        raise OptionError("expected new speech: give either --audio FILE or --text WORDS")
    sources = [SpeechSource(audio=path) for path in audio] + [SpeechSource(text=words) for words in text]
    if not segments:
        if len(sources) > 1:
            raise OptionError(f"expected one speech for the whole clip, got {len(sources)}; give a --segment with each")
        return tuple(sources)
    if len(segments) != len(sources):
        raise OptionError(f"expected one --audio or --text per --segment, got {len(sources)} for {len(segments)} segments")
    spans = [segment(*split_range(words)) for words in segments]
    return tuple(SpeechSource(s.audio, s.text, span) for s, span in zip(sources, spans, strict=True))


def tell_result(say: Callable[[str], None], job: JobReport) -> None:
    """Where the result lies."""
    say(f"{job.out}  {job.frames} frames, {job.patched} changed, {sum(job.seconds.values()):.1f} s")


def split_range(words: str) -> tuple[str, str]:
    """`1.5-4` as its two ends. Raises OptionError."""
    start, dash, end = words.partition("-")
    if not dash:
        raise OptionError(f"expected a segment like 1.5-4 (seconds), got {words!r}")
    return start.strip(), end.strip()


def guarded(work: Callable[[], None], debug: bool) -> None:
    """Run a command; errors become one line on stderr and the exit code of their kind."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal that closes, too; not where `nohup` asked to go on
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        work()
    except KeyboardInterrupt:
        fail(Cancelled("stopped; nothing was written, and the same command goes on where it was"), debug)
    except LipSyncError as error:
        fail(error, debug)
    except OSError as error:
        fail(OutputError(f"the disk or a file failed: {error}"), debug)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def fail(error: LipSyncError, debug: bool) -> None:
    """Say what went wrong and leave."""
    if debug:
        traceback.print_exc()
    print(f"lipsync: {error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)


def say(words: str) -> None:
    """A line of result on stdout, never wrapped, so that scripts can read it."""
    print(words, flush=True)


def show(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on stdout."""
    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> None:
    """Entry of the console script."""
    app()
