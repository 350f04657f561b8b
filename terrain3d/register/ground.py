"""Which returns may be compared with the surface, by rules that ask both, and the difference to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns, canopy_limit
from terrain3d.register.footprint import FootprintSample

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_VALID = 0.6
MAX_OBJECTS = 0.15
MAX_RAISED = 0.15
MAX_SPREAD = 1.0
SPREAD_PER_SLOPE = 0.5  # steep ground is rougher
SPREAD_SHARE = 0.3  # of the spread that stays in a footprint's height: photons do not fall evenly


@dataclass(frozen=True)
class GroundTest:
    """Verdict over returns: ``usable``, and how many each rule was the first to reject."""

    usable: Bools
    rejected: tuple[tuple[str, int], ...]


def find_ground(returns: LidarReturns, sample: FootprintSample) -> GroundTest:
    """Returns on open ground, where a surface model and a ground return mean the same height.

    A return under trees is good for a terrain model but says nothing about a surface model.
    """
    rules = (
        ("outside the surface", sample.valid >= MIN_VALID),
        ("lidar sees canopy", ~(returns.canopy > canopy_limit(returns, np.nan_to_num(sample.slope)))),
        ("on a building or trees", (sample.objects <= MAX_OBJECTS) & (sample.raised <= MAX_RAISED)),
        ("rough surface", sample.spread <= MAX_SPREAD + SPREAD_PER_SLOPE * sample.slope),
    )
    usable = np.isfinite(returns.height)
    counts = []
    for rule, passes in rules:
        counts.append((rule, int((usable & ~passes).sum())))
        usable = usable & passes
    return GroundTest(usable, tuple(counts))


def expected_sigma(
    returns: LidarReturns, place_sigma: Floats, sample: FootprintSample, surface_sigma: Floats | None = None
) -> Floats:
    """1-sigma of return minus surface, metres: the product's own, geolocation on a slope, roughness and bends of the
    ground, the surface's."""
    variance = returns.sigma**2 + (place_sigma * sample.slope) ** 2
    variance = variance + (SPREAD_SHARE * sample.spread) ** 2 + sample.unclear**2
    if surface_sigma is not None:
        variance = variance + np.nan_to_num(surface_sigma) ** 2
    return np.sqrt(variance)
