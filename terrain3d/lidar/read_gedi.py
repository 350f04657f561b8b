"""GEDI L2A footprint elevations to ground returns, versions 001 and 002.

Source: GEDI L2A product data dictionary and user guide (LP DAAC). The top level of each BEAM group holds the values of
the algorithm that the producers selected for the shot, its group ``geolocation`` those of all six (``_a1`` to
``_a6``); the ground is the lowest mode. Heights are WGS 84 ellipsoidal.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.granule import (
    NO_HEIGHT,
    OUTSIDE,
    Beam,
    Bounds,
    attribute_text,
    inside_bounds,
    read_beams,
    read_column,
    row_range,
    whole_column,
)
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

REQUIRED = ("lat_lowestmode", "lon_lowestmode", "elev_lowestmode")
ALGORITHMS = range(1, 7)
BY_ALGORITHM = (*REQUIRED, "quality_flag", "sensitivity", "rh")
COVERAGE = ("BEAM0000", "BEAM0001", "BEAM0010", "BEAM0011")
FOOTPRINT_DIAMETER = 25.0
SIGMA = 0.5  # ground finding on flat bare ground; slope and the 10 m geolocation error are the user's part
CANOPY_PERCENTILE = 98
NO_DEM = -999.0  # -9999 and -999999 are both in use for shots without a reference DEM
LOWEST_HEIGHT, HIGHEST_HEIGHT = -1000.0, 9500.0


def beam_groups(file: h5py.File) -> list[str]:
    """Names of the BEAMxxxx groups, sorted."""
    return sorted(n for n in file if n.startswith("BEAM"))


def read_gedi(
    file: h5py.File, path: Path, bounds: Bounds | None, rules: RuleSet, algorithm: int | None = None
) -> list[Beam]:
    """Ground returns of every beam; ``algorithm`` 1 to 6 instead of the one that the producers selected.

    Raises LidarError where no beam has positions and elevations, InputFileError where none can be read.
    """

    def read(name: str, beam: h5py.Group) -> Beam:
        return _read_beam(beam, f"{path.name}/{name}", bounds, rules, algorithm)

    required = tuple(field_path(f, algorithm) for f in REQUIRED)
    return read_beams("GEDI_L2A", file, path, beam_groups(file), required, read)


def field_path(name: str, algorithm: int | None) -> str:
    """Place of a field in its beam: at the top for the selected algorithm, else in the group of all algorithms."""
    return name if algorithm is None or name not in BY_ALGORITHM else f"geolocation/{name}_a{algorithm}"


def is_coverage(group: h5py.Group, name: str) -> bool:
    """Whether a beam is one of the four of the laser that is split in two and so has half the energy."""
    description = attribute_text(group.attrs, "description").lower()
    return "coverage" in description if description else name in COVERAGE


def _read_beam(group: h5py.Group, track: str, bounds: Bounds | None, rules: RuleSet, algorithm: int | None) -> Beam:
    def read(name: str) -> Floats | None:
        return read_column(group, field_path(name, algorithm), rows)

    lat, lon = (whole_column(group, field_path(f"{a}_lowestmode", algorithm)) for a in ("lat", "lon"))
    inside, distance = inside_bounds(lon, lat, bounds)
    rows = row_range(inside)
    n_read = lat.size
    lat, lon, inside = lat[rows], lon[rows], inside[rows]
    height = read("elev_lowestmode")
    assert height is not None
    n = len(height)

    sieve = Sieve(n)
    sieve.keep(OUTSIDE, inside)
    sieve.keep(NO_HEIGHT, (height > LOWEST_HEIGHT) & (height < HIGHEST_HEIGHT))
    for wanted, field, rule, value in (
        (rules.require_quality_flag, "quality_flag", "quality flag", 1),
        (rules.require_surface_flag, "surface_flag", "surface flag", 1),
        (rules.require_no_degrade, "degrade_flag", "degraded pointing", 0),
    ):
        sieve.flag(rule, wanted, read(field) if wanted else None, partial(np.equal, value))
    sieve.limit("low sensitivity", read("sensitivity"), low=rules.min_sensitivity, unknown=False)
    if rules.reject_weak_beams:
        sieve.keep("weak beam", np.full(n, not is_coverage(group, track.rpartition("/")[2])))
    if rules.require_night:
        sieve.limit("daylight", read("solar_elevation"), high=0.0)
    sieve.limit("ambiguous ground mode", _disagreement(group, rows, height), high=rules.max_mode_separation)
    dem = read("digital_elevation_model")
    far = None if dem is None else np.where(dem > NO_DEM, np.abs(height - dem), np.nan)
    sieve.limit("far from reference DEM", far, high=rules.max_dem_difference)

    time = read("delta_time")
    bin0 = read("elevation_bin0_error")
    sigma = np.full(n, SIGMA) if bin0 is None else np.fmax(bin0, SIGMA)
    full = np.full(n, FOOTPRINT_DIAMETER)
    returns = LidarReturns(
        lon, lat, height, sigma, full, full, _canopy(group, field_path("rh", algorithm), rows, n),
        np.arange(n, dtype=float) if time is None else time,
        np.zeros(n, np.int32), (track,), ("GEDI_L2A",),
    )  # fmt: skip
    counts = list(sieve.counts)
    counts[0] = (OUTSIDE, n_read - int(inside.sum()))
    return Beam(returns.select(sieve.kept), n_read, tuple(counts), distance, unasked=tuple(sieve.unasked))


def _disagreement(group: h5py.Group, rows: slice, height: Floats) -> Floats | None:
    """Difference to the ground elevation that half of the algorithms stay within; None without their groups."""
    others = [read_column(group, field_path("elev_lowestmode", k), rows) for k in ALGORITHMS]
    found = [o for o in others if o is not None]
    if len(found) < 2:
        return None
    return np.asarray(np.median(np.abs(np.stack(found) - height), axis=0), float)


def _canopy(group: h5py.Group, name: str, rows: slice, n: int) -> Floats:
    """RH98 in metres; integers are centimetres, as in the groups of the single algorithms."""
    if name not in group or group[name].ndim != 2 or group[name].shape[1] <= CANOPY_PERCENTILE:
        return np.full(n, np.nan)
    data = group[name]
    values = np.asarray(data[rows, CANOPY_PERCENTILE], float)
    return values / 100.0 if data.dtype.kind in "iu" else values
