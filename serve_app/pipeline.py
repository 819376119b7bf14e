"""THE PAGE: the way of the data as verbs in order.

    clip, speech --> probe --> plan --> track (cached) --> avatar (cached) --> motion (once)
                     chunks, in parallel: decode, render, paste, encode --> stitch --> report

Knows no machine: an executor maps functions over descriptors. Frames never come here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from deployments.contracts import Avatar, Clip, Motion, Progress, Span, Speech, Track, no_progress
from deployments.engines.registry import get_engine
from deployments.media.encode import EncodeOptions
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan
from deployments.media.stitch import stitch
from deployments.memory import give_back
from deployments.records import pick_rows, save_motion
from deployments.worker import (
    ChunkResult,
    ChunkTask,
    FitTask,
    ReportTask,
    StreamTask,
    fit_engine,
    render_chunk,
    write_quality_report,
)
from serve_app.cache import TRACK_CODE, Cache, code_version, digest_of
from serve_app.executor import Executor, LocalExecutor
from serve_app.filmed import keep_filmed
from serve_app.overflow import LENGTHENING, give_room
from serve_app.planner import Plan, check_clip, cut_at, make_plan, presence
from serve_app.request import SyncRequest, check_request, check_room
from serve_app.speech import fit_length, load_source, on_clip, seconds_of

CHUNK_SUFFIX = ".mkv"


@dataclass(frozen=True)
class Tracked:
    """A clip with its face: the track, the file workers read it from, and the key of both."""

    clip: Clip
    track: Track
    file: Path
    key: str


@dataclass
class JobReport:
    """What a job did, for the caller and the quality report."""

    out: Path
    engine: str
    frames: int = 0
    patched: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    reused_chunks: int = 0
    copied: int = 0  # frames whose packets are the source's
    note: str = ""  # why none are, where a job with segments could have had some
    seconds: dict[str, float] = field(default_factory=dict)  # wall time per stage
    motion: dict[str, Any] = field(default_factory=dict)
    page: Path | None = None  # the quality report

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


class Watch:
    """Who looks on while a job runs; this one does not. With `streams`, chunks leave a piece of the stream each."""

    streams = False

    def planned(self, clip: Clip, plan: Plan) -> None:
        """What the output will be."""

    def chunk(self, result: ChunkResult) -> None:
        """A chunk is finished, or was by an earlier run; in any order. May raise to end the job."""

    def joined(self, job: JobReport) -> None:
        """The result is at its place; only the quality report is still to come."""


NOBODY = Watch()


def run_sync(
    request: SyncRequest, cache: Cache, executor: Executor, progress: Progress = no_progress, watch: Watch = NOBODY
) -> JobReport:
    """One job from files to a file. Raises the errors of `deployments.errors`; nothing is left at `request.out` then."""
    check_request(request)
    job = JobReport(request.out, request.engine)
    with job.stage("probe"):
        clip = probe_clip(request.clip)
    with job.stage("speech"):
        speech, plan = plan_job(request, clip, executor.workers, watch.streams)
        watch.planned(clip, plan)
        # beside the tracking: a stream needs its sound with the first chunk
        early = begin(lambda: encode_sound(clip, plan, speech, cache)) if watch.streams else None
    with job.stage("track"):
        tracked = track_face(clip, request.face, cache, executor, progress)
    with job.stage("avatar"):
        avatar = fit_avatar(request.engine, tracked, cache, executor, progress, request.options)
    with job.stage("motion"):
        motion = make_motion(request, speech, plan, tracked, avatar)
        give_back()
    key = job_key(request, plan, motion, avatar, tracked)
    with job.stage("render"):
        folder = cache.job(key)
        still = folder if watch.streams else cache.still(still_key(request, plan, clip))
        tasks = chunk_tasks(request, plan, motion, avatar, tracked, folder, still)
        ready = early.result() if early is not None else None
        if early is not None:
            tasks = streamed(tasks, plan, ready, provenance(request, plan))
        chunks = render_chunks(tasks, motion, executor, progress, job, watch)
    with job.stage("stitch"):
        join(request, clip, plan, sound_of(plan, speech), chunks, ready)
    if not watch.streams:
        cache.drop_job(key)
    fill(job, plan, motion, chunks)
    watch.joined(job)
    if request.report is not None:
        with job.stage("report"):
            task = report_task(request, job, tracked, plan)
            if isinstance(executor, LocalExecutor):
                task = replace(task, run=executor.map)
            job.page = executor.call(write_quality_report, task, progress)
    return job


def probe_clip(path: Path) -> Clip:
    """The clip, if an engine can use it. Raises MediaError."""
    state = path.stat() if path.is_file() else None
    return _probed(path, state and (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=8)
def _probed(path: Path, state: tuple[int, int, int] | None) -> Clip:
    """Kept while the file stays as it is: the rows of a batch ask for the same clip again and again."""
    clip = probe(path)
    check_clip(clip)
    return clip


def plan_job(request: SyncRequest, clip: Clip, workers: int, streams: bool = False) -> tuple[Speech, Plan]:
    """Speech on the output's clock, and the plan. Raises SpeechError, OptionError."""
    loaded = [(source.segment, load_source(source, request.voice, clip, request.sync_mode)) for source in request.speech]
    placed = [(segment, speech) for segment, speech in loaded if segment is not None]
    whole = seconds_of(loaded[0][1])
    plan = make_plan(clip, whole, [segment for segment, _ in placed], request.sync_mode, request.chunks, workers, streams)
    if request.sync_mode in LENGTHENING and any(source.pieces for source in request.speech):
        lengths = {segment: seconds_of(speech) for segment, speech in placed}
        plan = give_room(plan, clip, lengths, request.chunks, workers, streams, request.sync_mode)
        places = zip(sorted(placed, key=lambda part: part[0].start), plan.segments, strict=True)
        placed = [(segment, speech) for (_, speech), segment in places]
    plan = replace(plan, spans=cut_at(request.edges, len(plan.timeline.order)) or plan.spans)
    if placed:
        return on_clip(plan.timeline.duration, placed), keep_filmed(request, clip, plan, workers, streams)
    return fit_length(loaded[0][1], plan.timeline.duration), plan


