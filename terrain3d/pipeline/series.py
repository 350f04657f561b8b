"""More than two epochs: the change from each to the next, and the history of every cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.epoch import Epoch, common_vertical, load_epoch
from terrain3d.change.history import change_dates, rate
from terrain3d.change.resample import on_grid
from terrain3d.change.result import ChangeOptions, Region
from terrain3d.errors import ConfigError
from terrain3d.io.atomic import write_json
from terrain3d.io.raster_file import RasterFile, raster_file
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, write_strips
from terrain3d.io.vectors import write_layer
from terrain3d.pipeline.change import change_columns, run_change
from terrain3d.pipeline.pair import EpochPair, aligned_pair
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import check_apart
from terrain3d.raster import Grid

ROWS = 256
DAYS = 365.25
Strips = Iterator[tuple[int, NDArray[Any]]]


@dataclass(frozen=True)
class SeriesOutcome:
    """Number of changes in each step; unit of time of the rates."""

    changes: tuple[int, ...]
    per: str


def run_series(
    epochs: Sequence[Path], out: Path, options: ChangeOptions, reporter: Reporter, *, dates: Sequence[str] = (),
    workers: int = 1,
) -> SeriesOutcome:  # fmt: skip
    """Changes of each step in folders of their own, and rasters of the history on the grid of the first epoch.

    dates: ISO 8601, one an epoch; those of the runs if none are given; without any, rates are per epoch.
    Raises Terrain3dError.
    """
    if len(epochs) < 3:
        raise ConfigError(
            f"a series needs at least three epochs, not {len(epochs)}", fix="use terrain3d change for two"
        )
    check_apart(out, epochs)
    loaded = [load_epoch(path) for path in epochs]
    times, per = _times([e.date for e in loaded], dates)
    steps, regions = [], []
    for k, (before, after) in enumerate(pairwise(epochs), 1):
        folder = out / f"change_{k}_{k + 1}"
        result = run_change(before, after, folder, options, reporter, workers=workers)
        steps.append(raster_file(folder / "change.tif"))
        regions.append(result.regions)
    reporter.stage("history", len(loaded) - 1)
    pairs, significant = [], [_significant(s) for s in steps]
    first = loaded[0]
    for later in loaded[1:]:
        pairs.append(
            aligned_pair(*common_vertical(first, later, options.vertical_before, options.vertical_after)[:2])[0]
        )
        reporter.step()
    work = _History(first, pairs, significant, times)
    grid = first.dsm.grid
    with bounded_cache():
        write_strips(
            out / "history.tif", grid, work.heights(), np.float32, nodata=HEIGHT_NODATA, bands=len(pairs),
            band_names=[f"height of epoch {k} - epoch 1, m" for k in range(2, len(loaded) + 1)], heights=False, level=1,
        )  # fmt: skip
        write_strips(
            out / "changes.tif", grid, work.dates(), np.uint8, nodata=None, bands=3, heights=False,
            band_names=("epoch of the first change, 0 none", "epoch of the last change", "number of changes"),
        )  # fmt: skip
        write_strips(
            out / "rate.tif", grid, work.rates(), np.float32, nodata=HEIGHT_NODATA, bands=2, heights=False,
            band_names=(f"rate, m per {per}", f"1-sigma, m per {per}"), level=1,
        )  # fmt: skip
    _write_regions(out / "series.gpkg", regions, list(dates) or [e.date for e in loaded], steps)
    outcome = SeriesOutcome(tuple(len(r) for r in regions), per)
    write_json(out / "quality.json", {"epochs": [str(e) for e in epochs], "times": times, "changes": outcome.changes})
    return outcome


def _times(own: Sequence[str], given: Sequence[str]) -> tuple[list[float], str]:
    """Times in years, or numbers of epochs where no dates are known. Raises ConfigError."""
    texts = list(given) or list(own)
    if given and len(given) != len(own):
        raise ConfigError(f"{len(given)} dates for {len(own)} epochs", fix="give one date an epoch")
    if not all(texts):
        return [float(k) for k in range(1, len(own) + 1)], "epoch"
    try:
        days = [date.fromisoformat(t[:10]).toordinal() for t in texts]
    except ValueError as error:
        raise ConfigError(f"a date cannot be read: {error}", fix="give dates such as 2024-05-31") from error
    if any(b <= a for a, b in pairwise(days)):
        raise ConfigError("the epochs are not in the order of their dates", fix="list the earliest first")
    return [d / DAYS for d in days], "year"


def _significant(change: RasterFile) -> Callable[[Grid], NDArray[np.bool_]]:
    """Reads the band of a change raster that tells significant cells, on any grid."""

    def read(grid: Grid) -> NDArray[np.bool_]:
        values = on_grid(RasterFile(change.path, change.grid, change.stated, band=3), grid)
        return np.asarray(values > 0.5)

    return read


@dataclass(frozen=True)
class _History:
    """Epochs co-registered to the first one, by strips of its grid."""

    first: Epoch
    pairs: list[EpochPair]
    significant: list[Callable[[Grid], NDArray[np.bool_]]]
    times: list[float]

    def _grids(self) -> Iterator[tuple[int, Grid]]:
        grid = self.first.dsm.grid
        for row in range(0, grid.height, ROWS):
            yield row, grid.window(row, 0, min(ROWS, grid.height - row), grid.width)

    def heights(self) -> Strips:
        """Differences from the first epoch, a band for each later one."""
        for row, grid in self._grids():
            yield row, np.stack([np.subtract(*reversed(p.heights(grid))) for p in self.pairs])

    def dates(self) -> Strips:
        """First and last change, and their number."""
        for row, grid in self._grids():
            found = change_dates(np.stack([read(grid) for read in self.significant]))
            yield row, np.stack([found.first, found.last, found.count])

    def rates(self) -> Strips:
        """Rate and its sigma."""
        times = np.array(self.times) - self.times[0]
        for row, grid in self._grids():
            both = [p.heights(grid) for p in self.pairs]
            z = np.stack([np.zeros_like(both[0][0]), *(b - a for a, b in both)])
            z[0][~np.isfinite(both[0][0])] = np.nan
            # The sigma of a difference is shared by its epochs: of the first one a root of a half in each.
            s = np.stack([p.sigma(grid) for p in self.pairs])
            own = np.concatenate([s[:1], s]) * np.float32(np.sqrt(0.5))
            yield row, np.stack(rate(z, own, times))


def _write_regions(
    path: Path, regions: Sequence[Sequence[Region]], dates: Sequence[str], steps: Sequence[RasterFile]
) -> None:
    """All changes of all steps in one layer, with the numbers of their epochs."""
    crs = {s.grid.reference.horizontal for s in steps}
    if len(crs) > 1:
        return  # each step has its own file anyway
    parts = [change_columns(r, dates[k], dates[k + 1]) for k, r in enumerate(regions)]
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    columns["from_epoch"] = np.concatenate([np.full(len(r), k) for k, r in enumerate(regions, 1)])
    columns["to_epoch"] = columns["from_epoch"] + 1
    write_layer(path, "changes", [r.polygon for step in regions for r in step], columns, crs.pop())
