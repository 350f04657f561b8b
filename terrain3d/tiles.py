"""Map tiles: kilometre squares of UTM with their MGRS codes, Japanese standard meshes, and the user's own sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import LONLAT, parse_crs, to_lonlat, transform_xy, unbroken, utm_crs
from terrain3d.errors import ConfigError, FrameError

BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of latitude, 8 degrees each from 80 S; the last reaches to 84 N
ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
COLUMN_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
SQUARE_DIGITS = {10_000: 1, 1_000: 2, 100: 3}
# Size of a mesh of each level of JIS X 0410 in degrees, east and north: first, second, third, half, quarter, eighth.
MESH_SIZES = tuple((s * 1.5, s) for s in (40 / 60, 5 / 60, 30 / 3600, 15 / 3600, 7.5 / 3600, 3.75 / 3600))
SCHEMES = ("utm-10km", "utm-1km", "utm-100m", "jis-1", "jis-2", "jis-3", "jis-4", "jis-5", "jis-6")
MOST_TILES = 1_000_000
OUTLINE_PARTS = 8  # of each side, where an outline goes into another CRS


@dataclass(frozen=True)
class Tile:
    """A tile of a map series: its code and its outline in ``crs`` (UTM squares: that UTM; meshes: EPSG:4326)."""

    code: str
    outline: Polygon
    crs: str

    def outline_in(self, crs: str) -> Any:
        """The outline in another CRS, its sides in parts that follow the curves."""
        return reproject(self.outline, self.crs, crs)


def reproject(shape: BaseGeometry, source: str, target: str) -> Any:
    """A geometry from one CRS to another, long sides cut into parts that follow the curves."""
    if source == target or shape.is_empty:
        return shape
    west, south, east, north = shape.bounds
    dense = shapely.segmentize(shape, max(east - west, north - south) / OUTLINE_PARTS or 1.0)
    return move_vertices(dense, source, target)


def move_vertices(shape: BaseGeometry, source: str, target: str) -> Any:
    """A geometry whose vertices alone go from one CRS to another."""

    def move(points: Any) -> Any:
        return np.column_stack(transform_xy(source, target, points[:, 0], points[:, 1]))

    return shapely.transform(shape, move)


def on_earth(shape: BaseGeometry) -> Any:
    """A geometry of longitudes and latitudes as RFC 7946 wants it, section 3.1.9: what lies across the 180th meridian
    is cut there. Shapes of less than a quarter of the Earth's turn."""
    whole = shapely.transform(shape, lambda p: np.column_stack([unbroken(p[:, 0]), p[:, 1]]))
    if whole.is_empty or whole.bounds[2] <= 180.0:
        return shape
    here, beyond = (shapely.intersection(whole, shapely.box(w, -90.0, w + 360.0, 90.0)) for w in (-180.0, 180.0))
    return shapely.union(here, shapely.transform(beyond, lambda p: p - (360.0, 0.0)))


def tiles_over(area: BaseGeometry, crs: str, scheme: str) -> list[Tile]:
    """Tiles of a scheme that share more than their rim with an area, from north-west to south-east.

    scheme: 'utm-10km', 'utm-1km', 'utm-100m'; 'jis-1' (80 km) to 'jis-6' (125 m).
    UTM squares are those of ``crs`` if it is a UTM (of any datum), else of the WGS 84 zone of the area's centre; an
    area that reaches over the edge of the zone stays in it.
    Raises ConfigError for another scheme or far too many tiles, FrameError where the scheme does not reach.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown scheme of tiles '{scheme}'", fix=f"give one of {', '.join(SCHEMES)}")
    if area.is_empty:
        return []
    family, _, step = scheme.partition("-")
    if family == "utm":
        size = 100.0 if step == "100m" else 1000.0 * int(step.removesuffix("km"))
        zone = _utm_of(area, crs)
        half = size / 2

        def square(x: float, y: float) -> Tile:
            outline = shapely.box(x - half, y - half, x + half, y + half)
            return Tile(square_code(x, y, zone, int(size)), outline, zone)

        return _lattice(reproject(area, crs, zone), (size, size), square)
    level = int(step)
    return _lattice(
        reproject(area, crs, LONLAT), MESH_SIZES[level - 1], lambda x, y: tile_of_code(mesh_code(x, y, level))
    )


def sheets_over(area: BaseGeometry, crs: str, sheets: Iterable[Tile]) -> list[Tile]:
    """Of a map series of one's own, the sheets that share more than their rim with an area."""
    return [s for s in sheets if shapely.relate_pattern(s.outline_in(crs), area, "2********")]


