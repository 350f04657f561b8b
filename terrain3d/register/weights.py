"""What the residuals of a product's returns say of the product: which height of a footprint it gives, and how far the
sigma that it states is to be believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from terrain3d.register.ground import GroundTest
from terrain3d.register.scene import Scene
from terrain3d.register.shift import VERTICAL_TILT, Fit, Linearization, fit_linear
from terrain3d.stats import NMAD_FACTOR

OWN_SHARE = 0.25  # of the expected variance that must be the product's own for a residual to tell of it
MIN_RETURNS = 5
PRIOR_RETURNS = 10  # that the product's own statement counts as much as
LIMITS = (0.25, 4.0)

CUT = 3.0  # residuals beyond this many sigma cost no more
SAID = ("mean", "plane at the centre", "median")
PLAIN = 0.95  # chance
ALIKE = 2.0  # neighbouring returns that share the errors of the surface, and say one thing


def heard_by_product(scene: Scene, problem: Linearization) -> Scene:
    """The scene with the chances of mean, plane and median of each product's footprints by how well they fit.

    Products differ in it and do not all say what they give (a line through photons, their median, the lowest mode); on
    a mountain's bends and edges that is decimetres. Beams that their pointing displaces do not tell.
    """
    footprints, returns = scene.footprints, scene.returns
    tried = [scene.hearing(np.tile(row, (len(returns), 1))).linearize(problem.at) for row in np.eye(3)]
    product = np.asarray(returns.product, object)[returns.track]
    says = footprints.says.copy()
    for name in sorted(set(product)):
        rows = (product == name) & problem.ground.usable
        rows &= np.all([np.isfinite(t.difference) for t in tried], axis=0)
        told = rows & (footprints.shared == 0)
        if told.sum() < MIN_RETURNS:
            continue
        choice = GroundTest(told, ())
        alone = [replace(t, sigma=problem.sigma, ground=choice) for t in tried]
        fits = [fit_linear(t, VERTICAL_TILT) for t in alone]
        scale = min(f.scale for f in fits)
        size = np.array([t.residuals(f.parameters)[told] for t, f in zip(alone, fits, strict=True)])
        loss = (np.minimum(np.abs(size / (scale * problem.sigma[told])), CUT) ** 2).sum(axis=1) / (2 * ALIKE)
        chance = np.exp(loss.min() - loss)
        says[product == name] = chance / chance.sum()
    return scene.hearing(says)


def heard_notes(scene: Scene) -> list[str]:
    """What is plain of what products give of their footprints, in words."""
    product = np.asarray(scene.returns.product, object)[scene.returns.track]
    notes = []
    for name in sorted(set(product)):
        chance = scene.footprints.says[product == name][0]
        if chance.max() > PLAIN:
            notes.append(f"{name} heights are the {SAID[int(chance.argmax())]} of their footprints, as they fit best")
    return notes


def weighed_by_product(scene: Scene, fit: Fit, problem: Linearization) -> Scene:
    """The scene with the sigma of each product in proportion to the spread of its residuals, where there are several
    products: one that states too little would else drown the others."""
    returns = scene.returns
    product = np.asarray(returns.product, object)[returns.track]
    names = sorted(set(product))
    told = problem.ground.usable & np.isfinite(problem.difference)
    told &= returns.sigma**2 > OWN_SHARE * problem.sigma**2
    factor = np.ones(len(returns))
    for name in names if len(names) > 1 else ():
        rows = told & (product == name)
        n = int(rows.sum())
        if n >= MIN_RETURNS:
            size = problem.residuals(fit.parameters)[rows] / (fit.scale * problem.sigma[rows])
            share = float(np.median(returns.sigma[rows] ** 2 / problem.sigma[rows] ** 2))
            own = ((NMAD_FACTOR * np.median(np.abs(size))) ** 2 - (1 - share)) / share  # of the variance stated
            ratio = np.clip(np.sqrt(max(own, 0.0)), *LIMITS)
            factor[product == name] = ratio ** (n / (n + PRIOR_RETURNS))
    return replace(scene, returns=replace(returns, sigma=returns.sigma * factor))
