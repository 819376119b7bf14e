"""A progress bar per stage, with frames per second and time left, on stderr."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Speed(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        """One cell."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:6.1f}/s" if speed else "", style="cyan")


class Bars:
    """Callable as `progress(stage, done, total)`; a context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
            redirect_stdout=False,  # results are for scripts, too: they must not land on stderr
        )
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show a stage's state; what a stage tells of itself in brackets changes: "denoiser (loss 0.12)"."""
        name = stage.partition(" (")[0]
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total, description=stage)

    def say(self, words: str) -> None:
        """A line of result on stdout, never wrapped; above the bars where a person sees both."""
        console = self._progress.console
        if sys.stdout.isatty() and console.is_terminal and not self._quiet:
            console.print(words, soft_wrap=True, markup=False, highlight=False)
        else:
            print(words, flush=True)
