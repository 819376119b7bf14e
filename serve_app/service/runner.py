"""One job from its row to its result: what the command line does, with files from the store and news to the table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from deployments.contracts import Clip
from deployments.errors import Cancelled, LipSyncError
from deployments.worker import ChunkResult
from serve_app.executor import Executor
from serve_app.jobs.records import ChunkRow, Job, StaleFence
from serve_app.jobs.spec import SpeechSpec
from serve_app.jobs.store import JobStore
from serve_app.media_store import MediaStore
from serve_app.personalize import check_slots, unseen
from serve_app.pipeline import JobReport, Watch, fit_avatar, probe_clip, run_sync, track_face
from serve_app.planner import Plan, describe
from serve_app.portrait import PortraitRequest, run_portrait
from serve_app.request import Piece, SpeechSource, SyncRequest, segment
from serve_app.script import parse_script
from serve_app.service.store_cache import StoreCache
from serve_app.templates import ROOM, Templates
from serve_app.transcript import with_times

SHARES = {"track": 0.3, "fit": 0.15, "render": 0.55}  # of a job's time, about
TELL_SECONDS = 0.25
TEMPLATE_SECONDS = 10 * 365 * 86400.0  # a template stays until its owner deletes it


class Stopped(LipSyncError):
    """This process ends; another one goes on with the job."""

    code = "stopped"


class Flags:
    """Why a job that runs here must end: set by the dispatcher, read at every frame."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.lost = threading.Event()
        self.stop = threading.Event()
        self.settled = threading.Event()

    def check(self) -> None:
        """Raise Cancelled, StaleFence or Stopped if the work must end."""
        # a heartbeat that meets the row right after it became final finds no lease and reports it lost: it is not
        if self.lost.is_set() and not self.settled.is_set():
            raise StaleFence("another worker has this job")
        if self.cancel.is_set() and not self.settled.is_set():
            raise Cancelled("the caller cancelled the job")
        if self.stop.is_set():
            raise Stopped("this worker ends; the job goes on elsewhere")


