"""The Python interface: two calls, also under the names that the prototype's users know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from deployments.contracts import Clip, Progress, no_progress
from deployments.engines.registry import engine_names
from deployments.settings import cache_folder
from deployments.worker import load_engine
from serve_app.cache import Cache, open_cache
from serve_app.config import Settings
from serve_app.executor import Executor, LocalExecutor, SerialExecutor, make_executor
from serve_app.pipeline import JobReport, Watch, fit_avatar, probe_clip, run_sync, track_face
from serve_app.planner import Plan, SyncMode
from serve_app.request import SpeechSource, SyncRequest, segment

Seconds = float | str | Fraction
AudioSegment = tuple[Seconds, Seconds, str | Path]


class LipSync:
    """Lip-sync with one engine. Errors are those of `deployments.errors`."""

    def __init__(self, engine: str = "video_rewrite", *, workers: int | None = None, progress: Progress = no_progress) -> None:
        self.engine = engine
        self._workers, self._progress = workers, progress

    def process_video(
        self, video: str | Path, audio: str | Path, output: str | Path, *, sync_mode: SyncMode = "silence"
    ) -> JobReport:
        """The whole clip says what is in the sound file `audio`; written to `output`."""
        source = SpeechSource(audio=Path(audio))
        return self.run(SyncRequest(Path(video), (source,), Path(output), self.engine, sync_mode=sync_mode))

    def apply_segments(self, video: str | Path, segments: Sequence[AudioSegment], output: str | Path) -> JobReport:
        """Parts of a clip get new speech: `segments` are `(start seconds, end seconds, sound file)`."""
        sources = tuple(SpeechSource(audio=Path(audio), segment=segment(start, end)) for start, end, audio in segments)
        return self.run(SyncRequest(Path(video), sources, Path(output), self.engine))

    def run(self, request: SyncRequest, done: Callable[[JobReport], None] | None = None) -> JobReport:
        """Any request. `done(job)` is called when the result is at its place; the quality report is still to come then."""
        with self._machine() as (cache, executor):
            return run_sync(request, cache, executor, self._progress, Waker(executor, request.engine, done))

    def fit(self, video: str | Path, face: str = "largest") -> Path:
        """Track and learn the person of a clip ahead of time; returns the avatar's folder."""
        with self._machine() as (cache, executor):
            tracked = track_face(probe_clip(Path(video)), face, cache, executor, self._progress)
            return fit_avatar(self.engine, tracked, cache, executor, self._progress).path

    @contextmanager
    def _machine(self) -> Iterator[tuple[Cache, SerialExecutor | LocalExecutor]]:
        settings = Settings()
        cache = open_cache(cache_folder())
        cache.prune(settings.keep_days)
        with make_executor(self._workers or settings.workers) as executor:
            yield cache, executor


class Waker(Watch):
    """Has the workers load the engine as soon as the request is known to be good; says when the result is there."""

    def __init__(self, executor: Executor, engine: str, done: Callable[[JobReport], None] | None = None) -> None:
        self._executor, self._engine, self._done = executor, engine, done

    def planned(self, clip: Clip, plan: Plan) -> None:
        if isinstance(self._executor, LocalExecutor):
            self._executor.wake(load_engine, self._engine)

    def joined(self, job: JobReport) -> None:
        if self._done is not None:
            self._done(job)


class AdvancedModelManager:
    """The prototype's way to an engine."""

    @staticmethod
    def get_model(name: str) -> LipSync:
        """`LipSync(name)`; the name is checked now. Raises OptionError."""
        from deployments.engines.registry import get_engine

        get_engine(name)
        return LipSync(name)

    @staticmethod
    def available_models() -> tuple[str, ...]:
        """Names that `get_model` takes."""
        return engine_names()


class ExtendedLipSyncProcessor:
    """The prototype's way to replace parts of a clip."""

    def __init__(self, name: str) -> None:
        self._lip_sync = LipSync(name)

    def apply_lip_sync_simple(self, video: str | Path, audio_segments: Sequence[AudioSegment], output: str | Path) -> JobReport:
        """`LipSync(name).apply_segments(...)`."""
        return self._lip_sync.apply_segments(video, audio_segments, output)
