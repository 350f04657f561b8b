"""``terrain3d profile``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.pipeline.profile import ProfileOptions, run_profile


def profile_command(
    rasters: list[Path], line: str, out: Path, *, step: float | None, spacing: float | None, width: float, quiet: bool
) -> None:
    """``terrain3d profile``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_profile(rasters, out, ProfileOptions(line, step, spacing, width), reporter)
    for note in result.notes:
        reporter.warn(note)
    if quiet:
        return
    say(f"line: {result.length:.1f} m, {result.crosses} cross sections")
    rows = []
    for name, height in zip(result.names, result.heights, strict=True):
        known = height[np.isfinite(height)]
        low, high = (f"{known.min():.2f}", f"{known.max():.2f}") if known.size else ("-", "-")
        rows.append([name, f"{100 * known.size / height.size:.0f} %", low, high])
    say_table(["raster", "with heights", "lowest m", "highest m"], rows)
    say(f"results: {out} (profile.csv, profile.svg, profile.gpkg)")
