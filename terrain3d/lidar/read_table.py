"""Tables of ground heights to ground returns: an altimeter that has no reader of its own, or GNSS check points.

The configuration names the columns and says what the file does not: CRS, vertical reference, footprint and sigma.
Nothing of that is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from terrain3d.config import LidarFormat, TableColumns
from terrain3d.crs import ELLIPSOID, Vertical, metres_per_unit, parse_crs, vertical_from_name, vertical_of_crs
from terrain3d.errors import ConfigError, FrameError, InputFileError
from terrain3d.io.geoid import convert_heights
from terrain3d.lidar.frames import UNSTATED, Frame, frame_of_crs, longitude_latitude
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, Granule, granule_of, inside_bounds
from terrain3d.lidar.read_columns import TableHead, X, Y, Z, read_head, read_parts
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

SDP_EPOCH = np.datetime64("2018-01-01", "ns")
LON, LAT = "longitude in degrees", "latitude in degrees"  # beside the table's own columns
HIGHEST = 1e5  # metres; fill values are larger
OPTIONAL = ("sigma", "footprint", "canopy", "track", "time", "horizontal_sigma")
NOT_WANTED = "not among the rows to keep"
NO_TRACK = "no track"  # of rows that have none


def read_table(path: Path, bounds: Bounds | None, rules: RuleSet, form: LidarFormat) -> Granule:
    """Ground returns of one table, ellipsoidal heights; a track for each value of the track column, else one.

    Raises ConfigError (columns, footprint or sigma missing), FrameError (CRS or vertical reference missing or without
    an operation), InputFileError, MissingExtraError (Parquet).
    """
    head = read_head(path, form.layer)
    columns = form.columns or TableColumns()
    x, y, z = (_place(head, getattr(columns, n), own, n, path) for n, own in (("x", X), ("y", Y), ("height", Z)))
    crs, vertical, height_unit = _references(head, form, path)
    _check_stated(form, columns, path)
    optional = [getattr(columns, n) for n in OPTIONAL]
    names = list(dict.fromkeys([x, y, z, *(n for n in optional if n), *form.only]))
    parts, n_read, n_wanted, distance = [], 0, 0, float("nan")
    for part in read_parts(path, names, form.layer):
        n_read += len(part[x])
        wanted = _wanted(part, form)
        n_wanted += int(wanted.sum())
        east, north = (numbers(part[n][wanted], n, path, form.decimal) for n in (x, y))
        lon, lat = longitude_latitude(crs, east, north)
        inside, away = inside_bounds(lon, lat, bounds)
        distance = float(np.fmin(distance, away))
        kept = {n: v[wanted][inside] for n, v in part.items()}
        parts.append(kept | {LON: lon[inside], LAT: lat[inside]})
    table = join_parts(parts, [*names, LON, LAT])
    lon, lat = table[LON], table[LAT]
    height = numbers(table[z], z, path, form.decimal) * height_unit
    height = np.where(np.abs(height) < HIGHEST, height, np.nan)
    height = convert_heights(lon, lat, height, vertical, ELLIPSOID)

    def column(name: str | None, otherwise: float | None) -> Floats:
        if name is None:
            return np.full(len(height), np.nan if otherwise is None else otherwise)
        return numbers(table[name], name, path, form.decimal)

    sigma, size = column(columns.sigma, form.sigma), column(columns.footprint, form.footprint)
    sieve = Sieve(len(height))
    if form.only:
        sieve.counts.append((NOT_WANTED, n_read - n_wanted))
    sieve.counts.append((OUTSIDE, n_wanted - len(height)))
    sieve.keep(NO_HEIGHT, np.isfinite(height))
    sieve.keep("no sigma or footprint", (sigma > 0) & (size > 0))
    own = column(columns.horizontal_sigma, form.horizontal_sigma)
    sieve.limit("height sigma", sigma, high=rules.max_height_sigma)
    index, values = track_index(table[columns.track]) if columns.track else (np.zeros(len(height), np.int32), [""])
    tracks = tuple(f"{path.name}/{v}".rstrip("/") for v in values) or (path.name,)
    time = np.arange(len(height), dtype=float)
    dated = False
    if columns.time:
        dated = form.time_origin is not None or has_dates(table[columns.time])
        time = _times(table[columns.time], columns.time, form, path)
    returns = LidarReturns(
        lon, lat, height, sigma, size, size, column(columns.canopy, None), time, index, tracks,
        (form.product,) * len(tracks), np.where(own > 0, own, np.nan),
    )  # fmt: skip
    name = form.frame or frame_of_crs(crs)
    epoch = form.epoch if form.epoch is not None or dated else float("nan")
    frame = Frame(name or UNSTATED, epoch, tides="as the table has it", stated=name is not None)
    beam = Beam(returns.select(sieve.kept), n_read, tuple(sieve.counts), distance)
    return granule_of([beam], form.product, frame)


def _times(values: NDArray[Any], name: str, form: LidarFormat, path: Path) -> Floats:
    """Seconds since 2018-01-01 of dates, and of numbers where it is stated what they count from."""
    if form.time_origin is None or has_dates(values):
        return seconds(values, path)
    origin = (np.datetime64(form.time_origin.replace(tzinfo=None), "ns") - SDP_EPOCH) / np.timedelta64(1, "s")
    return numbers(values, name, path, form.decimal) + float(origin)


def _place(head: TableHead, name: str | None, own: str, key: str, path: Path) -> str:
    if name is None and not head.has_points:
        raise ConfigError(f"columns.{key} is missing", where=path, fix=f"the table has {', '.join(head.columns)[:300]}")
    return name or own


def _check_stated(form: LidarFormat, columns: TableColumns, path: Path) -> None:
    for key, what in (("footprint", "diameter, metres"), ("sigma", "of the height, metres")):
        if getattr(columns, key) is None and getattr(form, key) is None:
            raise ConfigError(f"table without {key}", where=path, fix=f"give {key}: ({what}) or columns.{key}")


def _references(head: TableHead, form: LidarFormat, path: Path) -> tuple[CRS, Vertical, float]:
    """Horizontal CRS, vertical reference, metres of a unit of height: as the configuration says, else the file."""
    if form.crs is None and head.crs is None:
        raise FrameError("table has no CRS", where=path, fix="give its crs, such as EPSG:4326")
    if form.crs is not None:
        parse_crs(form.crs)  # one clear error for an unknown one
    declared = CRS.from_user_input(form.crs if form.crs is not None else head.crs)
    said = vertical_of_crs(declared)
    name = form.vertical or said
    if said and form.vertical and (said == "ellipsoid") != (form.vertical == "ellipsoid"):
        raise FrameError(f"its CRS says heights over {said}, vertical says {form.vertical}", where=path,
                         fix="leave vertical out, or name the horizontal CRS alone as crs")  # fmt: skip
    if name is None:
        raise FrameError("table states no vertical reference", where=path,
                         fix="give vertical: ellipsoid, egm96 or the path of a geoid grid")  # fmt: skip
    return parse_crs(declared.to_wkt()), vertical_from_name(name), metres_per_unit(declared)[1]


def _wanted(part: Columns, form: LidarFormat) -> NDArray[np.bool_]:
    """Rows whose columns have one of the values to keep, compared as numbers where they are numbers."""
    wanted = np.ones(len(next(iter(part.values()))), bool)
    for name, value in form.only.items():
        values = value if isinstance(value, list) else [value]
        column = part[name]
        if column.dtype.kind in "US":
            wanted &= np.array([any(_alike(text.strip(), v) for v in values) for text in column.tolist()], bool)
        else:
            wanted &= np.isin(column.astype(object), values) if column.dtype.kind == "O" else np.isin(column, values)
    return wanted


def _alike(text: str, value: Any) -> bool:
    """Whether a text of a table is a value of the configuration: 2.0 is 2, and TRUE is true."""
    if isinstance(value, bool):
        return text.casefold() == str(value).casefold()
    if isinstance(value, int | float) and _is_number(text):
        return float(text) == value
    return text == str(value)


def join_parts(parts: list[Columns], names: Sequence[str]) -> Columns:
    """Columns of all parts; columns without rows if there is no part."""
    return {n: np.concatenate([p[n] for p in parts]) if parts else np.zeros(0) for n in names}


def numbers(values: NDArray[Any], name: str, path: Path, decimal: str = ".") -> Floats:
    """A column as float64; what is empty is NaN. Raises InputFileError for words, and for another decimal mark."""
    if values.dtype.kind in "USO":
        text = np.array(["nan" if v is None or str(v).strip() == "" else str(v) for v in values], dtype=str)
        if decimal != ".":
            text = np.where(np.char.find(text, ".") < 0, np.char.replace(text, decimal, "."), text + "?")
        try:
            return text.astype(float)
        except ValueError as error:
            bad = str(values[next(i for i, v in enumerate(text) if not _is_number(v))])
            fix = "decimals have a comma: give decimal: ','" if decimal == "." and "," in bad else "name another column"
            raise InputFileError(f"column '{name}' has a value that is no number: '{bad[:40]}'", where=path,
                                 fix=fix) from error  # fmt: skip
    return np.asarray(values, float)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def has_dates(values: NDArray[Any]) -> bool:
    """Whether a column of times holds dates, not numbers (which only order the returns of a track)."""
    if values.dtype.kind in "iufM":
        return values.dtype.kind == "M"
    first = next((str(v).strip() for v in values if str(v).strip()), "0")
    return not _is_number(first)


def seconds(values: NDArray[Any], path: Path) -> Floats:
    """Seconds since 2018-01-01 of dates (ISO 8601 text in UTC, or timestamps); numbers stay as they are."""
    if values.dtype.kind != "M":
        if not has_dates(values):
            return np.asarray(values, float)
        texts = [str(v).strip().removesuffix("Z").removesuffix("+00:00") for v in values]
        try:
            values = np.array(texts, "datetime64[ns]")
        except ValueError as error:
            raise InputFileError(f"column of times has a value that is no time ({str(error)[-60:]})", where=path,
                                 fix="use ISO 8601, such as 2024-05-01T10:00:00Z") from error  # fmt: skip
    return np.asarray((values.astype("datetime64[ns]") - SDP_EPOCH) / np.timedelta64(1, "s"), float)


def track_index(values: NDArray[Any]) -> tuple[NDArray[np.int32], list[str]]:
    """Index of each row's track, and the tracks' names in order: whole numbers also where some are missing and so all
    were read as real ones."""
    names, index = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    return index.reshape(-1).astype(np.int32), [_track_name(n) for n in names.tolist()]


def _track_name(value: Any) -> str:
    if value == "None" or (isinstance(value, float) and not np.isfinite(value)):
        return NO_TRACK
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
