"""How far the sigma that a product states is to be believed: what the residuals of its returns say of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from terrain3d.register.scene import Scene
from terrain3d.register.shift import Fit, Linearization
from terrain3d.stats import NMAD_FACTOR

OWN_SHARE = 0.25  # of the expected variance that must be the product's own for a residual to tell of it
MIN_RETURNS = 5
PRIOR_RETURNS = 10  # that the product's own statement counts as much as
LIMITS = (0.25, 4.0)


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
