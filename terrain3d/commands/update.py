"""``terrain3d update``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.update import run_update


def update_command(
    old: Path, new: Path, change: Path, out: Path, *, feather: float, least_confidence: float, quiet: bool
) -> None:
    """``terrain3d update``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        done = run_update(old, new, change, out, reporter, feather=feather, least_confidence=least_confidence)
    if not quiet:
        say(f"{done.changes} changes taken over: {done.new:.0f} m2 new, {done.blended:.0f} m2 blended")
        say(f"results: {out}")
