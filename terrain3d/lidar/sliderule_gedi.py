"""SlideRule's GEDI footprints (``gedi02ap``, ``gedi02ax``) to ground returns.

Source: SlideRule's GEDI dataset (slideruleearth.io): ``elevation_lm`` is the lowest mode of the selected algorithm,
``elevation_hr`` the highest return, ``flags`` holds three flags of the product.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrain3d.lidar.frames import gedi_frame
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, Granule, granule_of
from terrain3d.lidar.read_gedi import FOOTPRINT_DIAMETER, HIGHEST_HEIGHT, LOWEST_HEIGHT, SIGMA
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.lidar.sliderule_table import TIMES, read_within
from terrain3d.points import LidarReturns

GEDI_MARKS = ("elevation_lm", "elevation_hr")
DEGRADED, QUALITY, SURFACE = 0x01, 0x02, 0x80  # bits of flags
COVERAGE = (0, 1, 2, 3)  # beams of the laser that is split in two
PRODUCT = "GEDI_L2A"


def read_gedi_table(path: Path, bounds: Bounds | None, rules: RuleSet) -> Granule:
    """Ground returns of one file; a track is one beam of one orbit.

    Raises LidarError where positions are missing, FrameError where heights are over a geoid.
    """
    table = read_within(path, (*GEDI_MARKS, "flags", "sensitivity"), bounds)
    n = len(table)
    height, highest = (table.numbers(name) for name in GEDI_MARKS)
    assert height is not None and highest is not None, "they are marks"
    sieve = Sieve(n)
    sieve.counts.append((OUTSIDE, table.n_read - n))
    sieve.keep(NO_HEIGHT, (height > LOWEST_HEIGHT) & (height < HIGHEST_HEIGHT))
    flags = table.numbers("flags")
    bits = None if flags is None else np.nan_to_num(flags).astype(np.int64)
    sieve.flag("quality flag", rules.require_quality_flag, bits, lambda v: (v & QUALITY) > 0)
    sieve.flag("surface flag", rules.require_surface_flag, bits, lambda v: (v & SURFACE) > 0)
    sieve.flag("degraded pointing", rules.require_no_degrade, bits, lambda v: (v & DEGRADED) == 0)
    sieve.limit("low sensitivity", table.numbers("sensitivity"), low=rules.min_sensitivity, unknown=False)
    sieve.flag("weak beam", rules.reject_weak_beams, table.numbers("beam"), lambda v: ~np.isin(v, COVERAGE))
    if rules.require_night:
        sieve.limit("daylight", table.numbers("solar_elevation"), high=0.0)
    index, names = table.tracks()
    full = np.full(n, FOOTPRINT_DIAMETER)
    returns = LidarReturns(
        table.lon_deg, table.lat_deg, height, np.full(n, SIGMA), full, full, highest - height, table.times(), index,
        names, (PRODUCT,) * len(names),
    )  # fmt: skip
    dated = any(t in table.columns for t in TIMES)
    kept = Beam(returns.select(sieve.kept), table.n_read, tuple(sieve.counts), table.distance,
                unasked=tuple(sieve.unasked))  # fmt: skip
    return granule_of([kept], PRODUCT, gedi_frame(dated))
