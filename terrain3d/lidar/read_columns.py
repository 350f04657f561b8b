"""Columns of tables in parts: CSV, Parquet and GeoParquet, vector layers, LAS and LAZ. Never a whole file in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from terrain3d.errors import ConfigError, InputFileError, MissingExtraError, Terrain3dError
from terrain3d.io.clouds import CHUNK, LAS_ERRORS, open_cloud
from terrain3d.io.vectors import PYOGRIO_ERRORS

Part = dict[str, NDArray[Any]]
X, Y, Z = "geometry.x", "geometry.y", "geometry.z"  # columns of the file's own points
POINTS = (X, Y, Z)
PARQUET = (".parquet", ".geoparquet")
CLOUDS = (".las", ".laz")
TEXTS = (".csv", ".txt")
DELIMITERS = ",;\t|"
SPECIAL = "geometry"


@dataclass(frozen=True)
class TableHead:
    """What a table says about itself.

    columns: names of its columns, in order. has_points: whether it has points of its own. crs: of these, or None.
    """

    columns: tuple[str, ...]
    has_points: bool
    crs: CRS | None


def read_head(path: Path) -> TableHead:
    """Columns and CRS of a table. Raises InputFileError, MissingExtraError (Parquet without pyarrow)."""
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
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
        info = pyogrio.read_info(path)
    except PYOGRIO_ERRORS as error:
        raise _damaged(path, error) from error
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    return TableHead(tuple(map(str, info["fields"])), bool(info["geometry_type"]), crs)


def read_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    """The named columns, ``POINTS`` among them, some hundred thousand rows at a time; numbers as they are stored.

    Raises ConfigError for a column that the table lacks, InputFileError, MissingExtraError.
    """
    head = read_head(path)
    lacking = [n for n in names if n not in head.columns and n not in POINTS]
    if lacking:
        raise ConfigError(
            f"table has no column '{lacking[0]}'", where=path, fix=f"it has {', '.join(head.columns)[:300]}"
        )
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        yield from _text_parts(path, names)
    elif suffix in PARQUET:
        yield from _parquet_parts(path, names)
    elif suffix in CLOUDS:
        yield from _cloud_parts(path, names)
    else:
        yield from _layer_parts(path, names)


def _damaged(path: Path, error: Exception) -> InputFileError:
    detail = (str(error) or type(error).__name__).splitlines()[0][:120]
    return InputFileError(f"table cannot be read ({detail})", where=path, fix="copy the file again")


def _header(file: Any, path: Path) -> tuple[list[str], str | None]:
    """Names of the first line that is no comment, and the delimiter; None for white space."""
    line = next((text for text in file if text.strip().lstrip("#").strip()), "").strip().lstrip("#").strip()
    if not line or "\x00" in line:
        raise InputFileError("is not a table with a line of column names", where=path, fix="give it one")
    delimiter = max(DELIMITERS, key=line.count)
    if not line.count(delimiter):
        return line.split(), None
    return [n.strip() for n in next(csv.reader([line], delimiter=delimiter))], delimiter


def _text_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
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
    except (ArrowException, OSError) as error:
        raise _damaged(path, error) from error


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
    return TableHead(names, geo.get("encoding") == "WKB", None if crs is None else CRS.from_user_input(crs))


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
        geometry = _geo(file).get("name")
        wanted = [n for n in names if n not in POINTS]
        with_points = len(wanted) < len(names)
        columns = [*wanted, geometry] if with_points else wanted
        for batch in file.iter_batches(batch_size=CHUNK // 4, columns=columns):
            part = {n: batch.column(n).to_numpy(zero_copy_only=False) for n in wanted}
            if with_points:
                part |= _coordinates(shapely.from_wkb(batch.column(geometry).to_numpy(zero_copy_only=False)), path)
            yield part


def _cloud_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    with open_cloud(path) as cloud:
        try:
            for points in cloud.chunk_iterator(CHUNK):
                own = dict(zip(POINTS, (points.x, points.y, points.z), strict=True))
                yield {n: np.asarray(own[n] if n in POINTS else points[n]) for n in names}
        except (*LAS_ERRORS, ValueError, EOFError) as error:
            raise _damaged(path, error) from error


def _layer_parts(path: Path, names: Sequence[str]) -> Iterator[Part]:
    wanted = [n for n in names if n not in POINTS]
    start = 0
    while True:
        try:
            meta, _, geometry, data = pyogrio.raw.read(
                path, columns=wanted, skip_features=start, max_features=CHUNK // 4,
                read_geometry=len(wanted) < len(names),
            )  # fmt: skip
        except (*PYOGRIO_ERRORS, ValueError) as error:
            if start and isinstance(error, ValueError):  # skipped past the last feature
                return
            raise _damaged(path, error) from error
        part = {str(n): values for n, values in zip(meta["fields"], data, strict=True)}
        if geometry is not None:
            part |= _coordinates(shapely.from_wkb(geometry), path)
        n_rows = len(next(iter(part.values()))) if part else 0
        if n_rows:
            yield part
        if n_rows < CHUNK // 4:
            return
        start += n_rows


def _coordinates(shapes: NDArray[Any], path: Path) -> Part:
    """Coordinates of points; NaN for empty ones and missing heights."""
    kinds = shapely.get_type_id(shapes)
    if not np.isin(kinds, (-1, 0)).all():
        raise InputFileError("table has geometries that are not points", where=path, fix="give points")
    return {X: shapely.get_x(shapes), Y: shapely.get_y(shapes), Z: shapely.get_z(shapes)}
