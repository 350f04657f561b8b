"""``terrain3d change``."""

from __future__ import annotations

import os
from pathlib import Path

from terrain3d.change.result import ChangeOptions, ChangeResult, R
from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.pipeline.change import run_change, run_quick_change
from terrain3d.pipeline.change_tiles import TileScheme


def change_command(
    before: Path,
    after: Path,
    out: Path,
    options: ChangeOptions,
    tiles: TileScheme,
    *,
    quick: bool,
    workers: int | None,
    quiet: bool,
) -> None:
    """``terrain3d change``."""
    workers = workers or os.cpu_count() or 1
    with ConsoleReporter(quiet=quiet) as reporter:
        if quick:
            result = run_quick_change(before, after, out, options, reporter, tiles=tiles, workers=workers)
        else:
            result = run_change(before, after, out, options, reporter, tiles=tiles, workers=workers)
    if not quiet:
        say_changes(result)
        for note in result.notes if quick else ():
            say(note)
        say(f"results: {out} (open report.html)")


def say_changes(result: ChangeResult[R]) -> None:
    """Table of the largest changes, and what co-registration did."""
    a = result.alignment
    say(f"co-registration: after moved {a.east:.2f} E, {a.north:.2f} N, {a.up:.2f} m up")
    rows = [
        [
            f"{r.kind} {r.part}".strip(),
            f"{m.area:.0f}",
            f"{m.mean_dz:+.1f}",
            f"{m.volume:+.0f} +- {1.96 * m.volume_sigma:.0f}",
            f"{r.confidence:.2f}",
        ]
        for r in sorted(result.regions, key=lambda r: -abs(r.measures.volume))[:20]
        for m in [r.measures]
    ]
    if rows:
        say_table(["kind", "area m2", "dz m", "volume m3 (95 %)", "confidence"], rows)
    say(f"{len(result.regions)} changes")