def track_face(clip: Clip, face: str, cache: Cache, executor: Executor, progress: Progress) -> Tracked:
    """The chosen face of a clip, tracked once per content. Raises NoFaceError."""
    from deployments.face.track import track_clip
    from deployments.motion.refine import refine_lips

    key = digest_of("track", clip.digest, face, code_version(TRACK_CODE))
    make = partial(track_clip, clip, face, run=executor.map, progress=progress, refine=refine_lips)
    track, file = cache.track(key, make)
    give_back()  # what the shards told came in small pieces
    return Tracked(clip, track, file, key)


def fit_avatar(
    name: str,
    tracked: Tracked,
    cache: Cache,
    executor: Executor,
    progress: Progress,
    options: Mapping[str, float] | None = None,
) -> Avatar:
    """What the engine learns of the person, once per clip, face and engine; once more where an option asks for more."""
    deeper = any((options or {}).get(option) for option in get_engine(name).limits().deeper)
    rooms = ("deployments/face", "deployments/motion", "deployments/retrieval", f"deployments/engines/{name}", "kernels")
    key = digest_of("avatar", tracked.key, name, code_version(rooms), *(["deeper"] if deeper else []))

    def fit(folder: Path) -> Avatar:
        return executor.call(fit_engine, FitTask(name, tracked.clip, tracked.file, folder, deeper), progress)

    return cache.avatar(key, fit)


def make_motion(request: SyncRequest, speech: Speech, plan: Plan, tracked: Tracked, avatar: Avatar) -> Motion:
    """Motion of all output frames; nothing moves outside the segments."""
    clip, track = as_output(tracked, plan)
    options = {"expression": request.expression, **request.options}
    motion = get_engine(request.engine).animate(speech, clip, track, avatar, options)
    weight = (motion.weight * plan.weight * presence(track, clip.times())).astype(np.float32)
    return replace(motion, weight=weight)