class JobRun(Watch):
    """A claimed job on its way. `work()` leaves its result in the store and says so in the table."""

    streams = True

    def __init__(self, job: Job, jobs: JobStore, media: MediaStore, keep_seconds: float, flags: Flags) -> None:
        self.job, self.flags = job, flags
        self._jobs, self._media, self._keep = jobs, media, keep_seconds
        self._started = time.monotonic()
        self._told = 0.0
        self._done: dict[str, float] = {}  # fraction of every stage
        self._kept_report: str | None = None

    @property
    def settled(self) -> bool:
        """The result is in the table; only the report may be left to do."""
        return self.flags.settled.is_set()

    def work(self, executor: Executor) -> None:
        """Run the job with an executor. Raises the errors of `deployments.errors`."""
        kinds: dict[str, Callable[[Executor], None]] = {
            "video": self._video,
            "portrait": self._portrait,
            "avatar": self._avatar,
            "template": self._template,
        }
        kinds[self.job.spec.kind](executor)

    def _video(self, executor: Executor) -> None:
        spec = self.job.spec
        result, report = f"results/{self.job.id}.mp4", f"reports/{self.job.id}"
        request = SyncRequest(
            clip=self._media.fetch(spec.source),
            speech=tuple(map(self._source, spec.speech)),
            out=self._place(result),
            engine=spec.engine,
            sync_mode=spec.sync_mode,
            chunks=spec.chunks,
            face=spec.face,
            quality=spec.quality,
            expression=spec.expression,
            report=self._place(report) if spec.report else None,
            options=spec.options,
            edges=tuple(self.job.info.get("edges", ())),
        )
        self._kept_report = report if spec.report else None
        run_sync(request, StoreCache(self._media), executor, self.progress, self)
        if request.report is not None:
            self._media.put_folder(request.report, report)

    def _portrait(self, executor: Executor) -> None:
        spec = self.job.spec
        result = f"results/{self.job.id}.mp4"
        out = self._place(result)
        picture, source = self._media.fetch(spec.source), self._source(spec.speech[0])
        request = PortraitRequest(
            picture,
            source,
            out,
            spec.quality,
            expression=spec.expression,
            engine=spec.engine,
            emotion=spec.emotion,
            gaze=spec.gaze,
            distance=spec.distance,
            manner=None if spec.manner is None else self._media.fetch_folder(spec.manner),
        )
        run_portrait(request, self.progress)
        self._media.put(out, result)
        self._succeed(result, None, {})

    def _avatar(self, executor: Executor) -> None:
        spec, cache = self.job.spec, StoreCache(self._media)
        clip = probe_clip(self._media.fetch(spec.source))
        tracked = track_face(clip, spec.face, cache, executor, self.progress)
        avatar = fit_avatar(spec.engine, tracked, cache, executor, self.progress)
        self._succeed(None, None, {"avatar": avatar.path.name, **clip_facts(clip, clip.frames, clip.duration)})

    def _template(self, executor: Executor) -> None:
        spec, cache = self.job.spec, StoreCache(self._media)
        clip = probe_clip(self._media.fetch(spec.source))
        text, heard = with_times(clip, spec.script or "")
        script = parse_script(text)
        notes = [*heard, *check_slots(clip, script)]
        if text != spec.script:
            notes += [f"found at {describe(line.segment)}: {line.text}" for line in script.lines]
        tracked = track_face(clip, spec.face, cache, executor, self.progress)
        fit_avatar(spec.engine, tracked, cache, executor, self.progress)
        facts = {"notes": [*notes, *unseen(clip, script, tracked.track.usable)]}
        self._share(clip, text, facts)
        self._keep = TEMPLATE_SECONDS
        self._succeed(None, None, {**facts, "script": text, **clip_facts(clip, clip.frames, clip.duration)})

    def _share(self, clip: Clip, script: str, facts: dict[str, Any]) -> None:
        """A template as the command line keeps it, so that batches find it in the store."""
        told = {"digest": clip.digest, "face": self.job.spec.face, "engines": [self.job.spec.engine], **facts}
        name = self.job.id
        made = Templates(self._media.root).create(name, clip.path, script, {**told, "seconds": float(clip.duration)}, True)
        self._media.put_folder(made.folder, f"{ROOM}/{name}")

    def _source(self, spec: SpeechSpec) -> SpeechSource:
        whole = spec.start is None or spec.end is None
        part = None if whole else segment(str(spec.start), str(spec.end))
        pieces = tuple(Piece(piece.text, piece.ipa, self._sound(piece.audio)) for piece in spec.pieces)
        return SpeechSource(self._sound(spec.audio), spec.text, part, spec.voice, pieces)

    def _sound(self, key: str | None) -> Path | None:
        return None if key is None else self._media.fetch(key)

    def _place(self, key: str) -> Path:
        path = self._media.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _succeed(self, result: str | None, report: str | None, facts: dict[str, Any]) -> None:
        self.flags.check()
        self._jobs.succeed(self.job.id, self.job.fence, result, report, facts, self._keep)

    def planned(self, clip: Clip, plan: Plan) -> None:
        """See `Watch.planned`."""
        facts = clip_facts(clip, len(plan.timeline.order), plan.timeline.duration)
        self._jobs.note(self.job.id, self.job.fence, {**facts, "edges": [0, *(span.stop for span in plan.spans)]})

    def chunk(self, result: ChunkResult) -> None:
        """Commit a finished chunk; a worker that lost the job is refused here."""
        key = self._key(result.out)
        piece = self._key(result.out.with_suffix(".m4s"))  # it may lie in the store only: nothing here reads it
        stored = piece if self._media.exists(piece) else None
        row = ChunkRow(self.job.id, result.span.start, result.span.stop, key, self.job.fence, result.seconds, stored)
        self._jobs.commit_chunk(row)

    def joined(self, done: JobReport) -> None:
        """The result is there: callers need not wait for the report on it."""
        key = self._key(done.out)
        self._media.put(done.out, key)
        self._succeed(key, self._kept_report, facts_of(done))
        self.flags.settled.set()

    def _key(self, path: Path) -> str:
        return path.relative_to(self._media.root).as_posix()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell the table how far the job is, a few times a second; raise what ends it."""
        self.flags.check()
        if self.settled:  # only the report is left, and callers do not wait for it
            return
        self._done[stage] = done / total if total else 1.0
        now = time.monotonic()
        if now - self._told < TELL_SECONDS and done < total:
            return
        self._told = now
        fraction = min(0.99, sum(share * self._done.get(name, 0.0) for name, share in SHARES.items()))
        eta = (now - self._started) * (1 - fraction) / fraction if fraction > 0.02 else None
        self._jobs.progress(self.job.id, self.job.fence, stage, min(done, total), total, fraction, eta)


def clip_facts(clip: Clip, frames: int, seconds: Fraction) -> dict[str, Any]:
    """What callers ask of an output."""
    return {
        "width": clip.width,
        "height": clip.height,
        "fps": float(clip.average_rate),
        "frames": frames,
        "seconds": float(seconds),
    }


def facts_of(done: JobReport) -> dict[str, Any]:
    """A finished job's figures, for its row."""
    return {
        "frames": done.frames,
        "patched": done.patched,
        "reused_chunks": done.reused_chunks,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in done.seconds.items()},
        "motion": {name: value for name, value in done.motion.items() if isinstance(value, (str, int, float))},
    }
