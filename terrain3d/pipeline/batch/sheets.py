"""The tiles of an area: squares of UTM, standard meshes, or sheets of the user's own index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import shapely
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import parse_crs
from terrain3d.errors import ConfigError
from terrain3d.io.vectors import read_layer
from terrain3d.pipeline.batch.area import SAFE, Area
from terrain3d.raster import Bounds
from terrain3d.tiles import MOST_TILES, SQUARE_DIGITS, Tile, sheets_over, tiles_over


@dataclass(frozen=True)
class Sheet:
    """A tile of the results: its code, which is in the names of its files, and its outline in their CRS."""

    code: str
    outline: Polygon

    @property
    def bounds(self) -> Bounds:
        west, south, east, north = self.outline.bounds
        return float(west), float(south), float(east), float(north)


def sheets_of(area: Area, covered: BaseGeometry, crs: str) -> list[Sheet]:
    """Tiles that share ground with what is covered, from north-west to south-east.

    Raises ConfigError: no tile there, codes that are not unique or cannot be names of files, far too many tiles.
    """
    scheme = area.tiles
    if scheme.jis is not None:
        tiles = tiles_over(covered, crs, f"jis-{scheme.jis}")
    elif area.sheets is not None:
        tiles = sheets_over(covered, crs, _index(area.sheets, scheme.layer, str(scheme.code)))
    elif parse_crs(crs).utm_zone is not None and scheme.utm in SQUARE_DIGITS:
        tiles = tiles_over(covered, crs, f"utm-{_size_name(float(scheme.utm))}")
    else:
        tiles = _squares(covered, crs, float(scheme.utm or 0))
    count = Counter(t.code.casefold() for t in tiles)  # some disks take a and A for the same name
    twice = [t.code for t in tiles if count[t.code.casefold()] > 1]
    if twice:
        raise ConfigError(f"code of a sheet occurs twice: {min(twice)}", where=area.sheets)
    if not tiles:
        raise ConfigError("no tile lies over the images", where=area.sheets, fix="check the scheme of tiles")
    return [Sheet(t.code, t.outline_in(crs)) for t in tiles]


def _size_name(size: float) -> str:
    return "100m" if size == 100 else f"{size / 1000:.0f}km"


def _squares(covered: BaseGeometry, crs: str, size: float) -> list[Tile]:
    """Squares of any size on multiples of it, named by the coordinates of their south-west corners."""
    west, south, east, north = (v / size for v in covered.bounds)
    columns, rows = range(floor(west), ceil(east)), range(floor(south), ceil(north))
    if len(columns) * len(rows) > MOST_TILES:
        raise ConfigError(f"{len(columns) * len(rows)} tiles cover the area", fix="take larger tiles")
    out = []
    for r in reversed(rows):
        for c in columns:
            square = shapely.box(c * size, r * size, (c + 1) * size, (r + 1) * size)
            if shapely.relate_pattern(square, covered, "T********"):
                out.append(Tile(f"E{c * size:.0f}N{r * size:.0f}", square, crs))
    return out


def _index(path: Path, layer: str | None, column: str) -> list[Tile]:
    """Sheets of an index. Raises InputFileError, FrameError, ConfigError (no such column, a code that is no name)."""
    found = read_layer(path, layer)
    if column not in found.columns:
        raise ConfigError(f"index of sheets has no column '{column}'", where=path,
                          fix=f"it has {', '.join(found.columns) or 'none'}")  # fmt: skip
    tiles = []
    for shape, code in zip(found.geometries, found.columns[column], strict=True):
        if code is None or code != code:
            raise ConfigError(f"a sheet has no code in column '{column}'", where=path, fix="give it one")
        name = str(code)
        if not SAFE.fullmatch(name) or ".." in name:
            raise ConfigError(f"code '{name[:60]}' of a sheet cannot be the name of a file", where=path,
                              fix="use letters, digits, dot, hyphen and underscore")  # fmt: skip
        if shape is None or shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon"):
            raise ConfigError(f"sheet '{name}' has no area", where=path)
        tiles.append(Tile(name, shape, found.crs))
    return tiles
