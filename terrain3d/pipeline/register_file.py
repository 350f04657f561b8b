"""A surface model that is a file, from anywhere or from a run, registered to lidar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from terrain3d.crs import ELLIPSOID, Reference, to_lonlat, vertical_from_name
from terrain3d.errors import FrameError, LidarError, OverlapError
from terrain3d.export.report import ReportData, Section, Text, write_report
from terrain3d.io.atomic import write_json
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, read_raster, write_strips
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.io.warp import resample
from terrain3d.lidar.read import LidarSet, read_lidar
from terrain3d.lidar.rules import rule_set
from terrain3d.pipeline.doubts import geoid_doubt
from terrain3d.pipeline.filling import baseline_cells, sideways_variance, surface_slopes
from terrain3d.pipeline.height_files import HeightFile, open_heights, over
from terrain3d.pipeline.lidar_quality import lidar_figures
from terrain3d.pipeline.lidar_report import Shown, lidar_blocks
from terrain3d.pipeline.model import REGISTRATION_CELL, REGISTRATION_CELLS
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.run_report import PICTURE_PX, relief_figure
from terrain3d.pipeline.running import overview, overview_step, step_for_side
from terrain3d.pipeline.scratch_folder import all_or_none, check_apart, scratch_folder
from terrain3d.raster import Grid, Raster
from terrain3d.register.registration import Registration, register_dsm

STRIP_ROWS = 512
AROUND_DEG = 0.001  # lidar just beside a surface still serves its margin


@dataclass(frozen=True)
class Surface:
    """A surface on disk. name: dsm or dtm. height: metres over the ellipsoid. sigma: 1-sigma, None where none is
    stated. reference: of the files that it came from and goes to."""

    name: str
    height: StoredRaster
    sigma: StoredRaster | None
    reference: Reference


@dataclass(frozen=True)
class RegisterResult:
    """What was found, and the files that were written."""

    lidar: LidarSet
    registration: Registration
    files: tuple[str, ...]


def run_register(
    path: Path, lidar: list[Path], out: Path, reporter: Reporter, *, rules: str = "standard",
    vertical: str | None = None,
) -> RegisterResult:  # fmt: skip
    """Put a DSM GeoTIFF, or DSM and DTM of the folder of a run, where lidar ground returns say that it belongs.

    The results keep the cells, CRS and vertical reference of what was given; where the surface has a sigma (X_sigma.tif
    beside X.tif), that of the correction is added. vertical: of heights whose file declares none: ellipsoid, egm96, a
    grid.

    Raises Terrain3dError; LidarError where too few returns are on open ground to correct anything. Then nothing is
    written.
    """
    check_apart(out, [path])
    names = ("dsm", "dtm") if (path / "dtm.tif").is_file() else ("dsm",)
    given = [_opened(path, name, vertical) for name in names]
    returns = read_lidar(lidar, _bounds_lonlat(given[0].grid), rule_set(rules))
    with scratch_folder(out) as folder, bounded_cache():
        reporter.stage("reading", len(given))
        surfaces = [_stored(file, name, folder, reporter) for file, name in zip(given, names, strict=True)]
        reporter.stage("registration to lidar")
        found = _registration(surfaces[0], returns, path)
        doubt = geoid_doubt(found, surfaces[0].height.grid.reference.horizontal)
        warnings = (*returns.warnings, *found.warnings, *(() if doubt is None else (doubt,)))
        for warning in warnings:
            reporter.warn(warning)
        reporter.stage("correction", len(surfaces))
        corrected = [_corrected(surface, found, folder, reporter) for surface in surfaces]
        reporter.stage("writing", len(corrected) + 1)
        with all_or_none(folder, out) as ready:
            files = [name for surface in corrected for name in _write(surface, ready, reporter)]
            write_json(ready / "quality.json", {"lidar": lidar_figures(returns, found), "warnings": list(warnings)})
            write_report(ready / "report.html", _report(path, returns, found, corrected))
            reporter.step()
    return RegisterResult(returns, found, (*files, "quality.json", "report.html"))


def _opened(path: Path, layer: str, vertical: str | None) -> HeightFile:
    """A surface whose heights are read over the ellipsoid. Raises FrameError where their reference is not known."""
    file = open_heights(path, layer=layer)
    if not file.vertical.is_declared and vertical is not None:
        file = file.over_stated(vertical_from_name(vertical))
    if not file.vertical.is_declared:
        raise FrameError("declares no vertical reference", where=file.path,
                         fix="state it: --vertical ellipsoid, egm96 or a geoid grid")  # fmt: skip
    return over(file, ELLIPSOID)[0]


def _bounds_lonlat(grid: Grid) -> tuple[float, float, float, float]:
    """West, south, east, north in degrees, with a margin."""
    lon, lat = to_lonlat(grid.reference.horizontal, *grid.lattice(9))
    return lon.min() - AROUND_DEG, lat.min() - AROUND_DEG, lon.max() + AROUND_DEG, lat.max() + AROUND_DEG


def _stored(file: HeightFile, name: str, folder: Place, reporter: Reporter) -> Surface:
    """Heights over the ellipsoid and sigma, strip by strip. Raises OverlapError without any height."""
    grid = replace(file.grid, reference=Reference(file.grid.reference.horizontal))
    height = new_raster(folder / f"{name}.raw", grid, np.float32)
    sigma = None if file.sigma is None else new_raster(folder / f"{name}_sigma.raw", grid, np.float32)
    some = False
    for top in range(0, grid.height, STRIP_ROWS):
        window = top, 0, min(STRIP_ROWS, grid.height - top), grid.width
        values = file.read(*window).values
        some = some or bool(np.isfinite(values).any())
        height.write(top, 0, values.astype(np.float32))
        if sigma is not None and file.sigma is not None:
            sigma.write(top, 0, read_raster(file.sigma, window=window).values.astype(np.float32))
    if not some:
        raise OverlapError("raster has no cell with a height", where=file.path, fix="check its nodata value")
    reporter.step()
    return Surface(name, height, sigma, file.grid.reference)


def _registration(surface: Surface, lidar: LidarSet, path: Path) -> Registration:
    """Registration on means of the cells, fine enough for the footprints. Raises LidarError, OverlapError."""
    grid = surface.height.grid
    step = max(round(REGISTRATION_CELL / grid.resolution), overview_step(grid, int(REGISTRATION_CELLS)), 1)
    sigma = None if surface.sigma is None else overview(surface.sigma, step)
    found = register_dsm(overview(surface.height, step), lidar.returns, sigma)
    if not found.applied:
        raise LidarError(found.warnings[0], where=path, fix="give more granules, or a looser rule set")
    return found


def _corrected(surface: Surface, found: Registration, folder: Place, reporter: Reporter) -> Surface:
    """A surface moved onto the frame of the lidar, on its own cells."""
    grid = surface.height.grid
    height = new_raster(folder / f"{surface.name}_moved.raw", grid, np.float32)
    sigma = None if surface.sigma is None else new_raster(folder / f"{surface.name}_spread.raw", grid, np.float32)
    around = baseline_cells(grid.resolution)  # rows more on both sides for the slopes
    for top in range(0, grid.height, STRIP_ROWS):
        part = grid.window(top, 0, min(STRIP_ROWS, grid.height - top), grid.width)
        x, y = np.meshgrid(*part.centres())
        first, last = max(top - around, 0), min(top + part.height + around, grid.height)
        inner = slice(top - first, top - first + part.height)
        z = _shifted(surface.height, grid.window(first, 0, last - first, grid.width), first, found)
        height.write(top, 0, (z[inner] + found.vertical_at(x, y)).astype(np.float32))
        if sigma is not None and surface.sigma is not None:
            spread = _shifted(surface.sigma, part, top, found)
            sideways = sideways_variance(surface_slopes(z, grid.resolution)[:, inner], found)
            sigma.write(top, 0, np.sqrt(spread**2 + found.sigma_at(x, y) ** 2 + sideways).astype(np.float32))
    reporter.step()
    return replace(surface, height=height, sigma=sigma)


def _shifted(raster: StoredRaster, part: Grid, top: int, found: Registration) -> np.ndarray:
    """Values of a raster that is moved east and north, on a strip of its own cells."""
    grid = raster.grid
    margin = ceil(abs(found.dy) / grid.resolution) + 2
    first, last = max(top - margin, 0), min(top + part.height + margin, grid.height)
    values = raster.read(first, 0, last - first, grid.width)
    there = grid.window(first, 0, *values.shape)
    moved = replace(there, west=there.west + found.dx, north=there.north + found.dy)
    return resample(Raster(values, moved), part).values


def _write(surface: Surface, out: Path, reporter: Reporter) -> Iterator[str]:
    """Write a surface over the reference that it came in; the names of its files."""
    grid = replace(surface.height.grid, reference=surface.reference)
    strips = (
        (top, to_vertical(Raster(v, surface.height.grid.window(top, 0, *v.shape)), surface.reference.vertical).values)
        for top, v in surface.height.strips(STRIP_ROWS)
    )
    write_strips(out / f"{surface.name}.tif", grid, strips, np.float32, nodata=HEIGHT_NODATA, band_names=("height",))
    yield f"{surface.name}.tif"
    if surface.sigma is not None:
        write_strips(
            out / f"{surface.name}_sigma.tif", surface.sigma.grid, surface.sigma.strips(STRIP_ROWS), np.float32,
            nodata=HEIGHT_NODATA, heights=False, band_names=(f"1-sigma of {surface.name}, m",),
        )  # fmt: skip
        yield f"{surface.name}_sigma.tif"
    reporter.step()


def _report(path: Path, lidar: LidarSet, found: Registration, surfaces: list[Surface]) -> ReportData:
    dsm = surfaces[0].height
    small = overview(dsm, step_for_side(dsm.grid, PICTURE_PX))
    shown = Shown(dsm, surfaces[1].height if len(surfaces) > 1 else None)
    lead = (
        f"{dsm.grid.width} x {dsm.grid.height} cells of {dsm.grid.resolution:g} m; {dsm.grid.reference.horizontal}, "
        f"heights: {surfaces[0].reference.vertical.name}"
    )
    return ReportData(
        f"terrain3d: {path.name} registered to lidar",
        lead,
        (
            Section("Surface", [relief_figure(small, "Corrected surface (dsm.tif)")]),
            Section("Lidar", lidar_blocks(lidar, found, shown)),
            Section("Notes", [Text(w) for w in (*lidar.warnings, *found.warnings)]),
        ),
    )
