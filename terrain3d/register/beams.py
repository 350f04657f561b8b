"""Displacement of whole beams, found where relief shows it: GEDI's pointing errs by some ten metres, by beam and orbit.

For every beam the probability of each displacement within reach is computed on a grid, with gross errors allowed for;
the height of the model is either known from better placed returns, or one more unknown, common to all beams. Shots too
few or ground too even leave the beam's probability as wide as it was, and then the beam stays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.register.footprint import Footprints
from terrain3d.register.shift import smoothed_ground

Floats = NDArray[np.float64]

REACH, STEP = 2.5, 0.2  # of the displacement, in its 1-sigma
MIN_SHOTS = 5
MAX_SHOTS = 60  # of a beam; more are thinned evenly
SHOT_SIGMA = 0.7  # metres, of a height besides the product's own: the footprint's relief, the smoothed surface
GOOD = 0.75  # share of shots that are no gross errors
GROSS_RANGE = 40.0  # metres over which these spread
CANOPY = 5.0
HEIGHTS = np.arange(-6.0, 6.01, 0.25)  # metres about the first estimate
DETERMINED = 0.4  # of the sigma before, that remains where relief tells


def place_beams(
    dsm: Raster, objects: Raster, returns: LidarReturns, footprints: Footprints, shift: tuple[float, float], up: float,
    height_known: bool,
) -> tuple[Footprints, list[str]]:  # fmt: skip
    """Footprints with beams moved to where they are, and the names of these beams.

    shift, up: of the model, metres. height_known: whether ``up`` comes from returns that are well placed.
    """
    if not footprints.shared.any():
        return footprints, []
    surface = smoothed_ground(dsm, objects)
    rows_of, chances = [], []
    heights = np.zeros(1) if height_known else HEIGHTS
    for track in np.unique(returns.track[footprints.shared > 0]):
        rows = np.flatnonzero((returns.track == track) & np.isfinite(returns.height) & ~footprints.level)
        offsets, chance = _chances(surface, returns, footprints, rows, shift, up + heights)
        if chance is not None:
            rows_of.append((track, rows, offsets))
            chances.append(chance)
    if not chances:
        return footprints, []
    of_height = logsumexp(np.array(chances), axis=1).sum(axis=0)  # all beams agree on one height of the model
    of_height -= logsumexp(of_height)
    x, y, sigma = footprints.x.copy(), footprints.y.copy(), footprints.place_sigma.copy()
    shared, moved = footprints.shared.copy(), footprints.moved.copy()
    names = []
    for (track, rows, offsets), chance in zip(rows_of, chances, strict=True):
        share = np.exp(chance - logsumexp(chance, axis=0) + of_height).sum(axis=1)
        mean = share @ offsets
        spread = float(np.sqrt(share @ ((offsets - mean) ** 2).sum(axis=1) / 2))
        if spread > DETERMINED * float(sigma[rows[0]]):
            continue
        x[rows] += mean[0]
        y[rows] += mean[1]
        moved[rows] = mean
        shared[rows], sigma[rows] = sigma[rows], spread
        names.append(returns.track_names[track])
    return replace(footprints, x=x, y=y, place_sigma=sigma, shared=shared, moved=moved), names


def _chances(
    surface: Raster, returns: LidarReturns, footprints: Footprints, rows: NDArray[np.int64], shift: tuple[float, float],
    up: Floats,
) -> tuple[Floats, Floats | None]:  # fmt: skip
    """Displacements (G, 2) and logarithms of their probability for each height of the model (G, H)."""
    sigma = float(footprints.place_sigma[rows[0]]) if len(rows) else 0.0
    steps = np.arange(-REACH, REACH + STEP / 2, STEP) * sigma
    offsets = np.column_stack([a.ravel() for a in np.meshgrid(steps, steps)])
    rows = rows[:: -(-len(rows) // MAX_SHOTS) or 1]
    at = offsets[:, None] - shift
    ground = surface.sample(footprints.x[rows] + at[..., 0], footprints.y[rows] + at[..., 1])
    clear = ~(returns.canopy[rows] > CANOPY + _relief(ground))
    if clear.sum() < MIN_SHOTS:
        return offsets, None
    ground, rows = ground[:, clear], rows[clear]
    own = np.hypot(returns.sigma[rows], SHOT_SIGMA)
    off = (returns.height[rows] - ground)[..., None] - up
    good = GOOD * np.exp(-0.5 * (off / own[:, None]) ** 2) / (np.sqrt(2 * np.pi) * own[:, None])
    likelihood = np.log(np.nan_to_num(good) + (1 - GOOD) / GROSS_RANGE).sum(axis=1)
    return offsets, likelihood - 0.5 * ((offsets / sigma) ** 2).sum(axis=1)[:, None]


def _relief(ground: Floats) -> Floats:
    """Spread of the ground within reach of each shot; a canopy height is measured from the lowest of it."""
    known = np.isfinite(ground)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, ground - np.where(known, ground, 0).sum(axis=0) / count, 0)
    return np.asarray(np.sqrt((centred**2).sum(axis=0) / count))