def _utm_of(area: BaseGeometry, crs: str) -> str:
    if parse_crs(crs).utm_zone is not None:
        return crs
    centre = shapely.box(*area.bounds).centroid
    lon, lat = to_lonlat(crs, np.array(centre.x), np.array(centre.y))
    if not -80 <= lat < 84:
        raise FrameError(f"no UTM zone at latitude {float(lat):.1f}", fix="use a sheet index of your own")
    return utm_crs(float(lon), float(lat))


def _lattice(area: Any, size: tuple[float, float], tile_at: Callable[[float, float], Tile]) -> list[Tile]:
    """Tiles of a regular division that share more than their rim with ``area``; ``tile_at`` takes their centres."""
    west, south, east, north = (v / s for v, s in zip(area.bounds, (*size, *size), strict=True))
    columns = range(floor(west + 1e-9), max(floor(west + 1e-9) + 1, ceil(east - 1e-9)))
    rows = range(floor(south + 1e-9), max(floor(south + 1e-9) + 1, ceil(north - 1e-9)))
    if len(columns) * len(rows) > MOST_TILES:
        raise ConfigError(f"{len(columns) * len(rows)} tiles cover the area", fix="take larger tiles")
    shapely.prepare(area)
    tiles = (tile_at((c + 0.5) * size[0], (r + 0.5) * size[1]) for r in reversed(rows) for c in columns)
    return [t for t in tiles if shapely.relate_pattern(t.outline, area, "T********")]


