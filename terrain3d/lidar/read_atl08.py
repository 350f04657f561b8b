"""ICESat-2 ATL08 land and vegetation heights to ground returns.

Source: ATL08 ATBD (Neuenschwander et al., NSIDC) and the ATL08 product data dictionary. Terrain heights are WGS 84
ellipsoidal. Releases from 005 on carry five 20 m parts of every 100 m segment; these are used where present.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.atlas import BEAMS, FOOTPRINT_WIDTH, height_sigma, is_weak, sift_conditions
from terrain3d.lidar.granule import (
    NO_HEIGHT,
    OUTSIDE,
    Beam,
    Bounds,
    has,
    inside_bounds,
    read_beams,
    read_column,
    row_range,
    whole_column,
)
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

PART = "land_segments"
REQUIRED = ("delta_time", "latitude", "longitude", "terrain/h_te_best_fit")
FINE = ("latitude_20m", "longitude_20m", "terrain/h_te_best_fit_20m")
PARTS = 5
PART_LENGTH = 20.0
SEGMENT_LENGTH = 100.0
ROUNDING_BAND_DEG = 0.05  # of latitude, 5.5 km of track, whose longitudes are fitted together
ROUNDING_MIN = 10
GROUND_SPEED = 7000.0  # m/s, spreads the five parts of a segment over time


def read_atl08(
    file: h5py.File, path: Path, bounds: Bounds | None, rules: RuleSet, without: frozenset[str] = frozenset()
) -> list[Beam]:
    """Ground returns of every beam that is not among ``without``.

    Raises LidarError where no beam has heights, InputFileError where none can be read.
    """

    def read(name: str, beam: h5py.Group) -> Beam:
        return _read_beam(beam[PART], f"{path.name}/{name}", is_weak(file, name), bounds, rules)

    names = [name for name in BEAMS if name not in without]
    fine = any(all(has(file, f"{name}/{PART}/{f}") for f in FINE) for name in names)
    required = tuple(f"{PART}/{f}" for f in (("delta_time", *FINE) if fine else REQUIRED))
    fix = "order the granule with its terrain group"
    return read_beams("ATL08", file, path, names, required, read, part=PART, fix=fix)


def _read_beam(group: h5py.Group, track: str, weak: bool, bounds: Bounds | None, rules: RuleSet) -> Beam:
    fine = all(f in group for f in FINE)
    suffix = "_20m" if fine else ""
    parts = PARTS if fine else 1
    all_lat = whole_column(group, f"latitude{suffix}").reshape(-1, parts)
    all_lon = whole_column(group, f"longitude{suffix}").reshape(-1, parts)
    all_inside, distance = inside_bounds(all_lon, all_lat, bounds)
    rows = row_range(all_inside)
    n_read = all_lat.size
    if group[f"longitude{suffix}"].dtype == np.float32:
        whole = unround_longitude(all_lon.ravel(), all_lat.ravel(), slice(rows.start * parts, rows.stop * parts))
        all_lon = whole.reshape(-1, parts)
    lat, lon, inside = all_lat[rows].ravel(), all_lon[rows].ravel(), all_inside[rows].ravel()

    def per_part(name: str) -> Floats | None:
        values = read_column(group, name, rows)
        return None if values is None else np.repeat(values, parts)

    height = read_column(group, f"terrain/h_te_best_fit{suffix}", rows)
    assert height is not None
    heights = height.ravel()
    canopy_read = read_column(group, f"canopy/h_canopy{suffix}", rows)
    canopy = np.full(heights.shape, np.nan) if canopy_read is None else canopy_read.ravel()

    sieve = Sieve(len(heights))
    sieve.keep(OUTSIDE, inside)
    sieve.keep(NO_HEIGHT, np.isfinite(heights))
    photons = per_part("terrain/n_te_photons")
    uncertainty = per_part("terrain/h_te_uncertainty")
    sieve.limit("few ground photons", photons, low=rules.min_ground_photons, unknown=False)
    sieve.limit("terrain uncertainty", uncertainty, high=rules.max_terrain_uncertainty, unknown=False)
    sift_conditions(sieve, per_part, weak, rules)
    dem = per_part("dem_h")
    sieve.limit("far from reference DEM", None if dem is None else np.abs(heights - dem), high=rules.max_dem_difference)
    time = per_part("delta_time")
    assert time is not None
    along = (np.arange(parts) - (parts - 1) / 2) * PART_LENGTH / GROUND_SPEED
    time = time + np.tile(along, len(time) // parts)
    full = np.full(heights.shape, 1.0)
    returns = LidarReturns(
        lon, lat, heights, ground_sigma(heights.size, per_part("sigma_h"), uncertainty, photons),
        full * (PART_LENGTH if fine else SEGMENT_LENGTH), full * FOOTPRINT_WIDTH, canopy, time,
        np.zeros(heights.shape, np.int32), (track,), ("ATL08",),
    )  # fmt: skip
    counts = list(sieve.counts)
    counts[0] = (OUTSIDE, n_read - int(inside.sum()))
    return Beam(returns.select(sieve.kept), n_read, tuple(counts), distance, unasked=tuple(sieve.unasked))


def unround_longitude(lon_deg: Floats, lat_deg: Floats, rows: slice = slice(None)) -> Floats:
    """Longitudes of one beam freed of most of the rounding to float32, 1.7 m steps at the equator beyond 128 deg.

    A ground track is smooth, so within some kilometres longitude is a parabola of latitude. The fit replaces a stored
    value only within the interval of values that would have been rounded to it. It is made band by band of latitude,
    with half a band more at both ends, of all the beam, so that it is the same whatever ``rows`` are wanted; the others
    may stay as they are.
    """
    result = lon_deg.copy()
    half_step = np.abs(np.spacing(lon_deg.astype(np.float32))).astype(float) / 2
    usable = np.flatnonzero((np.abs(lat_deg) < 85) & (np.abs(lon_deg) <= 360))
    lat = lat_deg[usable]
    band = np.floor(lat / ROUNDING_BAND_DEG)
    first, stop, _ = rows.indices(len(lon_deg))
    for run in np.split(np.arange(len(usable)), np.flatnonzero(np.diff(band)) + 1):
        if not len(run) or usable[run[-1]] < first or usable[run[0]] >= stop:
            continue
        near = _around(run, lat, (band[run[0]] + 0.5) * ROUNDING_BAND_DEG)
        fit = _smooth(lon_deg[usable[near]], lat[near], lat[run])
        if fit is not None:
            own = usable[run]
            result[own] = np.clip(fit, lon_deg[own] - half_step[own], lon_deg[own] + half_step[own])
    return result


def _around(run: NDArray[np.int64], lat: Floats, middle: float) -> slice:
    """Rows next to a run of them, one after the other, within a band's width of the middle of their band."""
    far = np.abs(lat - middle) > ROUNDING_BAND_DEG
    before, after = np.flatnonzero(far[: run[0]]), np.flatnonzero(far[run[-1] + 1 :])
    return slice(int(before[-1]) + 1 if before.size else 0, int(run[-1] + 1 + after[0]) if after.size else len(lat))


