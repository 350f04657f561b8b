"""Lidar heights as observations of the network: its height, tilt and bends from returns, its inner geometry from ties.

Sequential least squares: the finished free network enters with its normal matrix, so what ties determine stays as they
have it and lidar moves what they leave open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import Adjustment, moved_to, parameters_from, with_parameters
from terrain3d.adjust.heights import (
    heights_by_parameters,
    inside_views,
    offset_sigma,
    pick_returns,
    rough_offset,
    see_footprints,
)
from terrain3d.adjust.ties import Ties
from terrain3d.image.view import View
from terrain3d.points import LidarReturns
from terrain3d.stats import NMAD_FACTOR, most_common, nmad, tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TUKEY_C = 4.685
SCALE_LIMITS = (1.0, 3.0)  # of the residuals in units of their sigma
MIN_FOOTPRINTS = 8
MIN_SHARE = 0.4  # of the footprints that must agree on a height
MIN_SHARE_VISIBLE = 0.15  # of the returns that views have inside; patches are found only near the expected height
HELD_SIGMA_PX = 0.01
MIN_GAIN = 14.0  # chi squared of three parameters that chance exceeds in 3 of 1000 cases
PASSES = 2
TURNS = 20
FOLDS = 8


@dataclass(frozen=True)
class HeightTies:
    """What lidar said of the network; differences are return minus views, metres.

    given: returns. measured: those that the views see ground of. used: those that carried weight in the end.
    median_before, nmad_before: of the used ones in the free network. median_after, nmad_after: with their part in it.
    nmad_held_out: of each without any return of its own track and some others; NaN with fewer than two tracks.
    applied: whether the network follows them; ``reason``: if not, why, else what moved.
    """

    given: int
    measured: int
    used: int
    median_before: float
    nmad_before: float
    median_after: float
    nmad_after: float
    nmad_held_out: float
    applied: bool
    reason: str


@dataclass(frozen=True)
class _Problem:
    """Parameters of the free network (n, p), their normal matrix, where the heights were linearized (n, p), and rows of
    returns: heights by parameters, return minus views there, 1-sigma of that, track."""

    free: Floats
    stiff: Floats
    start: Floats
    design: Floats
    offset: Floats
    sigma: Floats
    track: NDArray[np.int32]

    def select(self, rows: Bools) -> _Problem:
        return replace(self, **{n: getattr(self, n)[rows] for n in ("design", "offset", "sigma", "track")})

    def holding(self, which: Bools) -> _Problem:
        """With parameters ``which`` (n p,) kept where the free network has them."""
        return replace(self, stiff=self.stiff + np.diag(np.where(which, HELD_SIGMA_PX**-2.0, 0.0)))

    def residual(self, parameters: Floats) -> Floats:
        return self.offset - self.design @ (parameters - self.start).ravel()


@dataclass(frozen=True)
class _Solution:
    """Parameters (n, p), Tukey weights of the returns, residuals in units of their sigma (1 or more)."""

    parameters: Floats
    weight: Floats
    scale: float


def level(
    adjustment: Adjustment,
    views: list[View],
    ties: Ties,
    returns: LidarReturns,
    crs: str,
) -> tuple[Adjustment, HeightTies]:
    """The adjustment moved onto lidar heights; as it is, with the reason, where too few returns agree.

    views: with the cameras of the adjustment. returns: usable ground returns; those on roofs, in trees or off by gross
    errors get no weight.
    """
    rows = pick_returns(returns, len(views))
    rows = rows[inside_views(views, returns, rows)]
    if len(rows) < MIN_FOOTPRINTS:
        return adjustment, _refused(returns, 0, f"two views show {len(rows)} lidar returns without canopy")
    lift = rough_offset(adjustment.points, returns.select(rows), crs)
    free = parameters_from(adjustment.cameras)
    stiff = np.asarray(np.linalg.inv(adjustment.covariance), float)
    parameters, before = free, np.full(len(returns), np.nan)
    for turn in range(PASSES):
        cameras = [with_parameters(v.camera, p) for v, p in zip(views, parameters, strict=True)]
        here = [v.with_camera(c) for v, c in zip(views, cameras, strict=True)]
        seen = see_footprints(here, returns, rows, lift if turn == 0 else 0.0, crs)
        if len(seen.at) < MIN_FOOTPRINTS:
            return adjustment, _refused(returns, len(seen.at), f"views see the ground of {len(seen.at)} lidar returns")
        if turn == 0:
            before[seen.at] = seen.offset
        problem = _Problem(
            free, stiff, parameters, heights_by_parameters(cameras, seen, adjustment.along),
            seen.offset, offset_sigma(returns, seen), returns.track[seen.at],
        )  # fmt: skip
        problem, found, moved = _freed(problem)
        parameters = found.parameters
    used = found.weight > 0
    if used.sum() < max(MIN_FOOTPRINTS, MIN_SHARE * len(used), MIN_SHARE_VISIBLE * len(rows)):
        reason = f"{used.sum()} of {len(rows)} lidar returns agree on a height"
        return adjustment, _refused(returns, len(used), reason)
    after, first = problem.residual(parameters)[used], before[seen.at[used]]
    result = HeightTies(
        len(returns), len(used), int(used.sum()), float(np.nanmedian(first)), nmad(first), float(np.median(after)),
        nmad(after), nmad(_held_out(problem)[used]), True, f"{moved} follow lidar",
    )  # fmt: skip
    w = found.weight / (found.scale * problem.sigma) ** 2
    covariance = np.asarray(np.linalg.inv(stiff + (problem.design * w[:, None]).T @ problem.design), float)
    return moved_to(adjustment, ties, parameters, covariance), result


def _refused(returns: LidarReturns, measured: int, reason: str) -> HeightTies:
    nan = float("nan")
    return HeightTies(len(returns), measured, 0, nan, nan, nan, nan, nan, False, f"{reason}: too few to level by")


def _freed(problem: _Problem) -> tuple[_Problem, _Solution, str]:
    """The problem and its solution in which as little moves as the returns allow, and the name of what does: biases,
    then drifts too, then splines too, each only if the returns agree better for it than chance would let them."""
    kind = np.tile([0, 1, 1] + [2] * (problem.free.shape[1] // 2 - 3), 2 * len(problem.free))
    best, moved = problem.holding(kind > 0), "biases"
    solution, lowest = _solved(best, problem.stiff)
    for most, name in ((1, "drifts"), (2, "splines")):
        tried = problem.holding(kind > most)
        found, cost = _solved(tried, problem.stiff)
        if cost < lowest - MIN_GAIN:
            best, solution, lowest, moved = tried, found, cost, f"{moved}, {name}"
    return best, solution, moved


def _solved(problem: _Problem, stiff: Floats) -> tuple[_Solution, float]:
    """The solution and its cost, in units of chi squared."""
    found = _solve(problem)
    change = (found.parameters - problem.free).ravel()
    u = np.minimum(np.abs(problem.residual(found.parameters)) / (TUKEY_C * problem.sigma), 1.0)
    return found, float(TUKEY_C**2 / 3 * np.sum(1 - (1 - u**2) ** 3) + change @ stiff @ change)


def _solve(problem: _Problem) -> _Solution:
    """Robust solution; linear but for the weights."""
    residual, scale = problem.offset - most_common(problem.offset), SCALE_LIMITS[1]
    pull = problem.stiff @ (problem.start - problem.free).ravel()
    parameters = problem.start
    for _ in range(TURNS):
        weight = tukey_weights(residual, scale * problem.sigma, TUKEY_C)
        w = weight / (scale * problem.sigma) ** 2
        normal = problem.stiff + (problem.design * w[:, None]).T @ problem.design
        step = np.linalg.solve(normal, problem.design.T @ (w * problem.offset) - pull)
        before, parameters = parameters, problem.start + step.reshape(problem.start.shape)
        residual = problem.residual(parameters)
        agreeing = np.abs(residual / problem.sigma)[weight > 0]
        if len(agreeing):
            scale = float(np.clip(NMAD_FACTOR * np.median(agreeing), *SCALE_LIMITS))
        if np.abs(parameters - before).max() < 1e-4:
            break
    return _Solution(parameters, weight, scale)


def _held_out(problem: _Problem) -> Floats:
    """Residuals (N,) of returns under the solution without their own track; NaN with fewer than two tracks."""
    tracks, index = np.unique(problem.track, return_inverse=True)
    out = np.full(len(index), np.nan)
    if len(tracks) < 2:
        return out
    for fold in range(min(FOLDS, len(tracks))):
        away = index % FOLDS == fold
        found = _solve(problem.select(~away))
        out[away] = problem.residual(found.parameters)[away]
    return out
