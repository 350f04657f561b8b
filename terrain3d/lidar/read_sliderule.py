"""SlideRule's customised ATL06 segments (ATL06-SR) in Parquet or GeoParquet to ground returns.

Source: documentation of SlideRule (slideruleearth.io). ``h_mean`` is the height of a line fitted to the photons of a
segment at its middle, over the WGS 84 ellipsoid; the request that made the file says which photons, and how long the
segments are.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import LidarError
from terrain3d.lidar.atlas import FOOTPRINT_WIDTH, height_sigma
from terrain3d.lidar.frames import Frame, frame_of_crs
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, Granule, granule_of, inside_bounds
from terrain3d.lidar.read_columns import TableHead, X, Y, parquet_metadata, read_head, read_parts
from terrain3d.lidar.read_table import join_parts, numbers, seconds, track_index
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

PRODUCT = "ATL06-SR"
MARKS = {"h_mean", "h_sigma", "n_fit_photons"}
SEGMENT_LENGTH = 40.0  # SlideRule's default
OPTIONAL = ("h_sigma", "n_fit_photons", "pflags", "rgt", "cycle", "gt", "spot", "time", "delta_time")
GROUND = ("atl08_ground", "ground")
REQUEST_KEYS = ("sliderule", "sliderule_parameters")


def is_sliderule(path: Path) -> bool:
    """Whether a Parquet file holds ATL06-SR segments. Raises InputFileError, MissingExtraError."""
    return set(read_head(path).columns) >= MARKS


def read_sliderule(path: Path, bounds: Bounds | None, rules: RuleSet) -> Granule:
    """Ground returns of one file; a track is one beam of one pass. Raises LidarError where positions are missing."""
    head = read_head(path)
    x, y = _positions(head, path)
    request = _request(path)
    names = [x, y, "h_mean", *(n for n in OPTIONAL if n in head.columns)]
    parts, n_read, distance = [], 0, float("nan")
    for part in read_parts(path, names):
        lon, lat = numbers(part[x], x, path), numbers(part[y], y, path)
        inside, away = inside_bounds(lon, lat, bounds)
        n_read, distance = n_read + len(lon), float(np.fmin(distance, away))
        parts.append({n: v[inside] for n, v in part.items()})
    table = join_parts(parts, names)
    n = len(table[x])
    column = {k: numbers(v, k, path) for k, v in table.items() if k != "time"}
    height, stated = column["h_mean"], column.get("h_sigma", np.full(n, np.nan))
    sieve = Sieve(n)
    sieve.counts.append((OUTSIDE, n_read - n))
    sieve.keep(NO_HEIGHT, np.isfinite(height))
    if rules.require_ground_photons:
        sieve.keep("not from ground photons", np.full(n, _is_ground(request)))
    if rules.require_segment_quality and "pflags" in column:
        sieve.keep("segment quality", column["pflags"] == 0)
    sieve.limit("few ground photons", column.get("n_fit_photons"), low=rules.min_ground_photons)
    sieve.limit("height sigma", stated, high=rules.max_height_sigma)
    if rules.reject_weak_beams and "spot" in column:
        sieve.keep("weak beam", column["spot"] % 2 == 1)  # spots 1, 3 and 5 are strong
    track, tracks = _tracks(table, n, path)
    length = float(request.get("len", SEGMENT_LENGTH))
    time = seconds(table["time"]) if "time" in table else column.get("delta_time", np.arange(n, dtype=float))
    full = np.ones(n)
    returns = LidarReturns(
        column[x], column[y], height, height_sigma(stated, None), full * length, full * FOOTPRINT_WIDTH,
        full * np.nan, time, track, tracks, (PRODUCT,) * len(tracks),
    )  # fmt: skip
    beam = Beam(returns.select(sieve.kept), n_read, tuple(sieve.counts), distance)
    name = frame_of_crs(head.crs)
    return granule_of([beam], PRODUCT, Frame(name or "ITRF2014", stated=name is not None))


def _positions(head: TableHead, path: Path) -> tuple[str, str]:
    for x, y in (("longitude", "latitude"), ("lon", "lat")):
        if {x, y} <= set(head.columns):
            return x, y
    if head.has_points and head.crs is not None and head.crs.is_geographic:
        return X, Y
    raise LidarError("no usable returns: SlideRule file without longitude and latitude", where=path,
                     fix="request it as GeoParquet")  # fmt: skip


def _request(path: Path) -> dict[str, Any]:
    """The request that made the file: JSON in the metadata, or in a column; empty where it says nothing."""
    for key in REQUEST_KEYS:
        text = parquet_metadata(path, key)
        try:
            value = json.loads(text) if text else {}
        except ValueError:
            value = {}
        if isinstance(value, dict) and value:
            return value
    return {}


def _is_ground(request: dict[str, Any]) -> bool:
    """Whether the segments are of ground photons, or of all photons without regard to ATL08's classes."""
    classes = request.get("atl08_class")
    if isinstance(classes, str) and classes.startswith("["):
        classes = ast.literal_eval(classes)
    names = [classes] if isinstance(classes, str) else list(classes or [])
    return all(str(n).lower() in GROUND or str(n) == "1" for n in names)


def _tracks(table: dict[str, NDArray[Any]], n: int, path: Path) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    keys = [k for k in ("rgt", "cycle", "gt") if k in table]
    if not keys:
        return np.zeros(n, np.int32), (path.name,)
    codes = np.zeros(n, np.int64)
    for key in keys:
        codes = codes * 100_000 + table[key].astype(np.int64)
    index, values = track_index(codes)
    first = [int(np.flatnonzero(index == i)[0]) for i in range(len(values))]
    return index, tuple(f"{path.name}/" + "-".join(f"{k}{int(table[k][i])}" for k in keys) for i in first)
