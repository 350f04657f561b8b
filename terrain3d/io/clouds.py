"""Point clouds in LAZ files (LAS 1.4, point format 6), written and read in parts so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from functools import lru_cache
from itertools import chain
from pathlib import Path

import laspy
import numpy as np
from laspy.errors import LaspyException
from laspy.vlrs.known import WktCoordinateSystemVlr
from lazrs import LazrsError
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from terrain3d.crs import Reference
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.atomic import atomic_path, output_error
from terrain3d.io.las_check import check_las
from terrain3d.io.rasters import ellipsoid_compound, reference_from_crs
from terrain3d.points import PointCloud

SCALE = 0.001  # metres a count
SIGMA_SCALE = 0.001  # a count of uint16: up to 65.535 m
CONFIDENCE_SCALE = 0.004  # a count of uint8: 250 is 1
CHUNK = 1_000_000
LAS_ERRORS = (LaspyException, LazrsError)


def write_cloud(path: str | Path, cloud: PointCloud | Iterable[PointCloud], created: date | None = None) -> int:
    """Write a cloud, or the parts of one as they come, to a LAZ file (``.las``: uncompressed); number of points.

    Coordinates to 1 mm. ``pair`` is the point source ID, ``sigma`` and ``confidence`` are scaled extra bytes (1 mm up
    to 65.5 m, which also stands for NaN; 0.004). The CRS is OGC WKT 1, as LAS 1.4 asks, with the vertical part.
    created: day in the header, today by default. All parts have the reference of the first. Atomic. Raises OutputError,
    ValueError if there is no part at all.
    """
    path = Path(path)
    parts = iter([cloud] if isinstance(cloud, PointCloud) else cloud)
    first = next(parts, None)
    if first is None:
        raise ValueError("no part of a cloud was given, so its reference is unknown")
    header = _header(first)
    header.creation_date = created
    total = 0
    with atomic_path(path) as temporary:
        try:
            compress = path.suffix.lower() != ".las"
            with laspy.open(temporary, mode="w", header=header, do_compress=compress) as file:
                for part in chain([first], parts):
                    if part.reference != first.reference:
                        raise ValueError(f"parts differ in reference: {part.reference} and {first.reference}")
                    for start in range(0, len(part), CHUNK):
                        some = part if len(part) <= CHUNK else part.select(_span(start, len(part)))
                        file.write_points(_records(some, header))
                    total += len(part)
        except LAS_ERRORS as error:
            raise output_error(path, error) from error
    return total


def _span(start: int, size: int) -> NDArray[np.int64]:
    return np.arange(start, min(start + CHUNK, size))


def _header(cloud: PointCloud) -> laspy.LasHeader:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.generating_software = "terrain3d"
    header.scales = np.full(3, SCALE)
    header.offsets = np.floor(cloud.xyz.mean(axis=0)) if len(cloud) else np.zeros(3)
    header.add_extra_dims(
        [
            laspy.ExtraBytesParams("sigma", "uint16", "1-sigma of the height, m", [0.0], [SIGMA_SCALE]),
            laspy.ExtraBytesParams("confidence", "uint8", "of the match, 0 to 1", [0.0], [CONFIDENCE_SCALE]),
        ]
    )
    header.vlrs.append(WktCoordinateSystemVlr(cloud_wkt(cloud.reference)))
    header.global_encoding.wkt = True
    return header


@lru_cache(maxsize=16)
def cloud_wkt(reference: Reference) -> str:
    """OGC WKT 1 of a reference. Ellipsoidal heights have the vertical datum type 2002, which PROJ reads as 3D."""
    if not reference.vertical.is_ellipsoid:
        return reference.compound().to_wkt("WKT1_GDAL")
    wkt: str = ellipsoid_compound(reference.crs).to_wkt("WKT1_GDAL")
    return wkt.replace('VERT_DATUM["Ellipsoid",2005]', 'VERT_DATUM["Ellipsoid",2002]')


def _records(cloud: PointCloud, header: laspy.LasHeader) -> laspy.ScaleAwarePointRecord:
    points = laspy.ScaleAwarePointRecord.zeros(len(cloud), header=header)
    counts = np.rint((cloud.xyz - header.offsets) / header.scales)
    points.X, points.Y, points.Z = (counts[:, i].astype(np.int32) for i in range(3))
    points.intensity, points.point_source_id = cloud.intensity, cloud.pair
    points.return_number = points.number_of_returns = np.ones(len(cloud), np.uint8)
    points.array["sigma"] = _counts(cloud.sigma, SIGMA_SCALE, 65535)
    points.array["confidence"] = _counts(cloud.confidence, CONFIDENCE_SCALE, 250)
    return points


def _counts(values: NDArray[np.float32], scale: float, top: int) -> NDArray[np.float64]:
    return np.clip(np.rint(np.nan_to_num(values.astype(float), nan=top * scale) / scale), 0, top)


def read_cloud(path: str | Path) -> PointCloud:
    """Whole cloud of a LAS or LAZ file. Raises as ``read_cloud_parts`` does."""
    parts = list(read_cloud_parts(path))
    if len(parts) == 1:
        return parts[0]
    names = ("xyz", "sigma", "confidence", "pair", "intensity")
    return PointCloud(parts[0].reference, *(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def read_cloud_parts(path: str | Path, size: int = CHUNK) -> Iterator[PointCloud]:
    """Parts of at most ``size`` points; at least one, perhaps empty. sigma and confidence NaN if the file has none.

    Raises InputFileError (missing, truncated, not LAS) and FrameError (no CRS in the file).
    """
    path = Path(path)
    with open_cloud(path) as file:
        reference = cloud_reference(file.header, path)
        some = False
        try:
            for points in file.chunk_iterator(size):
                some = True
                yield _cloud(points, reference)
        except (*LAS_ERRORS, ValueError, EOFError) as error:
            raise damaged(path, error) from error
        if not some:
            yield _cloud(laspy.ScaleAwarePointRecord.zeros(0, header=file.header), reference)


def position_parts(path: Path) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Coordinates (N, 3) as the file has them and sigma (N,), or (0,) if it has none, of some points after the other.

    Raises InputFileError (truncated, damaged).
    """
    with open_cloud(path) as file:
        stated = "sigma" in file.header.point_format.dimension_names
        try:
            for points in file.chunk_iterator(CHUNK):
                sigma = np.asarray(points["sigma"], np.float32) if stated else np.zeros(0, np.float32)
                yield np.column_stack([points.x, points.y, points.z]).astype(float), sigma
        except (*LAS_ERRORS, ValueError, EOFError) as error:
            raise damaged(path, error) from error


