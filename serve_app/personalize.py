"""One filmed message for many: variables to segments, and then the same pipeline as every other job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Progress, no_progress
from deployments.errors import OptionError, SpeechError
from serve_app.cache import Cache
from serve_app.executor import Executor
from serve_app.pipeline import NOBODY, JobReport, Watch, fit_avatar, probe_clip, run_sync, track_face
from serve_app.planner import SyncMode, check_segments, describe
from serve_app.request import Quality, SyncRequest
from serve_app.script import Script, Value, check_voices, parse_script
from serve_app.speech import RATE, speak_slot
from serve_app.templates import Template, Templates, read_parts
from serve_app.transcript import with_times

SILENT = "the clip has no sound: slots are heard over silence"


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside the variables."""

    engine: str = "video_rewrite"
    sync_mode: SyncMode = "silence"
    quality: Quality = "high"
    expression: float = 1.0
    options: dict[str, float] = field(default_factory=dict)  # what only this engine knows


def create_template(
    templates: Templates,
    name: str,
    parts: tuple[Path, Path | str],
    engine: str,
    face: str,
    cache: Cache,
    executor: Executor,
    progress: Progress = no_progress,
    replaced: bool = False,
) -> Template:
    """Check a clip and its script (a file, or YAML), learn the person, and keep both under a name.

    Where the script has a transcript instead of times, its words are found in the clip's sound.
    Raises the errors of `deployments.errors`; nothing is kept then.
    """
    from deployments.engines.registry import get_engine

    get_engine(engine)
    text = read_parts(*parts)
    clip = probe_clip(parts[0])
    text, heard = with_times(clip, text, parts[1].name if isinstance(parts[1], Path) else "transcript")
    script = parse_script(text)
    check_voices(script)
    notes = (*heard, *check_slots(clip, script))
    tracked = track_face(clip, face, cache, executor, progress)
    fit_avatar(engine, tracked, cache, executor, progress)
    facts = {
        "digest": clip.digest,
        "face": face,
        "engines": [engine],
        "seconds": float(clip.duration),
        "notes": [*notes, *unseen(clip, script, tracked.track.usable)],
    }
    return templates.create(name, parts[0], text, facts, replaced)


def personalize(
    template: Template,
    values: Mapping[str, Value],
    out: Path,
    wanted: Wanted,
    cache: Cache,
    executor: Executor,
    progress: Progress = no_progress,
    report: Path | None = None,
    watch: Watch = NOBODY,
) -> JobReport:
    """The template's clip with the slots said as `values` tell. Raises the errors of `deployments.errors`."""
    return run_sync(as_request(template, values, out, wanted, report), cache, executor, progress, watch)


def as_request(
    template: Template, values: Mapping[str, Value], out: Path, wanted: Wanted, report: Path | None = None
) -> SyncRequest:
    """The job of one customer."""
    return SyncRequest(
        clip=template.clip,
        speech=template.script.fill(values),
        out=out,
        engine=wanted.engine,
        sync_mode=wanted.sync_mode,
        face=template.face,
        quality=wanted.quality,
        expression=wanted.expression,
        report=report,
        voice=template.script.voice,
        options=wanted.options,
    )


def check_speech(template: Template, clip: Clip, values: Mapping[str, Value], sync_mode: SyncMode) -> None:
    """Raise OptionError or SpeechError unless every slot can be said in its time. No picture is touched."""
    for source in template.script.fill(values):
        speak_slot(source, template.script.voice, clip, sync_mode)


def check_slots(clip: Clip, script: Script) -> tuple[str, ...]:
    """What the author should know of the slots. Raises OptionError for slots outside the clip or over one another."""
    from deployments.audio.slot import listen, speaks_at
    from deployments.media.sound import read_sound

    check_segments(clip, [line.segment for line in script.lines])
    if not script.slots():
        raise OptionError("expected at least one slot like {{customer_name}} in the script, got none")
    if not clip.audio:
        return (SILENT,)
    try:
        samples = read_sound(clip.path, RATE, origin=int(clip.pts[0]) * clip.time_base)
    except SpeechError:
        return (SILENT,)
    notes = [] if len(listen(samples, RATE).tone) else ["the clip has no quiet pause: slots are heard without its room tone"]
    for line in script.lines:
        for verb, moment in (("begins", line.segment.start), ("ends", line.segment.end)):
            if 0 < moment < clip.duration and speaks_at(samples, RATE, moment):
                notes.append(f"the slot {describe(line.segment)} {verb} while the person speaks; a pause joins better")
    return tuple(notes)


def unseen(clip: Clip, script: Script, usable: NDArray[np.bool_]) -> tuple[str, ...]:
    """Slots in which the face cannot be seen all the time: their frames pass unchanged."""
    times = clip.times()
    notes = []
    for line in script.lines:
        inside = (times >= float(line.segment.start)) & (times < float(line.segment.end))
        hidden = int((inside & ~usable).sum())
        if hidden:
            notes.append(f"the slot {describe(line.segment)} has {hidden} of {int(inside.sum())} frames without a usable face")
    return tuple(notes)
