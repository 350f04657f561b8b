"""Height of a model of closed forest, where lidar sees the ground and the model does not: from the tops of the crowns.

The ground that a product finds and the canopy that it measures over it are together the top of the stand, which a
surface model shows. The two do not mean quite the same top: matching blurs it and its noise lifts it, photons miss it.
So the height is only known to a metre or two, which no number of returns betters. Pointing may leave it off by ten.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import canopy_limit
from terrain3d.register.footprint import footprint_samples
from terrain3d.register.ground import MIN_VALID, GroundTest
from terrain3d.register.scene import Scene
from terrain3d.register.shift import DZ, VERTICAL, Fit, Linearization, fit_linear
from terrain3d.register.validate import make_folds, robust_loss

Floats = NDArray[np.float64]

CLEAR_OF_CANOPY = 5.0  # metres of canopy, from which a return lies under trees beyond doubt
TOP = 0.98  # of the heights in a footprint, as the products take it of theirs
COMMON_SIGMA = 1.5  # metres, of what lidar and matching call the top
OWN_SIGMA = 2.0  # metres, of one footprint
FARTHEST = 30.0  # metres up or down that pointing can be off
MIN_CROWNS = 20
MAX_CROWNS = 2000
CONTRADICTS = 3.0  # sigmas by which a few returns on ground that seems open may differ from the crowns


def crown_height(scene: Scene, problem: Linearization) -> Fit | None:
    """Height of the model by returns under trees, its sigma with what tops have in common; None where these are few,
    say what cannot be, or tracks held out fit no better for it. problem: the comparison where the model is."""
    rows = np.flatnonzero(scene.returns.canopy > CLEAR_OF_CANOPY + _relief(scene, problem))
    rows = rows[:: -(-len(rows) // MAX_CROWNS) or 1]
    chosen = scene.select(rows)
    top = chosen.returns.height + chosen.returns.canopy - _tops(chosen, problem.select(rows))
    usable = np.isfinite(top)
    if usable.sum() < MIN_CROWNS:
        return None
    slope = np.hypot(problem.slope_x, problem.slope_y)[rows]
    sigma = np.hypot(OWN_SIGMA, chosen.footprints.place_sigma * slope)
    asked = replace(problem.select(rows), difference=top, sigma=sigma, ground=GroundTest(usable, ()))
    folds = make_folds(asked.track, usable)
    held = np.full(len(top), np.nan)
    for tracks in folds:
        out = np.isin(asked.track, tracks)
        held[out] = top[out] - fit_linear(asked.select(~out), VERTICAL).parameters[DZ]
    told = usable & np.isfinite(held)
    if not told.any() or robust_loss(held[told], sigma[told]) >= robust_loss(top[told], sigma[told]):
        return None
    fit = fit_linear(asked, VERTICAL)
    if abs(fit.parameters[DZ]) > FARTHEST:
        return None
    covariance = fit.covariance.copy()
    covariance[DZ, DZ] += COMMON_SIGMA**2
    return replace(fit, covariance=covariance)


def contradict(ground: Fit, crowns: Fit) -> bool:
    """Whether returns on ground that seems open place a model where its crowns cannot be: then they lie in the forest
    as well, or on its crowns."""
    apart = ground.parameters[DZ] - crowns.parameters[DZ]
    return bool(abs(apart) > CONTRADICTS * np.sqrt(ground.covariance[DZ, DZ] + crowns.covariance[DZ, DZ]))


def _relief(scene: Scene, problem: Linearization) -> Floats:
    """How much higher than the trees a product may say that the canopy is, on the slopes of the model."""
    slope = np.hypot(problem.slope_x, problem.slope_y)
    return np.asarray(canopy_limit(scene.returns, slope) - canopy_limit(scene.returns, 0.0))


def _tops(scene: Scene, problem: Linearization) -> Floats:
    """Top of the model in each footprint, over its slope and at the centre, metres; NaN where too little has values."""
    places = scene.footprints
    top = np.full(len(places.x), np.nan)
    for k in range(len(top)):
        east, north, _ = footprint_samples(places.length[k], places.width[k], places.along_x[k], places.along_y[k])
        heights = scene.dsm.sample(places.x[k] + east - problem.at[0], places.y[k] + north - problem.at[1])
        heights = heights - problem.slope_x[k] * east - problem.slope_y[k] * north
        known = np.isfinite(heights)
        if known.mean() >= MIN_VALID:
            top[k] = np.quantile(heights[known], TOP)
    return top
