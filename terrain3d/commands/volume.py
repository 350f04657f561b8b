"""``terrain3d volume``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.landform.volumes import ErrorModel
from terrain3d.pipeline.volume import VolumeOptions, VolumeResult, run_volume

SHOWN = 20


def volume_command(
    first: Path, second: Path | None, polygons: Path, out: Path, *, plane: float | None, sigma: float | None,
    common: float, correlation: float, quiet: bool,
) -> None:  # fmt: skip
    """``terrain3d volume``."""
    options = VolumeOptions(plane, sigma, ErrorModel(common, correlation))
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_volume(first, second, polygons, out, options, reporter)
    for note in result.notes:
        reporter.warn(note)
    if not quiet:
        _say_volumes(result)
        say(f"results: {out}")


def _say_volumes(result: VolumeResult) -> None:
    rows = [
        [name, f"{v.area:.1f}", f"{v.without:.1f}", *(f"{a:.1f} +- {s:.1f}" for a, s in pairs)]
        for name, v in list(zip(result.names, result.volumes, strict=True))[:SHOWN]
        for pairs in [((v.cut, v.cut_sigma), (v.fill, v.fill_sigma), (v.net, v.net_sigma))]
    ]
    say_table(["polygon", "area m2", "no data m2", "cut m3", "fill m3", "net m3"], rows)
    if len(result.names) > SHOWN:
        say(f"and {len(result.names) - SHOWN} more")
