"""What a reader hands over, and the few HDF5 helpers that the readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import InputFileError, LidarError, Terrain3dError
from terrain3d.lidar.frames import Frame
from terrain3d.lidar.rules import add_counts
from terrain3d.points import LidarReturns, join_returns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bounds = tuple[float, float, float, float]

OUTSIDE = "outside the area"
NO_HEIGHT = "no ground height"
DAMAGED = "in a damaged beam"
DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError, MemoryError)  # of h5py and numpy on damaged files
MOST_UNBACKED = 2**26  # bytes of a data set that need no proof
MOST_PACKED = 1100  # DEFLATE packs no tighter
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
    warnings: beams that were left out, and why.
    unasked: rules that could not be asked, as the file lacks their fields.
    """

    returns: LidarReturns
    product: str
    frame: Frame
    n_read: int
    rejected: tuple[tuple[str, int], ...]
    distance: float
    warnings: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beam:
    """Returns of one beam, with counts; what the readers of products build before they are joined.

    warning: why the beam was left out; '' where it was not. unasked: rules that could not be asked.
    """

    returns: LidarReturns
    n_read: int
    rejected: tuple[tuple[str, int], ...]
    distance: float
    warning: str = ""
    unasked: tuple[str, ...] = ()


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
        tuple(b.warning for b in beams if b.warning),
        tuple(dict.fromkeys(rule for b in beams for rule in b.unasked)),
    )


def no_returns(track: str, product: str) -> LidarReturns:
    """A track without returns."""
    none = np.zeros(0)
    return LidarReturns(none, none, none, none, none, none, none, none, np.zeros(0, np.int32), (track,), (product,))


def read_beams(
    product: str,
    file: h5py.File,
    path: Path,
    names: Iterable[str],
    required: tuple[str, ...],
    read: Callable[[str, h5py.Group], Beam],
    *,
    part: str = "",
    fix: str = "order the granule with these fields",
) -> list[Beam]:
    """Returns of every beam of an open granule that has the group ``part``; ``read`` makes them of its name and group.

    A beam that lacks a required field (named from the beam on), or that cannot be read, is left out with a warning,
    and its returns are counted.
    Raises LidarError where no beam has the fields, InputFileError where none can be read.
    """
    beams: list[Beam] = []
    missing, damaged = set[str](), ""
    for name in names:
        group = None
        try:
            if find(file, f"{name}/{part}".rstrip("/")) is None:
                continue
            group = file[name]
            lacking = [f for f in required if f not in group]
            if not lacking:
                beams.append(read(name, group))
                continue
            missing.update(lacking)
            reason = f"{', '.join(lacking)} missing"
        except DAMAGE as error:
            reason = _reason(error)
            damaged = damaged or f"{name}: {reason}"
        n = _claimed_length(group, required)
        track = f"{path.name}/{name}"
        warning = f"{track} is left out ({reason})"
        beams.append(Beam(no_returns(track, product), n, ((DAMAGED, n),), float("nan"), warning))
    if any(not b.warning for b in beams):
        return beams
    if damaged:
        raise InputFileError(f"no beam of the {product} granule can be read ({damaged})", where=path,
                             fix="download the file again")  # fmt: skip
    what = f"fields {', '.join(sorted(missing))} are missing" if missing else f"no beam has {part or 'returns'}"
    raise LidarError(f"no usable returns: {product} granule in which {what}", where=path, fix=fix)


def _reason(error: BaseException) -> str:
    """What is wrong, in one clause."""
    text = error.what if isinstance(error, Terrain3dError) else str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def find(file: h5py.Group, path: str) -> Any:
    """Group or data set at a path; None where there is none. One that is there and cannot be opened raises."""
    found: Any = file
    for step in path.split("/"):
        if not isinstance(found, h5py.Group) or step not in set(found):
            return None
        found = found[step]
    return found


def has(file: h5py.Group, path: str) -> bool:
    """Whether there is a group or data set at a path that can be opened."""
    try:
        return find(file, path) is not None
    except DAMAGE:
        return False


def _claimed_length(group: h5py.Group | None, required: tuple[str, ...]) -> int:
    """Returns that a damaged beam says it has; 0 where it says nothing sensible."""
    try:
        data = None if group is None else next((group[f] for f in required if f in group), None)
        return 0 if data is None else check_size(data)[0]
    except DAMAGE:
        return 0


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
    check_size(data)
    values = np.asarray(data[rows], float)
    fill = _fill_value(data)
    values[~(np.abs(values) < FILL_LIMIT)] = np.nan
    if data.dtype.kind == "f" and fill is not None:
        values[values == float(fill)] = np.nan
    elif data.dtype.kind in "iu" and fill is not None:
        top = np.iinfo(data.dtype).max  # the fill value of ICESat-2's integers; GEDI's flags may have 0, a value
        if int(fill) == top:
            values[values == top] = np.nan
    return values


def _fill_value(data: h5py.Dataset) -> Any:
    """Number that the attributes give for no value; None where they give none."""
    name = "_FillValue"
    if name not in data.attrs or data.attrs.get_id(name).dtype.kind not in "fiu":
        return None
    values = np.ravel(data.attrs[name])
    return values[0] if values.size else None


def check_size(data: Any) -> tuple[int, ...]:
    """Shape of a list of numbers.

    Raises ValueError for anything else, and for one that claims more values than the file can hold: they would fill
    the memory.
    """
    if not isinstance(data, h5py.Dataset) or data.ndim == 0 or data.dtype.kind not in "fiub":
        raise ValueError(f"{data.name} is no list of numbers")
    if data.nbytes > MOST_UNBACKED and data.nbytes > MOST_PACKED * data.id.get_storage_size():
        raise ValueError(f"{data.name} claims {data.size} values, which the file does not hold")
    return tuple(map(int, data.shape))


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
