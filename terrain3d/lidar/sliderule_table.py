"""What SlideRule's files have in common: rows within an area, the request that made them, tracks, times and the frame.

Source: user guide of SlideRule (slideruleearth.io). Files made by a server have longitude and latitude, or a geometry
that stands for both; those of its Python client keep the request in a column or in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import vertical_of_crs
from terrain3d.errors import FrameError, LidarError
from terrain3d.lidar.atlas import sift_conditions
from terrain3d.lidar.frames import Frame, frame_of_crs
from terrain3d.lidar.granule import FILL_LIMIT, Bounds, inside_bounds
from terrain3d.lidar.read_columns import TableHead, X, Y, parquet_metadata, read_head, read_parts
from terrain3d.lidar.read_table import join_parts, numbers, seconds, track_index
from terrain3d.lidar.rules import RuleSet, Sieve

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

TIMES = ("time", "time_ns")
BEAMS = (("gt",), ("beam",), ("track", "pair"), ("spot",))  # columns that tell the beams of a pass apart, best first
PASSES = ("rgt", "cycle", "orbit")
REQUEST_KEYS = ("sliderule", "sliderule_parameters", "meta")
ELLIPSOIDAL = ("", "itrf2014", "itrf2020", "wgs84", "unspecified")


@dataclass(frozen=True)
class Within:
    """Rows of a file inside an area.

    columns: those that were asked for and are there, as stored. n_read: rows of the whole file, or what else returns
    are made of. distance: metres from the area to the nearest row. head: what the file says of itself.
    request: that made the file; {} where it is silent.
    """

    path: Path
    columns: Columns
    lon_deg: Floats
    lat_deg: Floats
    n_read: int
    distance: float
    head: TableHead
    request: dict[str, Any]

    def __len__(self) -> int:
        return len(self.lon_deg)

    def at(self, rows: NDArray[np.int64]) -> Within:
        """Some of the rows, by index."""
        columns = {n: v[rows] for n, v in self.columns.items()}
        return replace(self, columns=columns, lon_deg=self.lon_deg[rows], lat_deg=self.lat_deg[rows])

    def numbers(self, name: str) -> Floats | None:
        """A column with fill values as NaN; None where the file lacks it."""
        if name not in self.columns:
            return None
        values = numbers(self.columns[name], name, self.path)
        return np.where(np.abs(values) < FILL_LIMIT, values, np.nan)

    def times(self) -> Floats:
        """Seconds since 2018-01-01, or the order of the rows; integers are nanoseconds of Unix time."""
        values = next((self.columns[t] for t in TIMES if t in self.columns), None)
        if values is None:
            return np.arange(len(self), dtype=float)
        return seconds(values.astype("datetime64[ns]") if values.dtype.kind in "iu" else values, self.path)

    def tracks(self) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Index of each row's track, one beam of one pass, and the names of the tracks."""
        keys = [k for k in PASSES if k in self.columns]
        keys += next((list(b) for b in BEAMS if all(k in self.columns for k in b)), [])
        codes = np.zeros(len(self), np.int64)
        for key in keys:
            part, values = track_index(self.columns[key])
            codes = codes * max(len(values), 1) + part
        _, first, index = np.unique(codes, return_index=True, return_inverse=True)
        names = ("-".join(f"{k}{self.columns[k][i]}" for k in keys) for i in first)
        return index.reshape(-1).astype(np.int32), tuple(f"{self.path.name}/{name}".rstrip("/") for name in names)

    def frame(self) -> Frame:
        """Frame of the positions; ITRF2014 where the file does not state one."""
        name = frame_of_crs(self.head.crs)
        epoch = None if any(t in self.columns for t in TIMES) else float("nan")
        return Frame(name or "ITRF2014", epoch, stated=name is not None)


def read_within(
    path: Path, names: Sequence[str], bounds: Bounds | None, units: Callable[[Columns], int] = lambda rows: len(rows[X])
) -> Within:
    """Rows inside the bounds. units: how many returns the rows outside stand for.

    Raises LidarError where positions are missing, FrameError where heights are over a geoid.
    """
    head, request = read_head(path), _request(path)
    _check_heights(head, request, path)
    x, y = _positions(head, path)
    order = ("spot", "solar_elevation", "snowcover", *PASSES, *(k for b in BEAMS for k in b), *TIMES)
    wanted = [n for n in dict.fromkeys((*names, *order)) if n in head.columns]
    parts: list[Columns] = []
    outside, distance = 0, float("nan")
    for part in read_parts(path, [x, y, *wanted]):
        lon, lat = numbers(part[x], x, path), numbers(part[y], y, path)
        inside, away = inside_bounds(lon, lat, bounds)
        distance = float(np.fmin(distance, away))
        if not inside.all():
            outside += units({X: lon[~inside]} | {n: part[n][~inside] for n in wanted})
        parts.append({X: lon[inside], Y: lat[inside]} | {n: part[n][inside] for n in wanted})
    table = join_parts(parts, [X, Y, *wanted])
    columns = {n: table[n] for n in wanted}
    return Within(path, columns, table[X], table[Y], outside + len(table[X]), distance, head, request)


def sift_table(sieve: Sieve, table: Within, rules: RuleSet, snow: str) -> None:
    """Rules on the beam, the light and the surface, by the columns of the table."""
    spot = table.numbers("spot")
    sieve.flag("weak beam", rules.reject_weak_beams, spot, lambda v: v % 2 == 1)  # spots 1, 3 and 5 are strong
    sift_conditions(sieve, lambda n: table.numbers(snow if n == "segment_snowcover" else n), False, rules)


def _check_heights(head: TableHead, request: dict[str, Any], path: Path) -> None:
    vertical = None if head.crs is None else vertical_of_crs(head.crs)
    asked = str(request.get("datum") or "")
    over = vertical if vertical not in (None, "ellipsoid") else asked if asked.lower() not in ELLIPSOIDAL else None
    if over is not None:
        raise FrameError(f"SlideRule file with heights over {over}", where=path,
                         fix="request ellipsoidal heights, or give it as a table with vertical")  # fmt: skip


def _positions(head: TableHead, path: Path) -> tuple[str, str]:
    for x, y in (("longitude", "latitude"), ("lon", "lat")):
        if {x, y} <= set(head.columns):
            return x, y
    if head.has_points and head.crs is not None and head.crs.is_geographic:
        return X, Y
    raise LidarError("no usable returns: SlideRule file without longitude and latitude", where=path,
                     fix="request it as GeoParquet")  # fmt: skip


def _request(path: Path) -> dict[str, Any]:
    """The request that made the file: JSON in the metadata or a column; {} if it is silent."""
    for key in REQUEST_KEYS:
        text = parquet_metadata(path, key)
        try:
            value = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            continue
        found = next((d for d in _mappings(value) if {"atl08_class", "len", "datum"} & d.keys()), None)
        if found is not None:
            return found
    return {}


def _mappings(value: Any, depth: int = 4) -> Iterator[dict[str, Any]]:
    """A mapping and those inside it, the outer ones first."""
    if isinstance(value, dict):
        yield value
        if depth:
            for inner in value.values():
                yield from _mappings(inner, depth - 1)
