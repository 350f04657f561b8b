"""Point clouds of any origin, read in parts in metres: LAS and LAZ, and text tables of x, y, z; and their classes back.

A cloud says in which units its coordinates are; lengths are metres here, heights too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import laspy
import numpy as np
from laspy.vlrs.known import WktCoordinateSystemVlr
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from terrain3d.crs import UNDECLARED, Reference, metres_per_unit, parse_crs, vertical_from_name
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.atomic import atomic_path, output_error
from terrain3d.io.clouds import CHUNK, LAS_ERRORS, damaged, open_cloud
from terrain3d.io.rasters import reference_from_crs

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

GROUND, OTHER, NOISE = 2, 1, (7, 18)  # ASPRS
LAS_SUFFIXES = (".las", ".laz")
_LINES = 500_000


@dataclass(frozen=True)
class CloudPart:
    """Points of a cloud. xyz: (N, 3) metres; first: (N,) first returns; noise: (N,) classified as such; ground: (N,)
    of class ground; sigma: (N,) metres, NaN where the file has none."""

    xyz: Floats
    first: Bools
    noise: Bools
    ground: Bools
    sigma: Floats


@dataclass(frozen=True)
class CloudFile:
    """A cloud in a file. reference: of its points once they are in metres, None where nothing states it. units: metres
    of one horizontal and one vertical unit of the file. given: CRS that was named for it."""

    path: Path
    reference: Reference | None
    units: tuple[float, float]
    given: str | None

    @property
    def is_text(self) -> bool:
        return self.path.suffix.lower() not in LAS_SUFFIXES

    def parts(self) -> Iterator[CloudPart]:
        """All points in their order. Raises InputFileError (truncated, damaged, no numbers)."""
        return self._text_parts() if self.is_text else self._las_parts()

    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres. Raises InputFileError if there are no points."""
        lows, highs = [], []
        if self.is_text:
            for part in self.parts():
                lows.append(part.xyz[:, :2].min(axis=0))
                highs.append(part.xyz[:, :2].max(axis=0))
        else:
            with open_cloud(self.path) as file:
                if file.header.point_count:
                    lows.append(np.asarray(file.header.mins[:2]) * self.units[0])
                    highs.append(np.asarray(file.header.maxs[:2]) * self.units[0])
        if not lows:
            raise InputFileError("holds no points", where=self.path)
        (west, south), (east, north) = np.min(lows, axis=0), np.max(highs, axis=0)
        if not np.isfinite([west, south, east, north]).all():
            raise InputFileError("has coordinates that are no numbers", where=self.path)
        return float(west), float(south), float(east), float(north)

    def _scaled(self, xyz: Floats) -> Floats:
        return xyz * np.array([self.units[0], self.units[0], self.units[1]])

    def _las_parts(self) -> Iterator[CloudPart]:
        with open_cloud(self.path) as file:
            names = set(file.header.point_format.dimension_names)
            try:
                for points in file.chunk_iterator(CHUNK):
                    kinds = np.asarray(points.classification)
                    noise = np.isin(kinds, NOISE)
                    if "withheld" in names:
                        noise |= np.asarray(points.withheld).astype(bool)
                    yield CloudPart(
                        self._scaled(np.column_stack([points.x, points.y, points.z]).astype(float)),
                        np.asarray(points.return_number) <= 1,
                        noise,
                        kinds == GROUND,
                        np.asarray(points["sigma"], float) if "sigma" in names else np.full(len(points), np.nan),
                    )
            except (*LAS_ERRORS, ValueError, EOFError) as error:
                raise damaged(self.path, error) from error

    def _text_parts(self) -> Iterator[CloudPart]:
        for _, table in _tables(self.path):
            n = len(table)
            yield CloudPart(
                self._scaled(table[:, :3]), np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool), np.full(n, np.nan)
            )


