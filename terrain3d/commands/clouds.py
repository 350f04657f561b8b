"""``terrain3d ground``, ``terrain3d dsm`` and ``terrain3d dtm``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from terrain3d.console import ConsoleReporter, say
from terrain3d.errors import ConfigError
from terrain3d.pipeline.cloud_ground import classify_cloud
from terrain3d.pipeline.cloud_models import CLOUD_RESOLUTION, FINEST, CloudOptions, ModelSummary, cloud_surface
from terrain3d.pipeline.raster_terrain import is_raster, raster_terrain


def ground_command(cloud: Path, out: Path, *, crs: str | None, workers: int | None, quiet: bool) -> None:
    """``terrain3d ground``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        total, found = classify_cloud(cloud, out, reporter, crs=crs, workers=workers or os.cpu_count() or 1)
    if not quiet:
        say(f"{found:,} of {total:,} points are ground ({100 * found / max(total, 1):.1f} %)")
        say(f"result: {out}")


def dsm_command(
    cloud: Path, out: Path, *, resolution: Sequence[float] | None, crs: str | None, vertical: str | None,
    workers: int | None, quiet: bool,
) -> None:  # fmt: skip
    """``terrain3d dsm``."""
    finest, *coarser = _checked(resolution)
    options = CloudOptions(finest, crs, vertical, coarser=tuple(coarser))
    with ConsoleReporter(quiet=quiet) as reporter:
        made = cloud_surface(cloud, out, options, reporter, workers=workers or os.cpu_count() or 1)
    if not quiet:
        _say(made, out)


def dtm_command(
    source: Path, out: Path, *, resolution: Sequence[float] | None, crs: str | None, vertical: str | None,
    classified: bool, workers: int | None, quiet: bool,
) -> None:  # fmt: skip
    """``terrain3d dtm``."""
    threads = workers or os.cpu_count() or 1
    with ConsoleReporter(quiet=quiet) as reporter:
        if is_raster(source):
            if resolution or crs is not None or vertical is not None or classified:
                raise ConfigError(
                    "a raster keeps its cells, CRS and heights", where=source,
                    fix="leave out --resolution, --crs, --vertical and --classified",
                )  # fmt: skip
            made = raster_terrain(source, out, reporter, workers=threads)
        else:
            finest, *coarser = _checked(resolution)
            options = CloudOptions(finest, crs, vertical, classified, tuple(coarser))
            made = cloud_surface(source, out, options, reporter, workers=threads, terrain=True)
    if not quiet:
        _say(made, out)


def _checked(resolutions: Sequence[float] | None) -> list[float]:
    """Cell sizes from the finest on."""
    values = sorted(set(resolutions or [CLOUD_RESOLUTION]))
    for value in values:
        if not FINEST <= value <= 100:
            raise ConfigError(f"resolution {value:g} m is not within {FINEST:g} to 100 m")
    return values


def _say(made: ModelSummary, out: Path) -> None:
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in made.shares.items())
    say(f"{made.width} x {made.height} cells of {made.resolution:g} m: {shares}")
    say(f"results: {out} ({', '.join(made.files)})")
