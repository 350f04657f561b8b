"""What a person sees while a command works: stages, a bar with an ETA, warnings."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from terrain3d.pipeline.progress import time_left


class ConsoleReporter:
    """Reporter for a terminal (bar with ETA), for a pipe (one line a stage), or quiet (warnings only)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage: tuple[str, float] | None = None
        self._overall = ""
        if not quiet and self.console.is_terminal and sys.stderr.isatty():  # FORCE_COLOR makes no terminal of a log
            self._progress = Progress(
                TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console,
            )  # fmt: skip

    def __enter__(self) -> ConsoleReporter:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        if self._progress is not None:
            self._progress.stop()

    def stage(self, name: str, steps: int = 1) -> None:
        self._finish()
        self._stage = (name, time.perf_counter())
        if self._progress is not None:
            self._task = self._progress.add_task(f"{name}{self._overall}", total=max(steps, 1))

    def step(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Notes are for the log of the results, not for the screen."""

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def overall(self, share: float, left_s: float) -> None:
        """Of a command with many stages: beside the name of the stage."""
        self._overall = f" ({share:.0%} of all, {time_left(left_s)} left)"
        if self._progress is not None and self._task is not None and self._stage is not None:
            self._progress.update(self._task, description=f"{self._stage[0]}{self._overall}")

    def _finish(self) -> None:
        """End the open stage."""
        if self._stage is None:
            return
        name, start = self._stage
        took = time.perf_counter() - start
        if self._progress is not None and self._task is not None:
            total = self._progress.tasks[self._task].total or 1
            self._progress.update(self._task, description=name, completed=total)
        elif not self._quiet:
            self.console.print(f"{name}: {took:.1f} s{self._overall}", markup=False, soft_wrap=True)
        self._stage = None


def say(text: str = "") -> None:
    """A line of a command's result on standard output."""
    sys.stdout.write(text + "\n")


def say_table(header: list[str], rows: list[list[str]]) -> None:
    """Rows in aligned columns, numbers to the right."""
    widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        say(
            "  ".join(
                str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            )
        )
