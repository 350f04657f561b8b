"""Returns on level water that a surface model has not got: matching of water invents relief where there is none.

Such returns would move a model sideways until the invented relief fits them. The lidar itself tells them: their heights
are on a level, as those of their neighbours are, while the model has slopes there that no level ground has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terrain3d.points import LidarReturns
from terrain3d.register.footprint import Footprints, FootprintSample

Bools = NDArray[np.bool_]

CELL = 10.0  # metres, of which one return stands for all
NEIGHBOURS, LEAST, REACH = 12, 8, 500.0  # nearest returns that are asked, fewest of them, and metres that they lie away
LEVEL, SIGMAS, MOST = 0.3, 2.0, 1.0  # metres that neighbours on a level differ by, sigmas, and metres at most
SHARE = 0.75  # of the neighbours that are on the level
STEEP = 0.15  # slope of the model: on banks and ditches few returns lie, and few of them on one level
MISSED, TURNS = 0.5, 4  # of the returns on a level, where the model is steep; turns that take in those among them


def on_missed_water(returns: LidarReturns, footprints: Footprints, sample: FootprintSample) -> Bools:
    """Which returns (N,) lie on a level where the model, which is steep there, shows none.

    sample: of the model in its first place. These returns know nothing of a sideways shift.
    """
    found = np.zeros(len(returns), bool)
    rows = np.flatnonzero(np.isfinite(returns.height))
    places = np.column_stack([footprints.x, footprints.y])[rows]
    _, some = np.unique(np.floor(places / CELL), axis=0, return_index=True)
    if len(some) < LEAST:
        return found
    apart, near = cKDTree(places[some]).query(places, k=min(NEIGHBOURS, len(some)), distance_upper_bound=REACH)
    known = np.isfinite(apart)
    near = some[np.where(known, near, 0)]
    height, slope = returns.height[rows], sample.slope[rows]
    tolerance = np.minimum(LEVEL + SIGMAS * returns.sigma[rows], MOST)
    alike = known & (np.abs(height[near] - height[:, None]) <= tolerance[:, None])
    level = (known.sum(axis=1) >= LEAST) & (alike.sum(axis=1) >= SHARE * known.sum(axis=1))
    missed, shown = slope > STEEP, alike & np.isfinite(slope)[near]
    for _ in range(TURNS):  # one on the level of water is on it, even where the model is void or happens to be level
        share = (shown & missed[near]).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)
        found[rows] = level & (share > MISSED)
        missed, shown = missed | found[rows], shown | (alike & found[rows][near])
    return found
