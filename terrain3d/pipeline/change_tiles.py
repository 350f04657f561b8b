"""Which map tiles to update first: tiles that hold changes, ranked by how much of them changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from terrain3d.change.result import ChangeResult, R
from terrain3d.errors import ConfigError, InputFileError
from terrain3d.io.vectors import NamedLayer, read_layer
from terrain3d.raster import Grid
from terrain3d.tiles import SCHEMES, Tile, sheets_over, tiles_over

NAMES = ("code", "name", "sheet", "id", "mesh", "tile")  # of the column of a sheet index, where none is told


@dataclass(frozen=True)
class TileScheme:
    """scheme: of ``tiles.SCHEMES``, or the path of a layer of sheets, whose codes stand in ``column``."""

    scheme: str = "utm-1km"
    column: str | None = None


@dataclass(frozen=True)
class RankedTile:
    """A tile, how many changes touch it, their area (m2) and the sum of their volumes without sign (m3) in it."""

    tile: Tile
    changes: int
    area: float
    volume: float


def check_scheme(scheme: TileScheme) -> None:
    """Raises ConfigError (unknown scheme) or InputFileError (sheet index), before any work is done."""
    if _is_file(scheme):
        read_sheets(Path(scheme.scheme), scheme.column)
    elif scheme.scheme not in SCHEMES:
        raise ConfigError(
            f"unknown scheme of tiles '{scheme.scheme}'", fix=f"give one of {', '.join(SCHEMES)}, or a file"
        )


def _is_file(scheme: TileScheme) -> bool:
    path = Path(scheme.scheme)
    return path.suffix != "" or path.exists()


def tiles_of(scheme: TileScheme, grid: Grid) -> list[Tile]:
    """Tiles of a scheme over a grid. Raises ConfigError (unknown scheme), InputFileError (sheet index)."""
    crs, area = grid.reference.horizontal, shapely.box(*grid.bounds)
    if _is_file(scheme):
        return sheets_over(area, crs, read_sheets(Path(scheme.scheme), scheme.column))
    return tiles_over(area, crs, scheme.scheme)


def rank_tiles(result: ChangeResult[R], tiles: Sequence[Tile]) -> list[RankedTile]:
    """Those of the tiles that hold changes, the one with the largest changed area first."""
    crs = result.difference.grid.reference.horizontal
    polygons = [r.polygon for r in result.regions]
    if not polygons:
        return []
    tree = shapely.STRtree(polygons)
    out = []
    for tile in tiles:
        outline = tile.outline_in(crs)
        parts = [(k, polygons[k].intersection(outline).area) for k in tree.query(outline, "intersects")]
        parts = [(k, a) for k, a in parts if a > 0]
        if parts:
            volume = sum(abs(result.regions[k].measures.volume) * a / polygons[k].area for k, a in parts)
            out.append(RankedTile(tile, len(parts), sum(a for _, a in parts), volume))
    return sorted(out, key=lambda t: (-t.area, t.tile.code))


def read_sheets(path: Path, column: str | None) -> list[Tile]:
    """Sheets of a layer of polygons. Raises InputFileError if it cannot be read or has no such column."""
    layer = read_layer(path)
    lower = {name.lower(): name for name in layer.columns}
    name = column if column is not None else next((lower[n] for n in NAMES if n in lower), None)
    if name is None or name not in layer.columns:
        have = ", ".join(layer.columns) or "none"
        raise InputFileError(
            f"has no column {column or 'of sheet codes'}; columns: {have}", where=path, fix="name it by --sheet-column"
        )
    return [
        Tile(str(code), shape, layer.crs) for code, shape in zip(layer.columns[name], layer.geometries, strict=True)
    ]


def tile_layer(ranked: Sequence[RankedTile], grid: Grid) -> NamedLayer:
    """Layer ``tiles`` of the ranked tiles, in the CRS of the grid."""
    return NamedLayer(
        "tiles",
        [t.tile.outline_in(grid.reference.horizontal) for t in ranked],
        {
            "code": np.array([t.tile.code for t in ranked], str),
            "rank": np.arange(1, len(ranked) + 1),
            "changes": np.array([t.changes for t in ranked], int),
            "changed_area_m2": np.array([t.area for t in ranked], float),
            "changed_volume_m3": np.array([t.volume for t in ranked], float),
        },
    )
