"""Bare positions of points, in the units of their file: clouds (LAS, LAZ), point layers, and text with x, y, z."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from terrain3d.crs import Reference, metres_per_unit, parse_crs
from terrain3d.errors import InputFileError, Terrain3dError
from terrain3d.io.clouds import cloud_positions, cloud_reference, open_cloud, position_parts
from terrain3d.io.vectors import read_layer

TEXT_SUFFIXES = (".csv", ".txt", ".xyz")
AXES = (("x", "easting", "east"), ("y", "northing", "north"), ("z", "height", "elevation"))


@dataclass(frozen=True)
class Positions:
    """xyz: (N, 3) in the file's units. reference: None where the file states none. units: metres of one horizontal and
    one vertical unit. sigma: median of the points' own, NaN where the file states none."""

    xyz: NDArray[np.float64]
    reference: Reference | None
    units: tuple[float, float]
    sigma: float = float("nan")


@dataclass(frozen=True)
class CloudFile:
    """A LAS or LAZ file that is read in parts. count: points that it states, extent: of their x and y,
    least and largest, (2, 2). units: as of Positions."""

    path: Path
    reference: Reference
    units: tuple[float, float]
    count: int
    extent: NDArray[np.float64]

    def parts(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """Positions in the file's units and sigma of some points after the other, as ``clouds.position_parts``."""
        return position_parts(self.path)


def cloud_file(path: str | Path) -> CloudFile:
    """A LAS or LAZ file, or ``cloud.laz`` in the folder of a run, with the units its CRS declares.

    Raises InputFileError (missing, truncated, not LAS) and FrameError (no CRS).
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "cloud.laz").is_file():
            raise InputFileError("directory holds no cloud.laz", where=path, fix="give a run's directory or a LAS file")
        path = path / "cloud.laz"
    with open_cloud(path) as file:
        reference = cloud_reference(file.header, path)
        try:
            units = metres_per_unit(file.header.parse_crs())
        except CRSError:
            units = (1.0, 1.0)
        extent = np.stack([file.header.mins[:2], file.header.maxs[:2]])
        return CloudFile(path, reference, units, int(file.header.point_count), extent)


def read_cloud_positions(path: str | Path) -> Positions:
    """All points of a ``cloud_file``. Raises as that does."""
    file = cloud_file(path)
    xyz, sigma = cloud_positions(file.path)
    return Positions(xyz, file.reference, file.units, sigma)


def read_positions(path: str | Path) -> Positions:
    """Points of a cloud, of a layer of 3D points, or of a text file whose header names x, y and z.

    Raises InputFileError, FrameError.
    """
    path = Path(path)
    if path.suffix.lower() in (".las", ".laz"):
        return read_cloud_positions(path)
    if path.suffix.lower() in TEXT_SUFFIXES:
        return Positions(_text(path), None, (1.0, 1.0))
    layer = read_layer(path)
    xyz = shapely.get_coordinates(layer.geometries, include_z=True)
    if not len(xyz) or len(xyz) != len(layer.geometries) or not np.isfinite(xyz).all():
        raise InputFileError("is no layer of points with heights", where=path)
    return Positions(xyz, Reference(layer.crs), metres_per_unit(parse_crs(layer.crs)))


def _text(path: Path) -> NDArray[np.float64]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            sample = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=next((d for d in ",;\t" if d in sample), " "), skipinitialspace=True)
            header = [name.strip().lower() for name in next(rows, [])]
            which = [next((header.index(n) for n in names if n in header), -1) for names in AXES]
            if -1 in which:
                raise InputFileError("header names no x, y and z", where=path, fix="name the columns x, y, z")
            xyz = [[float(row[k]) for k in which] for row in rows if row]
    except Terrain3dError:
        raise
    except OSError as error:
        raise InputFileError("cannot be read", where=path) from error
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputFileError(f"is no table of numbers ({error})", where=path) from error
    if not xyz:
        raise InputFileError("holds no points", where=path)
    return np.array(xyz)
