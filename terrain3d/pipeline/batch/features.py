"""Trees and waters of an area in the files of its tiles: each tree in one tile, stands and waters cut at their rims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terrain3d.io.objects import DeskShelf
from terrain3d.io.vectors import NamedLayer, cut_layer, write_layers
from terrain3d.raster import Grid

TOP = np.dtype([("x", "<f8"), ("y", "<f8"), ("height_m", "<f4"), ("height_sigma_m", "<f4")])


@dataclass(frozen=True)
class Features:
    """What lies in a tile. tops: file of an array of TOP. stands, water: layers of ``trees.gpkg``, ``water.gpkg``."""

    tops: Path | None
    stands: NamedLayer
    water: tuple[NamedLayer, ...]

    def write(self, folder: Path, prefix: str, crs: str, changed: datetime) -> list[tuple[str, Path]]:
        """Write ``trees.gpkg`` and ``water.gpkg`` where there are any; what each holds, and its path."""
        tops = np.empty(0, TOP) if self.tops is None else np.load(self.tops)
        columns = {name: tops[name] for name in TOP.names[2:]} if TOP.names else {}
        trees = NamedLayer("tops", shapely.points(tops["x"], tops["y"]), columns, "Point")
        out = []
        for name, layers in (("trees", (trees, self.stands)), ("water", self.water)):
            if any(len(layer.geometries) for layer in layers):
                path = folder / f"{prefix}{name}.gpkg"
                write_layers(path, layers, crs, changed=changed)
                out.append((name, path))
        return out


@dataclass(frozen=True)
class AreaFeatures:
    """Layers of a whole area, see ``tree_layers`` and ``water_layers``."""

    trees: Sequence[NamedLayer]
    water: Sequence[NamedLayer]

    def write(self, folder: Path, crs: str, changed: datetime) -> None:
        """Write ``trees.gpkg`` and ``water.gpkg``. Raises OutputError."""
        write_layers(folder / "trees.gpkg", self.trees, crs, changed=changed)
        write_layers(folder / "water.gpkg", self.water, crs, changed=changed)

    def within(self, outline: BaseGeometry, grid: Grid, shelf: DeskShelf) -> Features:
        """What lies in a tile. grid: its cells."""
        tops, stands = self.trees
        x, y = shapely.get_coordinates(np.asarray(tops.geometries, dtype=object)).T
        here = np.flatnonzero(inside(outline, grid, x, y))
        rows = np.empty(len(here), TOP)
        rows["x"], rows["y"] = x[here], y[here]
        for name in tops.columns:
            rows[name] = tops.columns[name][here]
        path = shelf.save_array(rows) if len(rows) else None
        return Features(path, cut_layer(stands, outline), tuple(cut_layer(layer, outline) for layer in self.water))


def inside(
    outline: BaseGeometry, grid: Grid, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:  # fmt: skip
    """Which points lie in a tile; on a rim that two tiles share they belong to one of them. grid: cells of the tile."""
    west, south, east, north = grid.bounds
    here = (x >= west) & (x < east) & (y > south) & (y <= north)
    if not is_window(outline, grid):
        here[here] = shapely.contains_xy(outline, x[here], y[here])
    return np.asarray(here)


def is_window(outline: BaseGeometry, grid: Grid) -> bool:
    """Whether a tile is all of its cells."""
    return bool(np.isclose(outline.area, grid.height * grid.width * grid.resolution**2, rtol=1e-9))