def open_cloud_file(path: Path, crs: str | None, vertical: str | None, *, need_crs: bool = True) -> CloudFile:
    """A cloud with its CRS: the one that its file declares, or ``crs`` where it declares none.

    vertical: reference of the heights where the file states none. need_crs: without it a text table, which has no CRS
    record, is taken to be in metres. Raises InputFileError and FrameError: no CRS, or not the one that is given, or
    not projected.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError("no such file", where=path)
    named = None if crs is None else _parsed(crs)
    heights = None if vertical is None else vertical_from_name(vertical)
    text = path.suffix.lower() not in LAS_SUFFIXES
    own = None
    if text:
        next(_tables(path, 1))
    else:
        with open_cloud(path) as file:
            try:
                own = file.header.parse_crs()
            except CRSError:
                own = None
    if own is not None and named is not None and not parse_crs(own.to_wkt()).equals(parse_crs(crs or "")):
        raise FrameError(f"cloud declares '{own.name}', not {crs}", where=path, fix="leave --crs out")
    whole = own if own is not None else named
    if whole is None:
        if text and not need_crs:
            return CloudFile(path, None, (1.0, 1.0), None)
        raise FrameError("point cloud has no CRS", where=path, fix="name it, e.g. --crs EPSG:32631")
    reference = reference_from_crs(whole)
    if not reference.crs.is_projected:
        raise FrameError(f"CRS '{whole.name}' is not projected", where=path, fix="reproject the cloud, e.g. to UTM")
    declared = reference.vertical if reference.vertical.is_declared else heights or UNDECLARED
    return CloudFile(
        path, Reference(reference.horizontal, declared), metres_per_unit(whole), crs if own is None else None
    )


def _parsed(crs: str) -> CRS:
    parse_crs(crs)
    return CRS.from_user_input(crs)


def _tables(path: Path, lines: int = _LINES) -> Iterator[tuple[list[str], Floats]]:
    """Lines of a text table and their numbers, (N, 3 or more), in parts; a first line of names is left out."""
    try:
        with path.open(encoding="utf-8") as file:
            first = True
            while rows := [line for line in islice(file, lines) if line.strip() and not line.startswith("#")]:
                if first and not _is_numbers(rows[0]):
                    rows = rows[1:]
                first = False
                if not rows:
                    continue
                comma = "," if "," in rows[0] else ";" if ";" in rows[0] else None
                table = np.loadtxt(rows, delimiter=comma, ndmin=2)
                if table.shape[1] < 3:
                    raise ValueError("fewer than three columns")
                yield [line.rstrip("\n") for line in rows], table
    except (ValueError, UnicodeDecodeError) as error:
        detail = str(error).splitlines()[0][:100]
        raise InputFileError(f"is no cloud and no table of x, y, z ({detail})", where=path) from error
    except OSError as error:
        raise InputFileError("cannot be read", where=path) from error


def _is_numbers(line: str) -> bool:
    try:
        [float(word) for word in line.replace(",", " ").replace(";", " ").split()]
    except ValueError:
        return False
    return True


def write_classified(file: CloudFile, out: Path, is_ground: Callable[[Floats], Bools]) -> tuple[int, int]:
    """Copy of a cloud whose points are of class 2 (ground) or 1; noise keeps its class. Text gets the class as its last
    column. Number of points, and of those on the ground. Atomic. Raises OutputError."""
    return _write_text(file, out, is_ground) if file.is_text else _write_las(file, out, is_ground)


def _write_las(file: CloudFile, out: Path, is_ground: Callable[[Floats], Bools]) -> tuple[int, int]:
    total = found = 0
    with open_cloud(file.path) as source, atomic_path(out) as part:
        header = copy.deepcopy(source.header)
        header.vlrs[:] = [v for v in header.vlrs if v.user_id != "copc"]
        if file.given is not None and file.reference is not None:
            header.vlrs.append(WktCoordinateSystemVlr(_parsed(file.given).to_wkt("WKT1_GDAL")))
            header.global_encoding.wkt = True
        try:
            compress = out.suffix.lower() != ".las"
            with laspy.open(part, mode="w", header=header, do_compress=compress) as target:
                for points in source.chunk_iterator(CHUNK):
                    xyz = np.column_stack([points.x, points.y, points.z]).astype(float)
                    ground = is_ground(file._scaled(xyz))
                    kinds = np.asarray(points.classification)
                    noise = np.isin(kinds, NOISE)
                    points.classification = np.where(noise, kinds, np.where(ground, GROUND, OTHER)).astype(np.uint8)
                    target.write_points(points)
                    total, found = total + len(points), found + int((ground & ~noise).sum())
        except LAS_ERRORS as error:
            raise output_error(out, error) from error
        except (ValueError, EOFError) as error:
            raise damaged(file.path, error) from error
    return total, found


def _write_text(file: CloudFile, out: Path, is_ground: Callable[[Floats], Bools]) -> tuple[int, int]:
    total = found = 0
    with atomic_path(out) as part, part.open("w", encoding="utf-8") as target:
        for lines, table in _tables(file.path):
            ground = is_ground(file._scaled(table[:, :3]))
            gap = "," if "," in lines[0] else ";" if ";" in lines[0] else "\t" if "\t" in lines[0] else " "
            kinds = np.where(ground, GROUND, OTHER)
            target.writelines(f"{line}{gap}{kind}\n" for line, kind in zip(lines, kinds, strict=True))
            total, found = total + len(lines), found + int(ground.sum())
    return total, found