def as_output(tracked: Tracked, plan: Plan) -> tuple[Clip, Track]:
    """Clip and track as the output shows them.

    Where the picture's clock is not the source's any more, the template's own sound says nothing about it: it goes.
    """
    timeline, clip = plan.timeline, tracked.clip
    count = len(timeline.order)
    filmed = count <= clip.frames and bool((timeline.pts == clip.pts[:count]).all())
    shown = replace(
        clip,
        pts=timeline.pts,
        time_base=timeline.time_base,
        duration=timeline.duration,
        keyframes=clip.keyframes[clip.keyframes < count],
        audio=clip.audio if filmed else (),
    )
    if timeline.is_source(clip.frames):
        return shown, tracked.track
    return shown, pick_rows(tracked.track, timeline.order)


def job_key(request: SyncRequest, plan: Plan, motion: Motion, avatar: Avatar, tracked: Tracked) -> str:
    """What makes chunks of two runs interchangeable: all that reaches a worker, and the code."""
    content = [plan.timeline.order.tobytes().hex(), motion.coefficients.tobytes().hex(), motion.weight.tobytes().hex()]
    content += [name + motion.extra[name].tobytes().hex() for name in sorted(motion.extra)]
    encode = str(encoding(request, plan))
    return digest_of("job", tracked.key, avatar.digest, request.engine, encode, content, code_version())


def still_key(request: SyncRequest, plan: Plan, clip: Clip) -> str:
    """What makes chunks in which nothing changes interchangeable between all jobs of a clip."""
    rooms = ("deployments/media", "deployments/worker.py", "deployments/contracts.py")
    order = [] if not plan.inserted else [plan.timeline.order.tobytes().hex()]
    return digest_of("still", clip.digest, str(encoding(request, plan)), code_version(rooms), *order)


def encoding(request: SyncRequest, plan: Plan) -> EncodeOptions:
    """How new pictures are encoded."""
    return EncodeOptions(request.quality, plan.match)


def unchanged_chunks(request: SyncRequest, cache: Cache) -> list[Path]:
    """Files of the chunks that all jobs of a clip share, made or not."""
    clip = probe_clip(request.clip)
    _, plan = plan_job(request, clip, 1)
    folder = cache.still(still_key(request, plan, clip))
    return [chunk_path(folder, span) for span in plan.spans if plan.still(span)]


def chunk_tasks(
    request: SyncRequest, plan: Plan, motion: Motion, avatar: Avatar, tracked: Tracked, folder: Path, still: Path
) -> list[ChunkTask]:
    """What the workers are told; the motion lies beside their chunks, those without changes in the folder `still`."""
    check_room(folder, tracked.clip.path.stat().st_size)
    motion_file = folder / "motion.safetensors"
    save_motion(motion, motion_file)
    filmed = plan.timeline.is_source(len(plan.timeline.order))
    order = None if filmed else plan.timeline.order
    encode = encoding(request, plan)
    places = [(span, chunk_path(still if plan.still(span) else folder, span)) for span in plan.spans]
    return [
        ChunkTask(
            *(tracked.clip, span, order, request.engine, avatar, motion_file, tracked.file, encode, out),
            copied=span in plan.copied,
        )
        for span, out in places
    ]


def begin(make: Callable[[], Path | None]) -> Future[Path | None]:
    """Something that is begun now, in a thread, and wanted later."""
    with_one = ThreadPoolExecutor(1, "begun")
    try:
        return with_one.submit(make)
    finally:
        with_one.shutdown(wait=False)


def encode_sound(clip: Clip, plan: Plan, speech: Speech, cache: Cache) -> Path | None:
    """The output's sound as a file, by content."""
    from deployments.media.fragments import prepare_sound

    timeline = plan.timeline
    said = hashlib.sha256(speech.samples.tobytes() + timeline.pts.tobytes()).hexdigest()
    key = digest_of("sound", clip.digest, said, speech.rate, str(timeline.time_base), plan.segments)
    timed = replace(clip, time_base=timeline.time_base)
    return prepare_sound(timed, timeline.pts, sound_of(plan, speech), cache.job(f"sound-{key}") / "sound.m4a")


