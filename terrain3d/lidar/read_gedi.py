"""GEDI L2A footprint elevations to ground returns, versions 001 and 002.

Source: GEDI L2A product data dictionary and user guide (LP DAAC). The top level of each BEAM group holds the values of
the algorithm that the producers selected for the shot; the ground is the lowest mode. Heights are WGS 84 ellipsoidal.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import LidarError
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, inside_bounds, read_column, row_range
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

REQUIRED = ("lat_lowestmode", "lon_lowestmode", "elev_lowestmode")
FOOTPRINT_DIAMETER = 25.0
SIGMA = 0.5  # ground finding on flat bare ground; slope and the 10 m geolocation error are the user's part
CANOPY_PERCENTILE = 98
NO_DEM = -999.0  # -9999 and -999999 are both in use for shots without a reference DEM
LOWEST_HEIGHT, HIGHEST_HEIGHT = -1000.0, 9500.0


def beam_groups(file: h5py.File) -> list[str]:
    """Names of the BEAMxxxx groups, sorted."""
    return sorted(n for n in file if n.startswith("BEAM") and isinstance(file[n], h5py.Group))


def read_gedi(file: h5py.File, path: Path, bounds: Bounds | None, rules: RuleSet) -> list[Beam]:
    """Ground returns of every beam. Raises LidarError where no beam has positions and elevations."""
    beams, missing = [], set()
    for name in beam_groups(file):
        lacking = [f for f in REQUIRED if f not in file[name]]
        if lacking:
            missing.update(lacking)
            continue
        beams.append(_read_beam(file[name], f"{path.name}/{name}", bounds, rules))
    if not beams:
        what = f"lacks {', '.join(sorted(missing))}" if missing else "has no beam"
        raise LidarError(
            f"no usable returns: GEDI granule {what}", where=path, fix="order the granule with these fields"
        )
    return beams


def _read_beam(group: h5py.Group, track: str, bounds: Bounds | None, rules: RuleSet) -> Beam:
    lat = np.asarray(group["lat_lowestmode"][:], float)
    lon = np.asarray(group["lon_lowestmode"][:], float)
    inside, distance = inside_bounds(lon, lat, bounds)
    rows = row_range(inside)
    n_read = lat.size
    lat, lon, inside = lat[rows], lon[rows], inside[rows]
    height = read_column(group, "elev_lowestmode", rows)
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
        flag = read_column(group, field, rows) if wanted else None
        if flag is not None:
            sieve.keep(rule, flag == value)
    sensitivity = read_column(group, "sensitivity", rows)
    if rules.min_sensitivity is not None and sensitivity is not None:
        sieve.keep("low sensitivity", sensitivity >= rules.min_sensitivity)
    dem = read_column(group, "digital_elevation_model", rows)
    if rules.max_dem_difference is not None and dem is not None:
        sieve.keep("far from reference DEM", ~(np.abs(height - dem) > rules.max_dem_difference) | ~(dem > NO_DEM))

    time = read_column(group, "delta_time", rows)
    bin0 = read_column(group, "elevation_bin0_error", rows)
    sigma = np.full(n, SIGMA) if bin0 is None else np.fmax(bin0, SIGMA)
    full = np.full(n, FOOTPRINT_DIAMETER)
    returns = LidarReturns(
        lon, lat, height, sigma, full, full, _canopy(group, rows, n),
        np.arange(n, dtype=float) if time is None else time,
        np.zeros(n, np.int32), (track,), ("GEDI_L2A",),
    )  # fmt: skip
    counts = list(sieve.counts)
    counts[0] = (OUTSIDE, n_read - int(inside.sum()))
    return Beam(returns.select(sieve.kept), n_read, tuple(counts), distance)


def _canopy(group: h5py.Group, rows: slice, n: int) -> Floats:
    """RH98 in metres; integers are centimetres, as in the per-algorithm groups of version 001."""
    if "rh" not in group or group["rh"].ndim != 2 or group["rh"].shape[1] <= CANOPY_PERCENTILE:
        return np.full(n, np.nan)
    data = group["rh"]
    values = np.asarray(data[rows, CANOPY_PERCENTILE], float)
    return values / 100.0 if data.dtype.kind in "iu" else values
