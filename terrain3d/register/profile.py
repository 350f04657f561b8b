"""Horizontal shift from the whole neighbourhood of the best fit, not from the slope of the surface in one place.

The loss of robust residuals as a function of the shift is rough: the surface's own errors move with the slopes that a
linearization rests on, and a few returns on banks decide which dent the iteration ends in. A paraboloid through the
losses on a grid of shifts, some metres wide, averages the dents; its minimum is the shift and its curvature the
information that the returns really hold.

Where that is little, several dents are about as deep, and the nearest says nothing of the others: then the shift is the
mean over all that the images' pointing allows, each weighed by how likely it makes the returns. Over draws of returns
for towns and plains of the simulator its error is as stated, where that of the minimum is up to twice as large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from terrain3d.register.ground import GroundTest
from terrain3d.register.shift import VERTICAL, VERTICAL_TILT, Linearization, fit_linear

Floats = NDArray[np.float64]

REACH, LEAST_REACH = 2.25, 0.5  # metres: half width of the grid
CLIPPED_WITHIN = 1.5  # of the shift that makes a typical return's residual cost no more: half width of the grid at most
STEPS, TAPER = 3, 2 / 3  # of the half width: steps on either side, and 1-sigma of the weights
LARGEST_MOVE = 2.0  # of the centre of the grid in one turn
TURNS = 4
NEAR_ENOUGH = 0.15
STEEPEST, OTHERS = 300, 100  # returns that are asked
CUT = 3.0  # residuals beyond this many sigma cost no more
FAR, WIDEST = 2.5, 6.0  # half width of the wide grid: in sigmas of pointing, and metres at most
FAR_STEP, FAR_FINE = 0.75, 0.1  # metres: its step, and the finer one between
UNSURE = 10.0  # returns, fewer of which do not tell how often errors are large


@dataclass(frozen=True)
class Profile:
    """shift: (2,) metres east and north at the minimum. covariance: (2, 2) from the curvature there.

    held: minima without each of the folds; None for a fold without which there is none.
    """

    shift: Floats
    covariance: Floats
    held: tuple[Profile | None, ...] = ()


def profile_shift(
    at_shift: Callable[[tuple[float, float]], Linearization], start: Floats, folds: Sequence[NDArray[np.int32]] = ()
) -> Profile | None:
    """Horizontal shift from the profile of the loss around ``start`` (east, north, metres); None if it has no minimum.

    at_shift: compares the returns with the surface moved east and north. folds: tracks to be left out in turn.
    """
    centre = np.asarray(start, float)
    reach = _reach(at_shift((float(centre[0]), float(centre[1]))))
    for _ in range(TURNS):
        tried = _try_around(at_shift, centre, _offsets(reach, reach / STEPS))
        minimum = tried.minimum(tried.usable)
        if minimum is None:
            return None
        found = minimum
        move = found.shift - centre
        centre = centre + np.clip(move, -LARGEST_MOVE, LARGEST_MOVE)
        if np.abs(move).max() < NEAR_ENOUGH:
            break
    held = tuple(tried.minimum(tried.usable & ~np.isin(tried.middle.track, tracks)) for tracks in folds)
    return replace(found, shift=centre, held=held)


def likely_shift(
    at_shift: Callable[[tuple[float, float]], Linearization], before: Profile, start: Floats,
    folds: Sequence[NDArray[np.int32]] = (),
) -> Profile | None:  # fmt: skip
    """Mean and covariance of the horizontal shift, from the loss of all shifts that pointing allows; None where the
    returns lie on the surface for none of these.

    before: the shift by pointing alone. start: middle of the shifts that are tried where these are too many. folds: as
    for ``profile_shift``.
    """
    far = FAR * float(np.sqrt(np.linalg.eigvalsh(before.covariance)[-1]))
    half = int(np.ceil(min(far, WIDEST) / FAR_STEP)) * FAR_STEP
    tried = _try_around(at_shift, before.shift if far <= WIDEST else start, _offsets(half, FAR_STEP))
    found = tried.mean(tried.usable, before)
    if found is None:
        return None
    held = tuple(tried.mean(tried.usable & ~np.isin(tried.middle.track, tracks), before) for tracks in folds)
    return replace(found, held=held)


def telling(problem: Linearization, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of the returns ``which`` (N,) that a profile needs: the steepest for their sigma, and a share of the
    others, for the height."""
    rows = np.flatnonzero(which & problem.ground.usable & np.isfinite(problem.difference))
    says = np.hypot(problem.slope_x, problem.slope_y)[rows] / problem.sigma[rows]
    rows = rows[np.argsort(-says, kind="stable")]
    rest = rows[STEEPEST:]
    return np.sort(np.append(rows[:STEEPEST], rest[:: max(len(rest) // OTHERS, 1)]))


@dataclass(frozen=True)
class _Tried:
    """Comparisons on a grid of shifts. offsets: (G, 2) of the shifts from the middle one. usable: (N,) returns that all
    of them have."""

    middle: Linearization
    offsets: Floats
    problems: list[Linearization]
    usable: NDArray[np.bool_]

    def losses(self, rows: NDArray[np.bool_]) -> tuple[Floats, float]:
        """Loss of some returns at each shift (G,), with the same expected sigma and scale for all, and the scale."""
        choice = GroundTest(rows, ())
        scale = fit_linear(replace(self.middle, ground=choice), VERTICAL).scale
        losses = np.full(len(self.problems), np.nan)
        for k, problem in enumerate(self.problems if np.isfinite(scale) else ()):
            same = replace(problem, sigma=self.middle.sigma, ground=choice)
            # a tilt is free here, for one that is there would be paid with a shift
            residual = same.residuals(fit_linear(same, VERTICAL_TILT).parameters)
            losses[k] = np.minimum((residual / (scale * self.middle.sigma))[rows] ** 2, CUT**2).sum()
        return losses, scale

    def minimum(self, rows: NDArray[np.bool_]) -> Profile | None:
        """Minimum of a paraboloid through the losses of some returns."""
        losses, scale = self.losses(rows)
        if not np.isfinite(scale):
            return None
        x, y = self.offsets.T
        weight = np.exp(-(x**2 + y**2) / (4 * (TAPER * x.max()) ** 2))
        design = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y]) * weight[:, None]
        c = np.linalg.lstsq(design, losses * weight, rcond=None)[0]
        curvature = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            return None
        shift = self.middle.at - np.linalg.solve(curvature, c[1:3])
        return Profile(shift, 2 * np.linalg.inv(curvature) * max(scale, 1.0) ** 2)

    def mean(self, rows: NDArray[np.bool_], before: Profile) -> Profile | None:
        """Mean over all shifts, weighed by how likely they are before the returns are read and by the losses."""
        losses, scale = self.losses(rows)
        if not np.isfinite(scale):
            return None
        steps = np.unique(self.offsets[:, 0])
        fine = np.arange(steps[0], steps[-1] + FAR_FINE / 2, FAR_FINE)
        between = RectBivariateSpline(steps, steps, losses.reshape(len(steps), -1))(fine, fine)
        places = np.column_stack([a.ravel() for a in np.meshgrid(fine, fine)]) + self.middle.at
        away = places - before.shift
        expected = np.einsum("gi,ij,gj->g", away, np.linalg.inv(before.covariance), away)
        chance = -0.5 * (between.ravel() / (1 + UNSURE / max(int(rows.sum()), 1)) + expected)
        chance = np.exp(chance - chance.max())
        chance /= chance.sum()
        shift = chance @ places
        return Profile(shift, (places - shift).T @ ((places - shift) * chance[:, None]))


def _reach(problem: Linearization) -> float:
    """Half width of the grid, metres: beyond it the returns that tell most would all cost the same."""
    rows = problem.ground.usable & np.isfinite(problem.difference)
    scale = fit_linear(problem, VERTICAL_TILT).scale
    slope = np.hypot(problem.slope_x, problem.slope_y)[rows] / (scale * problem.sigma[rows])
    steep = float(np.sqrt(np.mean(slope**2))) if rows.any() else 0.0
    reach = CLIPPED_WITHIN * CUT / steep if steep > 0 else REACH
    return float(np.clip(reach, LEAST_REACH, REACH)) if np.isfinite(reach) else REACH


def _offsets(reach: float, step: float) -> Floats:
    steps = np.arange(-reach, reach + step / 2, step)
    return np.array([(x, y) for y in steps for x in steps])


def _try_around(at_shift: Callable[[tuple[float, float]], Linearization], centre: Floats, offsets: Floats) -> _Tried:
    problems = [at_shift((float(x), float(y))) for x, y in centre + offsets]
    middle = at_shift((float(centre[0]), float(centre[1])))
    usable = middle.ground.usable & np.all([np.isfinite(p.difference) for p in problems], axis=0)
    return _Tried(middle, offsets, problems, usable)
