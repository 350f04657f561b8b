"""Polygons that a user gives, in the CRS of a run, and the cells that they cover."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from terrain3d.errors import InputFileError
from terrain3d.io.vectors import read_layer
from terrain3d.raster import Grid
from terrain3d.tiles import move_vertices


@dataclass(frozen=True)
class Polygons:
    """Polygons (n,) of shapely in the CRS that they were asked for in, and columns (n,) by lower-case name."""

    shapes: NDArray[np.object_]
    columns: dict[str, NDArray[Any]]


def read_polygons(path: Path, crs: str) -> Polygons:
    """Polygons of the first layer of a file, valid, brought to a CRS.

    Raises InputFileError (no polygons, or others beside them) and as ``read_layer`` does.
    """
    layer = read_layer(path)
    kinds = {g.geom_type for g in layer.geometries if g is not None}
    if not kinds or not kinds <= {"Polygon", "MultiPolygon"} or any(g is None for g in layer.geometries):
        raise InputFileError(f"holds {', '.join(sorted(kinds)) or 'nothing'}, not only polygons", where=path)
    flat = [shapely.force_2d(shapely.make_valid(g)) for g in layer.geometries]
    shapes = np.array([move_vertices(g, layer.crs, crs) for g in flat], dtype=object)
    return Polygons(shapes, {k.lower(): v for k, v in layer.columns.items()})


def burned(shapes: NDArray[np.object_], values: NDArray[np.uint8], grid: Grid, parts: int = 1) -> NDArray[np.uint8]:
    """Value of the last polygon that holds the centre of each cell, 0 for none; (h, w) times ``parts`` a side."""
    shape = grid.height * parts, grid.width * parts
    here = shapely.intersects(shapes, shapely.box(*grid.bounds)) if len(shapes) else np.empty(0, bool)
    if not here.any():
        return np.zeros(shape, np.uint8)
    cell = grid.resolution / parts
    pairs = [(s, int(v)) for s, v in zip(shapes[here], values[here], strict=True)]
    found = rasterize(
        pairs, out_shape=shape, dtype=np.uint8, transform=Affine(cell, 0, grid.west, 0, -cell, grid.north)
    )
    return np.asarray(found, np.uint8)
