"""What a reader hands over, and the few HDF5 helpers that the readers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.frames import Frame
from terrain3d.lidar.rules import add_counts
from terrain3d.points import LidarReturns, join_returns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bounds = tuple[float, float, float, float]

OUTSIDE = "outside the area"
NO_HEIGHT = "no ground height"
FILL_LIMIT = 1e30  # ATL08's fill value is the largest float32, 3.4028235e38
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class Granule:
    """Ground returns of one file after windowing and quality rules.

    product: 'ATL08', 'GEDI_L2A', ... or what the configuration calls a table.
    frame: terrestrial frame that the positions refer to.
    n_read: returns in the file, inside the area or not.
    rejected: number of returns by the rule that rejected them first, in the order of asking.
    distance: metres from the area to the nearest return of the file, 0 if one lies inside; NaN without returns.
    """

    returns: LidarReturns
    product: str
    frame: Frame
    n_read: int
    rejected: tuple[tuple[str, int], ...]
    distance: float


@dataclass(frozen=True)
class Beam:
    """Returns of one beam, with counts; what the readers of products build before they are joined."""

    returns: LidarReturns
    n_read: int
    rejected: tuple[tuple[str, int], ...]
    distance: float


def granule_of(beams: list[Beam], product: str, frame: Frame) -> Granule:
    """What the beams of one file hold together."""
    distances = [b.distance for b in beams if np.isfinite(b.distance)]
    return Granule(
        join_returns([b.returns for b in beams]),
        product,
        frame,
        sum(b.n_read for b in beams),
        add_counts([b.rejected for b in beams]),
        min(distances, default=float("nan")),
    )


def inside_bounds(lon_deg: Floats, lat_deg: Floats, bounds: Bounds | None) -> tuple[Bools, float]:
    """Which positions lie within (west, south, east, north), and metres from the bounds to the nearest one.

    An east smaller than west means an area across the 180th meridian.
    """
    valid = (np.abs(lat_deg) <= 90) & (np.abs(lon_deg) <= 360)
    if bounds is None or not valid.any():
        return valid, 0.0 if valid.any() else float("nan")
    west, south, east, north = bounds
    half = ((east - west) % 360.0) / 2
    off_lon = np.maximum(np.abs((lon_deg - west - half + 180.0) % 360.0 - 180.0) - half, 0.0)
    off_lat = np.maximum(np.maximum(south - lat_deg, lat_deg - north), 0.0)
    inside = valid & (off_lon <= 0) & (off_lat <= 0)
    scale = np.cos(np.radians(np.clip(lat_deg[valid], -90, 90)))
    distance = METRES_PER_DEGREE * np.hypot(off_lon[valid] * scale, off_lat[valid]).min()
    return inside, float(distance)


def row_range(inside: Bools) -> slice:
    """Smallest run of rows (axis 0) that holds every row with an inside value; only these are read from the file."""
    rows = np.flatnonzero(inside.reshape(len(inside), -1).any(axis=1)) if inside.size else np.zeros(0, int)
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows.size else slice(0, 0)


def read_column(group: h5py.Group, name: str, rows: slice) -> Floats | None:
    """Rows of a data set as float64 with fill values as NaN; None where the group lacks it.

    Raises ValueError for what is no list of numbers.
    """
    if name not in group:
        return None
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.ndim == 0 or data.dtype.kind not in "fiub":
        raise ValueError(f"{data.name} is no list of numbers")
    values = np.asarray(data[rows], float)
    fill = data.attrs.get("_FillValue")
    fill = None if fill is None or not np.size(fill) else fill
    values[~(np.abs(values) < FILL_LIMIT)] = np.nan
    if data.dtype.kind == "f" and fill is not None:
        values[values == float(np.asarray(fill, float).ravel()[0])] = np.nan
    elif data.dtype.kind in "iu" and fill is not None:
        top = np.iinfo(data.dtype).max  # the fill value of ICESat-2's integers; GEDI's flags may have 0, a value
        if int(np.asarray(fill).ravel()[0]) == top:
            values[values == top] = np.nan
    return values


def whole_column(group: h5py.Group, name: str) -> Floats:
    """All rows of a data set that is known to be there, as ``read_column`` gives them."""
    values = read_column(group, name, slice(None))
    assert values is not None
    return values


def attribute_text(attributes: Any, name: str) -> str:
    """An HDF5 attribute as text, whether stored as str, bytes or an array of one; '' where absent."""
    value = attributes.get(name)
    if value is None:
        return ""
    value = np.asarray(value).ravel()[0] if np.size(value) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