def square_code(x: float, y: float, utm: str, size: int = 1000) -> str:
    """MGRS code of the square of 10 000, 1000 or 100 m that holds a place (x, y) of a UTM CRS, such as '18SUJ2306'.

    Source: NGA.STND.0037 (2014), universal grids. Raises FrameError if ``utm`` is no UTM or the place not between 80 S
    and 84 N.
    """
    zone_name = parse_crs(utm).utm_zone
    if zone_name is None:
        raise FrameError(f"CRS '{utm[:40]}' is not a UTM", fix="give a UTM such as EPSG:32654")
    if size not in SQUARE_DIGITS:
        raise ConfigError(f"no MGRS squares of {size} m", fix=f"give one of {', '.join(map(str, SQUARE_DIGITS))}")
    zone = int(zone_name[:-1])
    _, lat = to_lonlat(utm, np.array(float(x)), np.array(float(y)))
    if not -80 <= lat < 84 or not 100_000 <= x < 900_000:
        raise FrameError(f"{x:.0f}, {y:.0f} is outside zone {zone_name} of UTM", fix="give a place inside the zone")
    band = BANDS[min(int((lat + 80) // 8), len(BANDS) - 1)]
    column = COLUMN_LETTERS[(zone - 1) % 3][int(x // 100_000) - 1]
    row = ROW_LETTERS[int(y // 100_000 + (5 if zone % 2 == 0 else 0)) % 20]
    digits = SQUARE_DIGITS[size]
    within = (f"{int(v % 100_000) // size:0{digits}d}" for v in (x, y))
    return f"{zone}{band}{column}{row}{''.join(within)}"


def mesh_code(lon_deg: float, lat_deg: float, level: int = 3) -> str:
    """JIS X 0410 code of the mesh that holds a place: level 1 (80 km) to 3 (1 km), 4 to 6 its half, quarter, eighth.

    Raises FrameError outside longitudes 100 to 180 and latitudes 0 to 66.67, where the codes of two digits end.
    """
    if not (100 <= lon_deg < 180 and 0 <= lat_deg < 100 * 2 / 3):
        raise FrameError(f"no standard mesh at {lat_deg:.3f}, {lon_deg:.3f}", fix="give a place in or near Japan")
    # Whole eighths of a third mesh: the arithmetic is exact from here on.
    east, north = floor((lon_deg - 100) * 640 + 1e-9), floor(lat_deg * 960 + 1e-9)
    code = f"{north // 640:02d}{east // 640:02d}"
    if level >= 2:
        code += f"{north % 640 // 80}{east % 640 // 80}"
    if level >= 3:
        code += f"{north % 80 // 8}{east % 80 // 8}"
    for half in (4, 2, 1)[: max(level - 3, 0)]:
        code += str(2 * (north // half % 2) + east // half % 2 + 1)
    return code


def mesh_bounds(code: str) -> tuple[float, float, float, float]:
    """West, south, east, north (degrees) of a JIS X 0410 mesh. Raises ConfigError for what is no such code."""
    level = {4: 1, 6: 2, 8: 3, 9: 4, 10: 5, 11: 6}.get(len(code))
    bad = (
        level is None or not code.isdigit() or any(d > "7" for d in code[4:6]) or any(d not in "1234" for d in code[8:])
    )
    if level is None or bad:
        raise ConfigError(f"'{code}' is no code of a standard mesh", fix="give 4, 6 or 8 to 11 digits of JIS X 0410")
    digits = [int(d) for d in code]
    north, east = int(code[:2]) * 640, int(code[2:4]) * 640
    for place, unit in ((4, 80), (6, 8)):
        if len(digits) > place:
            north, east = north + digits[place] * unit, east + digits[place + 1] * unit
    for half, digit in zip((4, 2, 1), digits[8:], strict=False):
        north, east = north + (digit - 1) // 2 * half, east + (digit - 1) % 2 * half
    width, height = MESH_SIZES[level - 1]
    west, south = 100 + east / 640, north / 960
    return west, south, west + width, south + height


def tile_of_code(code: str) -> Tile:
    """A tile from its code: a standard mesh (digits only) or a UTM square (MGRS, WGS 84).

    Raises ConfigError for what is neither.
    """
    if code.isdigit():
        return Tile(code, shapely.box(*mesh_bounds(code)), LONLAT)
    text = code.replace(" ", "").upper()
    head = text.rstrip("0123456789")
    digits, zone = text[len(head) :], head[:-3]
    wrong = ConfigError(f"'{code}' is no code of a tile", fix="give a JIS X 0410 code or MGRS such as 54SUE8349")
    size = {2: 10_000, 4: 1000, 6: 100}.get(len(digits))
    if size is None or not zone.isdigit() or not 1 <= int(zone) <= 60 or head[-3] not in BANDS:
        raise wrong
    letters, row = COLUMN_LETTERS[(int(zone) - 1) % 3], head[-1]
    if head[-2] not in letters or row not in ROW_LETTERS:
        raise wrong
    band = BANDS.index(head[-3])
    utm = f"EPSG:{(32600 if band >= 10 else 32700) + int(zone)}"
    half = len(digits) // 2
    x = (letters.index(head[-2]) + 1) * 100_000 + int(digits[:half]) * size
    y0 = (ROW_LETTERS.index(row) - (5 if int(zone) % 2 == 0 else 0)) % 20 * 100_000 + int(digits[half:]) * size
    # Rows repeat every 2000 km: the one that lies in the band is meant.
    reach = range(0, 9_400_000) if band >= 10 else range(1_110_000, 10_000_000)
    for y in (y for y in range(y0, 10_000_000, 2_000_000) if y in reach):
        centre = x + size / 2, y + size / 2
        if square_code(*centre, utm, size) == text.removeprefix("0"):
            return Tile(text.removeprefix("0"), shapely.box(x, y, x + size, y + size), utm)
    raise wrong
