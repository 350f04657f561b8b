"""``terrain3d series``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from terrain3d.change.result import ChangeOptions
from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.series import run_series


def series_command(
    epochs: Sequence[Path], out: Path, options: ChangeOptions, dates: Sequence[str], *, workers: int | None, quiet: bool
) -> None:
    """``terrain3d series``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        done = run_series(epochs, out, options, reporter, dates=dates, workers=workers or os.cpu_count() or 1)
    if not quiet:
        for k, n in enumerate(done.changes, 1):
            say(f"epoch {k} to {k + 1}: {n} changes")
        say(f"results: {out} (rates in m per {done.per})")
