"""``terrain3d derive``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.derive import PRODUCTS, DeriveOptions, run_derive


def derive_command(
    dtm: Path, out: Path, *, only: list[str] | None, interval: float, index: int, smooth: float, azimuth: float,
    elevation: float, breach_length: float, breach_depth: float, quiet: bool,
) -> None:  # fmt: skip
    """``terrain3d derive``."""
    options = DeriveOptions(
        tuple(only or PRODUCTS), interval, index, smooth, azimuth, elevation, breach_length, breach_depth
    )
    with ConsoleReporter(quiet=quiet) as reporter:
        made = run_derive(dtm, out, options, reporter)
    if not quiet:
        for line in made:
            say(line)
        say(f"results: {out}")
