"""What the products of ICESat-2's lidar ATLAS share: beams, their strength, flags of the atmosphere and the surface."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.granule import attribute_text
from terrain3d.lidar.rules import RuleSet, Sieve

Floats = NDArray[np.float64]
Field = Callable[[str], Floats | None]

BEAMS = ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r")
FOOTPRINT_WIDTH = 11.0  # Magruder et al. 2021
SIGMA_FLOOR = 0.2
SIGMA_CEILING = 5.0
SIGMA_WITHOUT_FIELDS = 0.5
NOT_COMPUTED = 127  # of the one-byte flags


def is_weak(file: h5py.File, beam: str) -> bool:
    """Whether a beam is one of the three weak ones: by its attribute, else by the orientation of the spacecraft.

    Flying forward (sc_orient 1) the right beam of each pair is strong, backward (0) the left one.
    """
    kind = attribute_text(file[beam].attrs, "atlas_beam_type")
    if kind:
        return kind.strip().lower() == "weak"
    if "orbit_info/sc_orient" in file:
        orient = int(np.asarray(file["orbit_info/sc_orient"][()]).ravel()[0])
        return beam.endswith("l") if orient == 1 else beam.endswith("r") if orient == 0 else False
    return False


def sift_conditions(sieve: Sieve, field: Field, weak: bool, rules: RuleSet) -> None:
    """Rules on the beam, the light, the atmosphere and the surface; ``field`` gives (N,) values of a name, or None.

    Names are those of ATL08 ``land_segments`` and ATL06 ``land_ice_segments/geophysical``. A flag of 127 or -1 was not
    computed and rejects nothing.
    """
    if rules.reject_weak_beams:
        sieve.keep("weak beam", np.full(sieve.kept.shape, not weak))
    if rules.require_night:
        night, sun = field("night_flag"), field("solar_elevation")
        if night is not None:
            sieve.keep("daylight", night == 1)
        else:
            sieve.limit("daylight", sun, high=0.0)
    for rule, name, high in (
        ("cloud", "cloud_flag_atm", rules.max_cloud_layers),
        ("blowing snow", "msw_flag", rules.max_blowing_snow),
    ):
        values = field(name) if high is not None else None
        sieve.limit(rule, None if values is None else np.where(values == NOT_COMPUTED, np.nan, values), high=high)
    sieve.flag("water", rules.reject_water, field("segment_watermask"), lambda v: v != 1)
    sieve.flag("snow", rules.reject_snow, field("segment_snowcover"), lambda v: (v != 2) & (v != 3))


def height_sigma(scatter: Floats, geolocation: Floats | None) -> Floats:
    """1-sigma of a ground height, metres, from the scatter of its fit and the vertical geolocation error.

    Held within 0.2 m (no comparison with airborne lidar finds less) and 5 m; 0.5 m where both are unknown.
    """
    vertical = np.full(scatter.shape, np.nan) if geolocation is None else geolocation
    unknown = ~np.isfinite(vertical) & ~np.isfinite(scatter)
    sigma = np.hypot(
        np.where(np.isfinite(vertical), vertical, SIGMA_FLOOR), np.where(np.isfinite(scatter), scatter, 0.0)
    )
    return np.where(unknown, SIGMA_WITHOUT_FIELDS, np.clip(sigma, SIGMA_FLOOR, SIGMA_CEILING))