def cloud_positions(path: Path) -> tuple[NDArray[np.float64], float]:
    """Coordinates of all points (N, 3) as the file has them, and the median of their sigma, NaN if it has none.

    Raises InputFileError (truncated, damaged).
    """
    parts = [(np.zeros((0, 3)), np.zeros(0, np.float32)), *position_parts(path)]
    every = np.concatenate([sigma for _, sigma in parts])
    return np.concatenate([xyz for xyz, _ in parts]), float(np.median(every)) if every.size else float("nan")


def open_cloud(path: str | Path) -> laspy.LasReader:
    """Reader of laspy. Raises InputFileError if the file is missing, truncated or not LAS."""
    path = Path(path)
    if not path.is_file():
        raise InputFileError("no such file", where=path)
    check_las(path)
    try:
        file = laspy.open(path)
    except (*LAS_ERRORS, ValueError, EOFError, OSError) as error:
        raise damaged(path, error) from error
    if path.stat().st_size < file.header.offset_to_point_data:  # laspy takes half a variable-length record for a whole
        file.close()
        raise damaged(path, EOFError("the file ends within its header"))
    return file


def cloud_reference(header: laspy.LasHeader, path: Path) -> Reference:
    """Reference that the file declares. Raises FrameError if it declares none."""
    try:
        crs = header.parse_crs()
    except CRSError:
        crs = None
    if crs is None:
        raise FrameError(
            "point cloud has no CRS", where=path, fix="declare it, e.g. pdal translate --writers.las.a_srs"
        )
    return reference_from_crs(crs)


def damaged(path: Path, error: Exception) -> InputFileError:
    detail = (str(error) or type(error).__name__).splitlines()[0][:120]
    return InputFileError(f"is truncated, damaged or not LAS/LAZ ({detail})", where=path, fix="copy the file again")


def _cloud(points: laspy.ScaleAwarePointRecord, reference: Reference) -> PointCloud:
    names = set(points.point_format.dimension_names)

    def extra(name: str) -> NDArray[np.float32]:
        return np.asarray(points[name], np.float32) if name in names else np.full(len(points), np.nan, np.float32)

    return PointCloud(
        reference,
        np.column_stack([points.x, points.y, points.z]).astype(float),
        extra("sigma"),
        extra("confidence"),
        np.minimum(np.asarray(points.point_source_id), 255).astype(np.uint8),
        np.asarray(points.intensity, np.uint16),
    )