def streamed(tasks: list[ChunkTask], plan: Plan, ready: Path | None, tags: dict[str, str]) -> list[ChunkTask]:
    """The same tasks, each with what its piece of the stream needs."""
    timeline = plan.timeline
    return [
        replace(task, stream=StreamTask(timeline.pts, timeline.time_base, ready, task.out.with_suffix(".m4s"), tags))
        for task in tasks
    ]


def render_chunks(
    tasks: list[ChunkTask], motion: Motion, executor: Executor, progress: Progress, job: JobReport, watch: Watch
) -> list[ChunkResult]:
    """Encoded chunks in order; those an interrupted run finished are taken as they are."""
    waiting = [task for task in tasks if not finished(task)]
    kept = [ChunkResult(task.span, task.out, count_weight(motion, task), 0.0) for task in tasks if finished(task)]
    frames = len(motion.weight)
    done = frames - sum(len(task.span) for task in waiting)
    job.reused_chunks = len(kept)
    progress("render", done, frames)

    def on_tick(count: int) -> None:
        nonlocal done
        done += count
        progress("render", done, frames)

    results = []
    for result in chain(kept, executor.map_ticks(render_chunk, waiting, on_tick)):
        watch.chunk(result)
        results.append(result)
    return sorted(results, key=lambda result: result.span.start)


def finished(task: ChunkTask) -> bool:
    """Whether an earlier run left this chunk."""
    return task.out.is_file() and (task.stream is None or task.stream.out.is_file())


def chunk_path(folder: Path, span: Span) -> Path:
    """File of a chunk's frames."""
    return folder / f"chunk-{span.start:07d}-{span.stop:07d}{CHUNK_SUFFIX}"


def count_weight(motion: Motion, task: ChunkTask) -> int:
    """Frames of a chunk that a motion asks to change."""
    return int((motion.weight[task.span.start : task.span.stop] > 0).sum())


def sound_of(plan: Plan, speech: Speech) -> SoundPlan:
    """The sound of the output: the speech, and the source's own around segments."""
    return SoundPlan(speech.samples, speech.rate, plan.segments, bool(plan.segments), plan.inserted)


def join(request: SyncRequest, clip: Clip, plan: Plan, sound: SoundPlan, chunks: list[ChunkResult], ready: Path | None) -> None:
    """Chunks and sound in one file, at its place when it is whole. Raises OutputError."""
    timed = replace(clip, time_base=plan.timeline.time_base)
    stitch(timed, [chunk.out for chunk in chunks], plan.timeline.pts, sound, request.out, provenance(request, plan), ready)


def provenance(request: SyncRequest, plan: Plan) -> dict[str, str]:
    """Tags that say the mouth was changed by a program, and which pictures were only encoded again."""
    words = f"The mouth in this video follows new speech; made with lipsync-serve, engine {request.engine}"
    return {"comment": "; ".join(filter(None, (words, plan.note)))}


def fill(job: JobReport, plan: Plan, motion: Motion, chunks: list[ChunkResult]) -> None:
    """The job's figures."""
    job.frames = len(plan.timeline.order)
    job.copied = sum(map(len, plan.copied))
    job.note = plan.note
    job.patched = sum(chunk.patched for chunk in chunks)
    job.chunks = [(chunk.span.start, chunk.span.stop) for chunk in chunks]
    job.motion = motion.info


def report_task(request: SyncRequest, job: JobReport, tracked: Tracked, plan: Plan) -> ReportTask:
    """What the quality report needs to know beside the two files."""
    assert request.report is not None
    seconds = {f"seconds for {stage}": f"{spent:.1f}" for stage, spent in job.seconds.items()}
    pictures = {"pictures": job.note} if job.note else {"frames copied packet by packet": job.copied} if job.copied else {}
    info = {"engine": request.engine, "sync mode": request.sync_mode, "frames changed": job.patched, **pictures, **seconds}
    facts: dict[str, Any] = {"borders": [start for start, _ in job.chunks], "info": {**info, **job.motion}}
    if not plan.timeline.is_source(tracked.clip.frames):
        facts["order"] = plan.timeline.order.tolist()
    return ReportTask(request.out, request.clip, tracked.file, facts, request.report)