def _smooth(lon: Floats, lat: Floats, at: Floats) -> Floats | None:
    """Longitude as a parabola of latitude; None where that cannot be told."""
    if len(lon) < ROUNDING_MIN or np.ptp(lat) < 1e-4 or np.ptp(lon) > 1.0:
        return None
    t, there = (lat - lat.mean()) / np.ptp(lat), (at - lat.mean()) / np.ptp(lat)
    found = np.polynomial.polynomial.polyfit(t, lon - lon[0], 2)
    return np.asarray(np.polynomial.polynomial.polyval(there, found) + lon[0], float)


def ground_sigma(n: int, sigma_h: Floats | None, uncertainty: Floats | None, photons: Floats | None) -> Floats:
    """1-sigma of the ground height, metres: geolocation (``sigma_h``) and photon scatter of the ground.

    ``h_te_uncertainty`` is a figure of the 100 m segment and contains its slope, so as a sigma of a height it would be
    far too large; divided by the root of the number of ground photons it still ranks the returns. Held within 0.2 m
    (no comparison with airborne lidar finds less) and 5 m; 0.5 m where the fields are absent or filled.
    """
    scatter = np.full(n, np.nan)
    if uncertainty is not None and photons is not None:
        scatter = uncertainty / np.sqrt(np.maximum(np.nan_to_num(photons, nan=1.0), 1.0))
    return height_sigma(scatter, sigma_h)
