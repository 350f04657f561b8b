"""``terrain3d change``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.change.detect import ChangeOptions, ChangeResult
from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.pipeline.change import run_change


def change_command(before: Path, after: Path, out: Path, *, min_area: float, quiet: bool) -> None:
    """``terrain3d change``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_change(before, after, out, ChangeOptions(min_area=min_area), reporter)
    if not quiet:
        say_changes(result)
        say(f"results: {out} (open report.html)")


def say_changes(result: ChangeResult) -> None:
    """Table of the largest changes, and what co-registration did."""
    a = result.alignment
    say(f"co-registration: after moved {a.east:.2f} E, {a.north:.2f} N, {a.up:.2f} m up")
    rows = [
        [
            str(r.kind),
            f"{m.area:.0f}",
            f"{m.mean_dz:+.1f}",
            f"{m.volume:+.0f} +- {m.volume_sigma:.0f}",
            f"{r.confidence:.2f}",
        ]
        for r in sorted(result.regions, key=lambda r: -abs(r.measures.volume))[:20]
        for m in [r.measures]
    ]
    if rows:
        say_table(["kind", "area m2", "dz m", "volume m3", "confidence"], rows)
    say(f"{len(result.regions)} changes")
