"""Columns of tables in parts: CSV, Parquet and GeoParquet, vector layers, LAS and LAZ. Never a whole file in memory."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from laspy.header import GpsTimeType
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from terrain3d.errors import ConfigError, InputFileError, MissingExtraError, Terrain3dError
from terrain3d.io.clouds import CHUNK, LAS_ERRORS, open_cloud
from terrain3d.io.vectors import PYOGRIO_ERRORS

Part = dict[str, NDArray[Any]]
X, Y, Z = "geometry.x", "geometry.y", "geometry.z"  # columns of the file's own points
POINTS = (X, Y, Z)
GPS_EPOCH = np.datetime64("1980-01-06", "ns")
LEAP_SECONDS = 18  # of UTC against GPS since 2017; a second is nothing to a date
ADJUSTED_S = 1e9  # LAS counts standard GPS time from there
PARQUET = (".parquet", ".geoparquet")
CLOUDS = (".las", ".laz")
TEXTS = (".csv", ".txt")
DELIMITERS = ",;\t|"
SPECIAL = "geometry"
GPS_TIME = "gps_time"
MULTIPOINT = 4  # of shapely.get_type_id


@dataclass(frozen=True)
class TableHead:
    """What a table says about itself.

    columns: names of its columns, in order. has_points: whether it has points of its own. crs: of these, or None.
    """

    columns: tuple[str, ...]
    has_points: bool
    crs: CRS | None


def read_head(path: Path, layer: str | None = None) -> TableHead:
    """Columns and CRS of a table; ``layer`` of a file of several.

    Raises InputFileError, ConfigError (which layer), MissingExtraError (Parquet without pyarrow).
    """
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        with _open_text(path) as file:
            return TableHead(tuple(_header(file, path)[0]), False, None)
    if suffix in PARQUET:
        with _parquet(path) as file:
            return _parquet_head(file)
    if suffix in CLOUDS:
        with open_cloud(path) as cloud:
            try:
                crs = cloud.header.parse_crs()
            except CRSError:
                crs = None
            return TableHead(tuple(cloud.header.point_format.dimension_names), True, crs)
    try:
        info = pyogrio.read_info(path, layer=_layer(path, layer))
    except PYOGRIO_ERRORS as error:
        raise _damaged(path, error) from error
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    return TableHead(tuple(map(str, info["fields"])), bool(info["geometry_type"]), crs)


def _layer(path: Path, wanted: str | None) -> str:
    """Name of the layer to read: the only one with geometries, unless one is named."""
    layers = [(str(name), kind) for name, kind in pyogrio.list_layers(path)]
    spatial = [name for name, kind in layers if kind is not None] or [name for name, _ in layers]
    if wanted is None and len(spatial) == 1:
        return spatial[0]
    if wanted is not None and wanted in (name for name, _ in layers):
        return wanted
    what = "has several layers" if wanted is None else f"has no layer '{wanted}'"
    raise ConfigError(f"table {what}", where=path, fix=f"give layer: one of {', '.join(spatial)[:300]}")


def read_parts(path: Path, names: Sequence[str], layer: str | None = None) -> Iterator[Part]:
    """The named columns, ``POINTS`` among them, some hundred thousand rows at a time; numbers as they are stored.

    Names may differ from those of the table by case and by space around them, where only one column fits.
    Raises ConfigError for a column that the table lacks, InputFileError, MissingExtraError.
    """
    head = read_head(path, layer)
    stored = {n: n if n in POINTS else _stored_name(head, n, path) for n in names}
    wanted = list(dict.fromkeys(stored.values()))
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        parts = _text_parts(path, wanted)
    elif suffix in PARQUET:
        parts = _parquet_parts(path, wanted)
    elif suffix in CLOUDS:
        parts = _cloud_parts(path, wanted)
    else:
        parts = _layer_parts(path, wanted, _layer(path, layer))
    for part in parts:
        yield {asked: part[name] for asked, name in stored.items()}


def _stored_name(head: TableHead, name: str, path: Path) -> str:
    if name in head.columns:
        return name
    alike = [c for c in head.columns if c.strip().casefold() == name.strip().casefold()]
    if len(alike) == 1:
        return alike[0]
    what = f"several columns '{name}'" if alike else f"no column '{name}'"
    raise ConfigError(f"table has {what}", where=path, fix=f"it has {', '.join(head.columns)[:300]}")


def _damaged(path: Path, error: Exception) -> InputFileError:
    detail = (str(error) or type(error).__name__).splitlines()[0][:120]
    return InputFileError(f"table cannot be read ({detail})", where=path, fix="copy the file again")


def _open_text(path: Path) -> Any:
    """A table of text, in UTF-8, in the UTF-16 of spreadsheets, or in the Windows code page of western Europe."""
    with path.open("rb") as file:
        start = file.read(2**16)
    encoding = "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        encoding = "cp1252"
    return path.open(encoding=encoding, errors="replace", newline="")


def _header(file: Any, path: Path) -> tuple[list[str], str | None]:
    """Names of the first line that says anything, and the delimiter; None for white space."""
    texts = (text.strip().lstrip("#").strip() for text in file)
    line = next((text for text in texts if text and not re.fullmatch("sep=.", text)), "")  # which spreadsheets write
    if not line or "\x00" in line:
        raise InputFileError("is not a table with a line of column names", where=path, fix="give it one")
    delimiter = max(DELIMITERS, key=line.count)
    if not line.count(delimiter):
        return line.split(), None
    return [n.strip() for n in next(csv.reader([line], delimiter=delimiter))], delimiter


def _text_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    with _open_text(path) as file:
        header, delimiter = _header(file, path)
        places = [header.index(n) for n in names]
        lines = csv.reader(file, delimiter=delimiter) if delimiter else (text.split() for text in file)
        rows = (row for row in lines if row)
        done = 1
        while part := list(islice(rows, CHUNK // 4)):
            try:
                picked = [[row[i] for i in places] for row in part]
            except IndexError:
                bad = next(i for i, row in enumerate(part) if len(row) <= max(places))
                raise InputFileError(f"row {done + bad} has too few columns", where=path, fix="mend it") from None
            done += len(part)
            yield dict(zip(names, np.array(picked, dtype=str).T, strict=True))


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError(
            "reading Parquet needs pyarrow", where=path, fix="pip install 'terrain3d[parquet]'"
        ) from error
    try:
        with ParquetFile(path) as file:
            yield file
    except Terrain3dError:  # some are OSErrors too
        raise
    except (ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, CRSError) as error:
        raise _damaged(path, error) from error  # the last ones of damaged metadata


def _geo(file: Any) -> dict[str, Any]:
    """GeoParquet's description of the primary geometry, with its name; empty for a plain table."""
    raw = (file.schema_arrow.metadata or {}).get(b"geo")
    if raw is None:
        return {}
    geo = json.loads(raw)
    name = geo.get("primary_column", SPECIAL)
    return {"name": name, **geo.get("columns", {}).get(name, {})}


