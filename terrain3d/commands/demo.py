"""``terrain3d demo``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.commands.assess import say_assessment
from terrain3d.commands.change import say_changes
from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.demo import DemoResult, run_demo


def demo_command(out: Path, *, workers: int | None, quiet: bool) -> None:
    """``terrain3d demo``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_demo(out, reporter, workers=workers)
    if not quiet:
        _say_demo(result, out)


def _say_demo(result: DemoResult, out: Path) -> None:
    say("surface model against the truth")
    say_assessment(result.dsm)
    say("\nterrain model against the truth")
    say_assessment(result.dtm)
    say("\nchange between the two epochs")
    say_changes(result.change)
    say(f"of {result.events} true changes {result.found} were found")
    say(f"pictures and reports: {out / 'before' / 'report.html'}, {out / 'change' / 'report.html'}")
