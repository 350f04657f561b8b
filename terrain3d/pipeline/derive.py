"""Products that follow from one terrain model: slope, aspect, hillshade, contours, terrain without depressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import ConfigError, OverlapError
from terrain3d.io.rasters import HEIGHT_NODATA, write_strips
from terrain3d.io.scratch import new_raster
from terrain3d.io.vectors import write_layer
from terrain3d.landform.contours import contours, smoothed, strip_windows
from terrain3d.landform.derivatives import aspect_deg, hillshade, horn_gradient, slope_deg
from terrain3d.landform.hydrology import drain
from terrain3d.pipeline.height_files import HeightFile, check_numbers, open_heights, strips, without_heights
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import all_or_none, scratch_folder
from terrain3d.raster import Grid, Raster

PRODUCTS = ("slope", "aspect", "hillshade", "contours", "hydro")
STRIP_CELLS = 8_000_000
MAX_LEVELS = 20_000


@dataclass(frozen=True)
class DeriveOptions:
    """interval: of contours, metres, every ``index``-th an index contour. smooth: deviation (m) of a Gaussian over the
    heights that contours are drawn from. azimuth_deg, elevation_deg: of the sun of the hillshade. breach_length,
    breach_depth: largest cut through what dams water, metres."""

    products: tuple[str, ...] = PRODUCTS
    interval: float = 1.0
    index: int = 5
    smooth: float = 0.0
    azimuth_deg: float = 315.0
    elevation_deg: float = 45.0
    breach_length: float = 50.0
    breach_depth: float = 5.0


def run_derive(path: Path, out: Path, options: DeriveOptions, reporter: Reporter) -> list[str]:
    """Write the products of a height raster, or of a run's ``dtm.tif``, to ``out``. What was made, a line each.

    Raises ConfigError for a product that is unknown, and as ``open_heights`` and the writers do.
    """
    unknown = [p for p in options.products if p not in PRODUCTS]
    if unknown:
        raise ConfigError(f"no product '{unknown[0]}'", where="--only", fix=f"one of: {', '.join(PRODUCTS)}")
    check_numbers(
        interval=options.interval, smooth=options.smooth, azimuth=options.azimuth_deg, elevation=options.elevation_deg,
        breach_length=options.breach_length, breach_depth=options.breach_depth,
    )  # fmt: skip
    file = open_heights(path, layer="dtm")
    if not any(np.isfinite(strip.values).any() for _, _, strip in strips(file, 64, 0)):
        raise OverlapError("raster has no cell with a height", where=file.path, fix="check its nodata value")
    with scratch_folder(out) as scratch, all_or_none(scratch, out) as ready:
        return [_make(product, file, ready, options, reporter) for product in PRODUCTS if product in options.products]


def _make(product: str, file: HeightFile, out: Path, options: DeriveOptions, reporter: Reporter) -> str:
    rows = max(STRIP_CELLS // file.grid.width, 64)
    reporter.stage(product, -(-file.grid.height // rows))
    if product == "contours":
        return _contours(file, out / "contours.gpkg", rows, options, reporter)
    if product == "hydro":
        return _hydro(file, out, rows, options, reporter)
    path, grid = out / f"{product}.tif", without_heights(file.grid)
    if product == "hillshade":
        light = options.azimuth_deg, options.elevation_deg
        found = _strips(file, rows, lambda e, n: hillshade(e, n, *light), reporter)
        write_strips(path, grid, found, np.uint8, nodata=0, heights=False, overviews="average",
                     band_names=(f"hillshade, sun at {light[0]:g} deg, {light[1]:g} deg high",))  # fmt: skip
    else:
        kind = slope_deg if product == "slope" else aspect_deg
        name = "slope, degrees" if product == "slope" else "aspect: degrees from grid north to the direction of fall"
        # a mean of directions is none
        write_strips(path, grid, _strips(file, rows, kind, reporter), np.float32, nodata=HEIGHT_NODATA, heights=False,
                     band_names=(name,), overviews="average" if product == "slope" else "nearest")  # fmt: skip
    return f"{path.name}"


def _strips(file: HeightFile, rows: int, kind: Any, reporter: Reporter) -> Iterator[tuple[int, NDArray[Any]]]:
    for top, inner, strip in strips(file, rows, 1):
        yield top, kind(*horn_gradient(strip.values, file.grid.resolution))[inner]
        reporter.step()


def _contours(file: HeightFile, path: Path, rows: int, options: DeriveOptions, reporter: Reporter) -> str:
    cells = options.smooth / file.grid.resolution

    def parts() -> Iterator[Raster]:
        for row, height, first, count in strip_windows(file.grid, rows, ceil(4 * cells)):
            z = file.read(row, 0, height, file.grid.width)
            known = z.values[np.isfinite(z.values)]
            if known.size and np.ptp(known) / options.interval > MAX_LEVELS:
                raise ConfigError(f"an interval of {options.interval:g} m gives more than {MAX_LEVELS} contours",
                                  where="--interval", fix="take a larger one")  # fmt: skip
            yield Raster(smoothed(z.values, cells)[first : first + count], _rows(z.grid, first, count))
            reporter.step()

    found = contours(parts(), options.interval, options.index)
    write_layer(
        path, "contours", found.lines, {"height_m": found.height, "index": found.index},
        file.grid.reference.horizontal, geometry_type="LineString",
    )  # fmt: skip
    return f"{path.name}: {len(found.lines)} lines"


def _rows(grid: Grid, first: int, count: int) -> Grid:
    return grid.window(first, 0, count, grid.width)


def _hydro(file: HeightFile, out: Path, rows: int, options: DeriveOptions, reporter: Reporter) -> str:
    """Water knows no blocks: the raster lies in a mapped file beside the result while its depressions are taken off."""
    grid, path, changed = file.grid, out / "dtm_hydro.tif", np.zeros(2, np.int64)

    def compared(z: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for top, _, strip in strips(file, rows, 0):
            part = z[top : top + strip.grid.height]
            changed[:] += (part < strip.values).sum(), (part > strip.values).sum()
            yield top, part
            reporter.step()

    with scratch_folder(out) as folder:
        z, marks = (
            new_raster(folder / n, grid, k).mapped() for n, k in (("hydro.raw", np.float32), ("marks.raw", bool))
        )
        for top, _, strip in strips(file, rows, 0):
            z[top : top + strip.grid.height] = strip.values
        drain(z, marks, grid.resolution, options.breach_length, options.breach_depth)
        write_strips(path, grid, compared(z), np.float32, nodata=HEIGHT_NODATA, band_names=("height",))
    return f"{path.name}: {changed[0]} cells breached, {changed[1]} filled"