def _parquet_head(file: Any) -> TableHead:
    geo = _geo(file)
    names = tuple(n for n in file.schema_arrow.names if n != geo.get("name"))
    if not geo:
        return TableHead(names, False, None)
    crs = geo.get("crs", "OGC:CRS84")  # the specification's default
    points = geo.get("encoding") in ("WKB", "point")
    return TableHead(names, points, None if crs is None else CRS.from_user_input(crs))


def parquet_metadata(path: Path, key: str) -> str:
    """A text of the file's metadata, else the first value of the column of that name; '' where there is neither."""
    with _parquet(path) as file:
        raw = (file.schema_arrow.metadata or {}).get(key.encode())
        if raw is not None:
            return str(raw.decode("utf-8", "replace"))
        if key in file.schema_arrow.names:
            for batch in file.iter_batches(batch_size=1, columns=[key]):
                return str(batch.column(0)[0].as_py() or "")
    return ""


def _parquet_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    with _parquet(path) as file:
        geo = _geo(file)
        geometry, plain = geo.get("name"), geo.get("encoding") == "point"
        wanted = [n for n in names if n not in POINTS]
        with_points = len(wanted) < len(names)
        columns = [*wanted, geometry] if with_points else wanted
        for batch in file.iter_batches(batch_size=CHUNK // 4, columns=columns):
            part = {n: batch.column(n).to_numpy(zero_copy_only=False) for n in wanted}
            if with_points:
                points = batch.column(geometry)
                part |= _of_struct(points) if plain else _of_wkb(points.to_numpy(zero_copy_only=False), path)
            yield part


def _of_struct(points: Any) -> Part:
    """Coordinates of GeoParquet's 'point' encoding: a structure of x, y and perhaps z."""
    stored = {str(field.name) for field in points.type}
    nothing = np.full(len(points), np.nan)
    axes = {key: key.rpartition(".")[2] for key in POINTS}
    return {
        key: points.field(axis).to_numpy(zero_copy_only=False) if axis in stored else nothing
        for key, axis in axes.items()
    }


def _cloud_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    with open_cloud(path) as cloud:
        try:
            dated = cloud.header.global_encoding.gps_time_type == GpsTimeType.STANDARD
            for points in cloud.chunk_iterator(CHUNK):
                scaled = points.x, points.y, points.z
                own = {n: c for ns in (POINTS, "XYZ", "xyz") for n, c in zip(ns, scaled, strict=True)}  # X is counts
                part = {n: np.asarray(own[n] if n in own else points[n]) for n in names}
                if dated and GPS_TIME in part:
                    part[GPS_TIME] = _utc(part[GPS_TIME])
                yield part
        except (*LAS_ERRORS, ValueError, EOFError) as error:
            raise _damaged(path, error) from error


def _utc(seconds: NDArray[Any]) -> NDArray[Any]:
    """Dates of standard GPS time less ``ADJUSTED_S`` (LAS 1.4 R15, table 4); NaT for what is no time."""
    since = np.asarray(seconds, float) + (ADJUSTED_S - LEAP_SECONDS)
    known = np.isfinite(since) & (np.abs(since) < 2 * ADJUSTED_S)
    nanoseconds = np.round(np.where(known, since, 0.0) * 1e9).astype("timedelta64[ns]")
    return np.where(known, GPS_EPOCH + nanoseconds, np.datetime64("NaT", "ns"))


def _layer_parts(path: Path, names: Sequence[str], layer: str) -> Iterator[Part]:
    wanted = [n for n in names if n not in POINTS]
    start = 0
    while True:
        try:
            meta, _, geometry, data = pyogrio.raw.read(
                path, layer=layer, columns=wanted, skip_features=start, max_features=CHUNK // 4,
                read_geometry=len(wanted) < len(names),
            )  # fmt: skip
        except (*PYOGRIO_ERRORS, ValueError) as error:
            if start and isinstance(error, ValueError):  # skipped past the last feature
                return
            raise _damaged(path, error) from error
        part = {str(n): values for n, values in zip(meta["fields"], data, strict=True)}
        if geometry is not None:
            part |= _of_wkb(geometry, path)
        n_rows = len(next(iter(part.values()))) if part else 0
        if n_rows:
            yield part
        if n_rows < CHUNK // 4:
            return
        start += n_rows


def _of_wkb(binary: NDArray[Any], path: Path) -> Part:
    """Coordinates of points, and of collections of one point; NaN for empty ones and missing heights."""
    shapes = shapely.from_wkb(binary)
    alone = (shapely.get_type_id(shapes) == MULTIPOINT) & (shapely.get_num_geometries(shapes) <= 1)
    shapes = np.where(alone, shapely.get_geometry(shapes, 0), shapes)
    kinds = shapely.get_type_id(shapes)
    if not np.isin(kinds, (-1, 0)).all():
        raise InputFileError("table has geometries that are not points", where=path, fix="give points")
    return {X: shapely.get_x(shapes), Y: shapely.get_y(shapes), Z: shapely.get_z(shapes)}
