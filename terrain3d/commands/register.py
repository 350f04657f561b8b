"""``terrain3d register``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.config import expand
from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.register_file import run_register


def register_command(
    surface: Path, lidar: list[str], out: Path, *, rules: str, vertical: str | None, quiet: bool
) -> None:
    """``terrain3d register``."""
    granules = [found for text in lidar for found in expand(text, Path(), "lidar file", "check the path")]
    with ConsoleReporter(quiet=quiet) as reporter:
        made = run_register(surface, granules, out, reporter, rules=rules, vertical=vertical)
    if quiet:
        return
    r = made.registration
    say(f"lidar: {int(r.used.sum())} of {made.lidar.n_read} returns used")
    say(f"shift {r.dx:.2f} E, {r.dy:.2f} N, {r.dz:.2f} m up; tilt {1e3 * r.tilt_e:.2f} E, {1e3 * r.tilt_n:.2f} N m/km")
    say(r.horizontal_reason)
    if r.before is not None and r.after is not None:
        bias = f"bias {r.before.bias:.2f} -> {r.after.bias:.2f} m"
        say(f"held-out returns: {bias}, NMAD {r.before.nmad:.2f} -> {r.after.nmad:.2f} m (n = {r.after.n})")
    say(f"results: {out} ({', '.join(made.files)})")
