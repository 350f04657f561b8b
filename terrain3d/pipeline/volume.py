"""Volumes between two surfaces, or a surface and a level, inside polygons of a file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import ceil
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terrain3d.errors import ConfigError, OverlapError
from terrain3d.io.vectors import write_layer
from terrain3d.landform.volumes import ErrorModel, PartialVolume, Volume, partial_volume, volume
from terrain3d.pipeline.height_files import HeightFile, check_numbers, open_heights, over
from terrain3d.pipeline.polygons import Polygons, burned, read_polygons
from terrain3d.pipeline.progress import Reporter
from terrain3d.raster import Grid

PART = 1024  # cells a side that are worked at once
SUB = 4  # parts of a cell's side that a polygon may cut


@dataclass(frozen=True)
class VolumeOptions:
    """plane: height to compare with instead of a second surface, metres in the first one's reference. sigma: 1-sigma
    (m) of surfaces that have no sigma file."""

    plane: float | None = None
    sigma: float | None = None
    model: ErrorModel = field(default_factory=ErrorModel)


@dataclass(frozen=True)
class VolumeResult:
    """Volumes of the polygons of a layer, in its order; notes on what had to be assumed."""

    polygons: NDArray[np.object_]
    volumes: list[Volume]
    names: list[str]
    notes: list[str]


def run_volume(
    first: Path, second: Path | None, polygons: Path, out: Path, options: VolumeOptions, reporter: Reporter
) -> VolumeResult:
    """Cut and fill from the first surface to the second or to a plane, inside each polygon, as a GeoPackage ``out``.

    Raises ConfigError, InputFileError, FrameError, OverlapError (a polygon beyond the surfaces).
    """
    if (second is None) == (options.plane is None):
        raise ConfigError("a second surface or --plane is needed, and not both", where="volume")
    check_numbers(plane=options.plane, sigma=options.sigma, common=options.model.common,
                  correlation=options.model.long_range)  # fmt: skip
    if out.suffix.lower() != ".gpkg":
        raise ConfigError(f"'{out.name}' is not a GeoPackage", where="--out", fix="name a file such as volumes.gpkg")
    old = open_heights(first)
    new, note = (None, None) if second is None else over(open_heights(second), old.vertical)
    given = read_polygons(polygons, old.grid.reference.horizontal)
    shapes, names = given.shapes, _names(given)
    reporter.stage("volumes", len(shapes))
    found = []
    for i, shape in enumerate(shapes):
        parts = _of_polygon(shape, old, new, options)
        if parts.area == 0:
            raise OverlapError(f"polygon {i + 1} holds no cell with heights", where=polygons, fix="check place and CRS")
        beyond = shape.difference(shapely.box(*old.grid.bounds)).area
        found.append(volume(replace(parts, without=parts.without + beyond), options.model))
        reporter.step()
    columns = {"name": np.array(names, dtype=str)} | {
        _column(f.name): np.array([getattr(v, f.name) for v in found]) for f in fields(Volume)
    }
    write_layer(out, "volumes", shapes, columns, old.grid.reference.horizontal)
    return VolumeResult(shapes, found, names, [n for n in (note,) if n])


def _column(name: str) -> str:
    return {"area": "area_m2", "without": "no_data_m2"}.get(name, f"{name}_m3")


def _names(polygons: Polygons) -> list[str]:
    """Of a column ``name`` or ``id``, else numbers from 1."""
    column = next((polygons.columns[k] for k in ("name", "id") if k in polygons.columns), None)
    return [str(i + 1 if column is None else column[i]) for i in range(len(polygons.shapes))]


def _of_polygon(shape: BaseGeometry, old: HeightFile, new: HeightFile | None, options: VolumeOptions) -> PartialVolume:
    """Volume of a polygon, in parts that see the cells around them that err alike."""
    grid = old.grid
    west, south, east, north = shape.bounds
    (c0, c1), (r1, r0) = grid.column_row([west, east], [south, north])
    left, right = max(int(np.floor(c0)), 0), min(int(np.ceil(c1)) + 1, grid.width)
    top, bottom = max(int(np.floor(r0)), 0), min(int(np.ceil(r1)) + 1, grid.height)
    margin = ceil(options.model.reach / grid.resolution)
    total = PartialVolume()
    for row in range(top, bottom, PART):
        for column in range(left, right, PART):
            y0, x0 = max(row - margin, top), max(column - margin, left)
            y1, x1 = min(row + PART + margin, bottom), min(column + PART + margin, right)
            core = (slice(row - y0, min(row + PART, bottom) - y0), slice(column - x0, min(column + PART, right) - x0))
            window = grid.window(y0, x0, y1 - y0, x1 - x0)
            weight = coverage(shape, window)
            if not weight[core].any():
                continue
            rise, sigma = _difference(old, new, window, options)
            total += partial_volume(rise, sigma, weight, core, grid.resolution, options.model)
    return total


def _difference(
    old: HeightFile, new: HeightFile | None, window: Grid, options: VolumeOptions
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Rise (m) from the old to the new surface, and its sigma; None if one of them has none."""
    z = old.on(window).values
    rise = np.asarray((options.plane if new is None else new.on(window).values) - z)
    variance = np.zeros(window.shape, np.float32)
    for file in [old] if new is None else [old, new]:
        found = file.sigma_on(window)
        if found is None and options.sigma is None:
            return rise.astype(np.float32), None
        variance += np.float32(options.sigma) ** 2 if found is None else found.values**2  # type: ignore[arg-type]
    return rise.astype(np.float32), np.sqrt(variance)


def coverage(shape: BaseGeometry, grid: Grid) -> NDArray[np.float32]:
    """Share of each cell inside a polygon, to a sixteenth."""
    fine = burned(np.array([shape], dtype=object), np.ones(1, np.uint8), grid, SUB)
    return fine.reshape(grid.height, SUB, grid.width, SUB).mean(axis=(1, 3), dtype=np.float32)
