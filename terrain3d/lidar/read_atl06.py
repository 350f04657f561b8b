"""ICESat-2 ATL06 land-ice heights to ground returns: segments of 40 m, one every 20 m.

Source: ATL06 ATBD (Smith et al., NSIDC) and the ATL06 product data dictionary. ``h_li`` is the height of a line fitted
to the photons of the segment at its middle, over the WGS 84 ellipsoid; the algorithm does not tell ground from canopy.
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
    inside_bounds,
    read_beams,
    read_column,
    row_range,
    whole_column,
)
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

SEGMENT_LENGTH = 40.0
OTHER_NAMES = {"cloud_flag_atm": "cloud_flg_atm"}  # what ATL08 calls them, and what ATL06 does
PART = "land_ice_segments"
REQUIRED = tuple(f"{PART}/{n}" for n in ("latitude", "longitude", "delta_time", "h_li"))


def read_atl06(file: h5py.File, path: Path, bounds: Bounds | None, rules: RuleSet) -> list[Beam]:
    """Ground returns of every beam. Raises LidarError where no beam has heights, InputFileError if none can be read."""

    def read(name: str, beam: h5py.Group) -> Beam:
        return _read_beam(beam[PART], f"{path.name}/{name}", is_weak(file, name), bounds, rules)

    return read_beams("ATL06", file, path, BEAMS, REQUIRED, read, part=PART)


def _read_beam(group: h5py.Group, track: str, weak: bool, bounds: Bounds | None, rules: RuleSet) -> Beam:
    inside, distance = inside_bounds(whole_column(group, "longitude"), whole_column(group, "latitude"), bounds)
    rows = row_range(inside)

    def field(name: str) -> Floats | None:
        return read_column(group, name, rows)

    def needed(name: str) -> Floats:
        values = field(name)
        assert values is not None, "read_atl06 has looked for it"
        return values

    def condition(name: str) -> Floats | None:
        return field(f"geophysical/{OTHER_NAMES.get(name, name)}")

    height, stated = needed("h_li"), field("h_li_sigma")
    n = len(height)
    sieve = Sieve(n)
    sieve.keep(OUTSIDE, inside[rows])
    sieve.keep(NO_HEIGHT, np.isfinite(height))
    sieve.flag("segment quality", rules.require_segment_quality, field("atl06_quality_summary"), lambda v: v == 0)
    sieve.limit("few ground photons", field("fit_statistics/n_fit_photons"), low=rules.min_ground_photons)
    sieve.limit("height sigma", stated, high=rules.max_height_sigma, unknown=False)
    sift_conditions(sieve, condition, weak, rules)
    dem = field("dem/dem_h")
    sieve.limit("far from reference DEM", None if dem is None else np.abs(height - dem), high=rules.max_dem_difference)

    scatter = np.full(n, np.nan) if stated is None else stated
    full = np.ones(n)
    returns = LidarReturns(
        needed("longitude"), needed("latitude"), height, height_sigma(scatter, field("sigma_geo_h")),
        full * SEGMENT_LENGTH, full * FOOTPRINT_WIDTH, full * np.nan, needed("delta_time"),
        np.zeros(n, np.int32), (track,), ("ATL06",),
    )  # fmt: skip
    counts = [(OUTSIDE, len(inside) - int(inside.sum())), *sieve.counts[1:]]
    return Beam(returns.select(sieve.kept), len(inside), tuple(counts), distance, unasked=tuple(sieve.unasked))
