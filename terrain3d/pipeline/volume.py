"""Volumes between two surfaces, or a surface and a level, inside polygons of a file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import ceil
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import transform_xy
from terrain3d.errors import ConfigError, InputFileError, OverlapError
from terrain3d.io.vectors import read_layer, write_layer
from terrain3d.landform.volumes import ErrorModel, PartialVolume, Volume, partial_volume, volume
from terrain3d.pipeline.height_files import HeightFile, open_heights, over
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
    if out.suffix.lower() != ".gpkg":
        raise ConfigError(f"'{out.name}' is not a GeoPackage", where="--out", fix="name a file such as volumes.gpkg")
    old = open_heights(first)
    new, note = (None, None) if second is None else over(open_heights(second), old.vertical)
    shapes, names = _polygons(polygons, old.grid.reference.horizontal)
    reporter.stage("volumes", len(shapes))
    found = []
    for i, shape in enumerate(shapes):
        parts = _of_polygon(shape, old, new, options)
        if parts.area == 0:
            raise OverlapError(f"polygon {i + 1} holds no cell with heights", where=polygons, fix="check place and CRS")
        found.append(volume(parts, options.model))
        reporter.step()
    columns = {"name": np.array(names, dtype=str)} | {
        _column(f.name): np.array([getattr(v, f.name) for v in found]) for f in fields(Volume)
    }
    write_layer(out, "volumes", shapes, columns, old.grid.reference.horizontal)
    return VolumeResult(shapes, found, names, [n for n in (note,) if n])


def _column(name: str) -> str:
    return {"area": "area_m2", "without": "no_data_m2"}.get(name, f"{name}_m3")


def _polygons(path: Path, crs: str) -> tuple[NDArray[np.object_], list[str]]:
    """Polygons of a file in a CRS, and their names: of a column ``name`` or ``id``, else their numbers."""
    layer = read_layer(path)
    kinds = {g.geom_type for g in layer.geometries if g is not None}
    if not kinds or not kinds <= {"Polygon", "MultiPolygon"}:
        raise InputFileError(f"holds {', '.join(sorted(kinds)) or 'nothing'}, not polygons", where=path)
    shapes = np.array([_in_crs(shapely.make_valid(g), layer.crs, crs) for g in layer.geometries], dtype=object)
    column = next((v for k, v in layer.columns.items() if k.lower() in ("name", "id")), None)
    return shapes, [str(i + 1 if column is None else column[i]) for i in range(len(shapes))]


def _in_crs(shape: BaseGeometry, source: str, target: str) -> BaseGeometry:
    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transform_xy(source, target, points[:, 0], points[:, 1]))

    return shapely.transform(shapely.force_2d(shape), moved)


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
    fine = rasterize(
        [(shape, 1)], out_shape=(grid.height * SUB, grid.width * SUB), dtype=np.uint8,
        transform=Affine(grid.resolution / SUB, 0, grid.west, 0, -grid.resolution / SUB, grid.north),
    )  # fmt: skip
    return fine.reshape(grid.height, SUB, grid.width, SUB).mean(axis=(1, 3), dtype=np.float32)
