"""Which returns may be compared with the surface, by rules that ask both, and the difference to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.register.footprint import FootprintSample

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_VALID = 0.6
MAX_OBJECTS = 0.15
MAX_RAISED = 0.15
MAX_SPREAD = 1.0
SPREAD_PER_SLOPE = 0.5  # steep ground is rougher
CANOPY_LIMIT = 2.0
SPREAD_SHARE = 0.3  # of the spread that stays in a footprint's height: photons do not fall evenly

# Random horizontal error of a return, metres. ICESat-2 is within 5 m, most of it common to a pass and so part of the
# frame that is matched to (Luthcke et al. 2021); GEDI version 2 is about 10 m, different for every beam and orbit.
HORIZONTAL_SIGMA = (("GEDI", 10.0), ("ATL", 1.0))
HORIZONTAL_SIGMA_OTHER = 2.0
POINTING = 5.0  # metres; larger errors come from a beam's pointing
SHARED_BY_TRACK = 0.5  # of its variance; what slope alone does not tell of a displacement differs from place to place


@dataclass(frozen=True)
class GroundTest:
    """Verdict over returns: ``usable``, and how many each rule was the first to reject."""

    usable: Bools
    rejected: tuple[tuple[str, int], ...]


def find_ground(returns: LidarReturns, sample: FootprintSample) -> GroundTest:
    """Returns on open ground, where a surface model and a ground return mean the same height.

    A return under trees is good for a terrain model but says nothing about a surface model. The canopy height of a
    product is measured down to the lowest ground in the footprint, so half the footprint's own relief is allowed for.
    """
    canopy_limit = CANOPY_LIMIT + np.nan_to_num(sample.slope) * returns.length / 2
    rules = (
        ("outside the surface", sample.valid >= MIN_VALID),
        ("lidar sees canopy", ~(returns.canopy > canopy_limit)),
        ("on a building or trees", (sample.objects <= MAX_OBJECTS) & (sample.raised <= MAX_RAISED)),
        ("rough surface", sample.spread <= MAX_SPREAD + SPREAD_PER_SLOPE * sample.slope),
    )
    usable = np.isfinite(returns.height)
    counts = []
    for rule, passes in rules:
        counts.append((rule, int((usable & ~passes).sum())))
        usable = usable & passes
    return GroundTest(usable, tuple(counts))


def horizontal_sigma(returns: LidarReturns) -> Floats:
    """1-sigma of the random horizontal error of each return, metres, from its product."""
    of_track = [
        next((s for name, s in HORIZONTAL_SIGMA if product.startswith(name)), HORIZONTAL_SIGMA_OTHER)
        for product in returns.product
    ]
    return np.asarray(of_track, float)[returns.track] if len(returns) else np.zeros(0)


def shared_sigma(returns: LidarReturns) -> Floats:
    """The part of ``horizontal_sigma`` that all returns of a track have in common, where it is a matter of pointing."""
    sigma = horizontal_sigma(returns)
    return np.where(sigma > POINTING, np.sqrt(SHARED_BY_TRACK) * sigma, 0.0)


def expected_sigma(returns: LidarReturns, sample: FootprintSample, surface_sigma: Floats | None = None) -> Floats:
    """1-sigma of return minus surface, metres: the product's own, geolocation on a slope, roughness, the surface's."""
    variance = returns.sigma**2 + (horizontal_sigma(returns) * sample.slope) ** 2 + (SPREAD_SHARE * sample.spread) ** 2
    if surface_sigma is not None:
        variance = variance + np.nan_to_num(surface_sigma) ** 2
    return np.sqrt(variance)
