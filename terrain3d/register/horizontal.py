"""Horizontal shift of a model: what the returns say, what pointing says, and whether held-out tracks agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.pointing import Pointing
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.register.profile import Profile, likely_shift, profile_shift, telling
from terrain3d.register.scene import Scene
from terrain3d.register.shift import DZ, SHIFT, SHIFT_TILT, VERTICAL, Fit, Linearization, fit_linear
from terrain3d.register.validate import MIN_TRAINING, make_folds, restart, robust_loss

Floats = NDArray[np.float64]

MIN_USED_SHIFT = 25  # some 20 returns agree with a wrong shift by chance as well as with the true one
FAR, FEW = 4.0, 12  # metres of 1-sigma of pointing, from which so few are still better than none
CONSTRAINED_SIGMA = 1.0  # below it the returns are said to determine the horizontal shift
CLEAR_SIGMA = 0.5  # metres; above it other shifts than the one found may be about as likely
MAX_HORIZONTAL_SIGMA = 2.5  # above it they are not asked at all, unless pointing is as far off
MAX_HORIZONTAL = 30.0
HELD_OUT_TOLERANCE = 0.03  # by which held-out tracks may fit worse, which for a small shift is chance


@dataclass(frozen=True)
class Placement:
    """A fit whose horizontal part is settled, and the comparison there. constrained: whether relief and returns alone
    determine it to better than 1 m; reason: what was done and why."""

    fit: Fit
    problem: Linearization
    constrained: bool
    reason: str


def settle_horizontal(
    scene: Scene, fit: Fit, problem: Linearization, unmoved: Linearization, pointing: Pointing
) -> Placement:  # fmt: skip
    """Shift from the profile of the loss around ``fit``, drawn to what pointing says as far as that knows better.

    unmoved: the comparison without a shift. Where returns tell too little, or held-out tracks fit worse for what they
    tell, the model is placed by pointing alone.
    """
    n_used = int((fit.used & ~scene.footprints.level).sum())
    before = Profile(*pointing.sideways(float(fit.parameters[DZ])))
    loose = float(np.sqrt(np.linalg.eigvalsh(before.covariance)[-1]))
    enough, most = (FEW, loose) if loose > FAR else (MIN_USED_SHIFT, MAX_HORIZONTAL_SIGMA)

    def stay(reason: str) -> Placement:
        home = scene.linearize(_pair(before.shift)) if before.shift.any() else unmoved
        height = fit_linear(home, VERTICAL)
        covariance = height.covariance.copy()
        covariance[:DZ, :DZ] = before.covariance
        return Placement(replace(height, covariance=covariance), home, False, reason)

    if n_used < enough:
        return stay(f"{n_used} usable returns do not determine a horizontal shift")
    geolocation = _geolocation_variance(scene.returns, fit)
    folds = make_folds(problem.track, problem.ground.usable)
    free = fit_linear(problem, SHIFT_TILT)  # a tilt that is there would be paid with a shift
    rows = telling(problem, ~scene.footprints.level)
    found = profile_shift(scene.select(rows).linearize, free.parameters[:2], folds)
    sides = np.diag(free.covariance)[:DZ] if found is None else np.diag(found.covariance)
    covariance = _stretched(fit.covariance, np.maximum(np.diag(free.covariance)[:DZ], sides))
    shift = free.parameters[:2] if found is None else found.shift
    alone = float(np.sqrt(np.linalg.eigvalsh(covariance[:2, :2])[-1]))
    sigma = float(np.hypot(alone, np.sqrt(geolocation)))
    length = float(np.hypot(*shift))
    if not sigma < most:
        return stay(f"relief and geolocation of the returns determine a horizontal shift only to {sigma:.1f} m")
    if length > MAX_HORIZONTAL:
        return stay(f"the horizontal shift found, {length:.0f} m, is beyond the search")
    drawn = _drawn(Profile(shift, covariance[:2, :2], () if found is None else found.held), before)
    if alone > CLEAR_SIGMA and float(np.hypot(*(shift - before.shift))) - 2 * alone < 2 * loose:
        drawn = likely_shift(scene.select(rows).linearize, before, shift, folds) or drawn
    held = [before.shift if h is None else h.shift for h in drawn.held]
    if held and not _held_out_agree(scene, scene.linearize(_pair(before.shift)), folds, held):
        return stay("held-out tracks fit worse with a horizontal shift")
    moved = scene.linearize(_pair(drawn.shift))
    covariance[:2, :2] = drawn.covariance
    settled = replace(fit_linear(moved, VERTICAL), covariance=covariance, free=SHIFT)
    reason = f"the returns give a horizontal shift of {length:.2f} m, sigma {sigma:.2f} m"
    return Placement(settled, moved, sigma < CONSTRAINED_SIGMA, reason)


def _geolocation_variance(returns: LidarReturns, fit: Fit) -> float:
    """Variance of the place that the returns themselves give, m2: every track is off as a whole, by what its product
    is known for, however many returns it has."""
    sigma = horizontal_sigma(returns)
    tracks, first = np.unique(returns.track[fit.used], return_index=True)
    return float(1 / np.sum(sigma[fit.used][first] ** -2.0)) if len(tracks) else float("inf")


def _stretched(covariance: Floats, sides: Floats) -> Floats:
    """Covariance of the fit with other variances (2,) of dx and dy."""
    factor = np.ones(5)
    factor[:DZ] = np.sqrt(sides / np.maximum(np.diag(covariance)[:DZ], 1e-12))
    return np.asarray(covariance * np.outer(factor, factor))


def _drawn(found: Profile, before: Profile) -> Profile:
    """A shift, and those without the folds, combined with what pointing says."""
    keep = before.covariance @ np.linalg.inv(found.covariance + before.covariance)
    held = tuple(None if h is None else _drawn(h, before) for h in found.held)
    return Profile(before.shift + keep @ (found.shift - before.shift), keep @ found.covariance, held)


def _pair(shift: Floats) -> tuple[float, float]:
    return float(shift[0]), float(shift[1])


def _held_out_agree(
    scene: Scene, unmoved: Linearization, folds: Sequence[NDArray[np.int32]], shifts: Sequence[Floats]
) -> bool:
    """Whether tracks fit as well, at least, at the shift that the other tracks give as without one."""
    residuals, sigma = [], []
    for tracks, shift in zip(folds, shifts, strict=True):
        moved = scene.linearize(_pair(shift))
        usable = np.isfinite(moved.difference) & np.isfinite(unmoved.difference) & moved.ground.usable
        out = np.isin(moved.track, tracks)
        if (usable & ~out).sum() < MIN_TRAINING:
            return True
        both = []
        for problem in (moved, unmoved):
            training = replace(problem, ground=replace(problem.ground, usable=usable)).select(~out)
            start = np.array([*problem.at, 0.0, 0.0, 0.0])
            height = fit_linear(training, VERTICAL, restart(problem, usable & ~out, start))
            both.append(problem.residuals(height.parameters)[usable & out])
        residuals.append(both)
        sigma.append(moved.sigma[usable & out] * max(height.scale, 1.0))
    with_shift, without = (np.concatenate(r) for r in zip(*residuals, strict=True))
    bound = np.concatenate(sigma)
    return robust_loss(with_shift, bound) <= (1 + HELD_OUT_TOLERANCE) * robust_loss(without, bound)
