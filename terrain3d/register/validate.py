"""Validation on whole tracks that were held out, and the report of a registration.

Neighbouring returns of a track see the same ground with the same errors, so random points would validate themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.register.shift import Fit, Linearization
from terrain3d.stats import ErrorSummary, summarize, tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_FOLDS = 5
MIN_TRACKS = 3
MIN_RETURNS = 10
MIN_TRAINING = 4
MIN_GROUP = 5  # returns of which errors are stated
GROSS_SIGMAS = 10.0
GROSS_METRES = 5.0
SLOPES = (("0 to 5 deg", 0, 5), ("5 to 15 deg", 5, 15), ("15 to 30 deg", 15, 30), ("over 30 deg", 30, 89.9))
CANOPIES = (("under 2 m", -np.inf, 2.0), ("2 m and more", 2.0, np.inf))
COVERAGE_BOUNDS = (0.9945, 1.6449, 1.9600)  # in sigma, of 68, 90 and 95 %


@dataclass(frozen=True)
class FoldResult:
    """One fold: the tracks held out, the parameters estimated without them, and the errors on them."""

    tracks: tuple[str, ...]
    parameters: tuple[float, float, float, float, float]
    before: ErrorSummary
    after: ErrorSummary


@dataclass(frozen=True)
class GroupErrors:
    """Errors on the n held-out returns of one group, None where they are too few to tell. by: 'product', 'slope' or
    'canopy'; name: of the group."""

    by: str
    name: str
    n: int
    before: ErrorSummary | None
    after: ErrorSummary | None


@dataclass(frozen=True)
class RegistrationReport:
    """What a registration rests on. Errors are surface minus return, metres, on returns that were held out.

    rejected: returns by the rule that rejected them. before, after: None where too little could be held out, and then
    ``note`` says why; the same returns enter both. Gross errors (beyond 5 m and 10 sigma) are left out of both and
    counted in ``n_gross``. Where enough returns are placed to better than 5 m, only these enter ``before``, ``after``
    and ``coverage``: on a slope the others mostly measure their own geolocation. ``groups`` have all.
    coverage: share of held-out errors within the 1-sigma of surface minus return times 0.99, 1.64 and 1.96, which
    should be 68, 90 and 95 %. That sigma is what products and surface state, times ``scale``, the size of the used
    returns' residuals in units of it, and what is not known of the correction.
    Beams whose geolocation was estimated are placed by their own heights, held out or not.
    """

    n_read: int
    n_used: int
    n_gross: int
    rejected: tuple[tuple[str, int], ...]
    shift: tuple[float, float, float]
    sigma: tuple[float, float, float]
    tilt: tuple[float, float]
    folds: tuple[FoldResult, ...]
    before: ErrorSummary | None
    after: ErrorSummary | None
    scale: float
    coverage: tuple[float, float, float] | None
    groups: tuple[GroupErrors, ...]
    note: str


def make_folds(track: NDArray[np.int32], usable: Bools) -> list[NDArray[np.int32]]:
    """Tracks in up to five groups of about equal numbers of usable returns; empty if there are fewer than 3 tracks."""
    tracks, counts = np.unique(track[usable], return_counts=True)
    if len(tracks) < MIN_TRACKS or counts.sum() < MIN_RETURNS:
        return []
    n_folds = min(MAX_FOLDS, len(tracks))
    groups: list[list[int]] = [[] for _ in range(n_folds)]
    load = np.zeros(n_folds)
    for i in np.lexsort((tracks, -counts)):
        target = int(np.argmin(load))
        groups[target].append(int(tracks[i]))
        load[target] += counts[i]
    return [np.array(sorted(g), np.int32) for g in groups]


def restart(problem: Linearization, training: Bools, start: Floats) -> Floats:
    """Starting parameters of a fold: place and tilt of linearization, height from its own training returns."""
    first = np.asarray(start, float).copy()
    first[2] = 0.0
    first[2] = float(np.median(problem.residuals(first)[training])) if training.any() else 0.0
    near = np.abs(problem.residuals(first)) < 10.0
    if (training & near).any():
        first[2] += float(np.median(problem.residuals(first)[training & near]))
    return first


def bounded_loss(residuals: Floats, sigma: Floats) -> Floats:
    """Tukey's loss of each residual, 0 for none and 1 for all beyond 4.685 sigma."""
    return np.asarray(1 - np.sqrt(tukey_weights(residuals, sigma)) ** 3, float)


def robust_loss(residuals: Floats, sigma: Floats) -> float:
    """Mean of Tukey's bounded loss."""
    return float(np.mean(bounded_loss(residuals, sigma))) if len(residuals) else float("nan")


def gross(residuals: Floats, sigma: Floats) -> Bools:
    """Residuals that no figure of accuracy should contain: cloud, noise photons, a wrong mode."""
    return np.asarray(np.abs(residuals) > np.maximum(GROSS_METRES, GROSS_SIGMAS * sigma))


def fold_results(
    problem: Linearization, before: Floats, residuals: Floats, fits: list[Fit], kept: Bools, names: tuple[str, ...]
) -> tuple[FoldResult, ...]:
    """Summaries by fold; ``before`` and ``residuals`` are return minus surface, the report's sign is the other."""
    usable = problem.ground.usable & np.isfinite(problem.difference)
    results = []
    for held, fit in zip(make_folds(problem.track, usable), fits, strict=True):
        rows = np.isin(problem.track, held) & kept
        dx, dy, dz, tilt_e, tilt_n = (float(v) for v in fit.parameters)
        results.append(
            FoldResult(
                tuple(names[t] for t in held),
                (dx, dy, dz, tilt_e, tilt_n),
                summarize(-before[rows]),
                summarize(-residuals[rows]),
            )
        )
    return tuple(results)


def group_errors(
    returns: LidarReturns, slope: Floats, before: Floats, residuals: Floats, kept: Bools
) -> tuple[GroupErrors, ...]:
    """Summaries by product, slope and canopy of the returns; signs as in ``fold_results``. slope: rise over run."""
    by_track = np.asarray(returns.product, object)[returns.track]
    groups = [("product", name, by_track == name) for name in sorted(set(returns.product))]
    for name, low, high in SLOPES:
        groups.append(("slope", name, (slope >= np.tan(np.radians(low))) & (slope < np.tan(np.radians(high)))))
    groups.append(("canopy", "none stated", np.isnan(returns.canopy)))
    for name, lowest, highest in CANOPIES:
        groups.append(("canopy", name, (returns.canopy >= lowest) & (returns.canopy < highest)))
    out = []
    for by, name, rows in groups:
        told = rows & kept
        n = int(told.sum())
        both = (summarize(-before[told]), summarize(-residuals[told])) if n >= MIN_GROUP else (None, None)
        if n:
            out.append(GroupErrors(by, name, n, *both))
    return tuple(out)


def coverage(residuals: Floats, sigma: Floats) -> tuple[float, float, float]:
    """Share of residuals within 68, 90 and 95 % of a normal distribution of their sigma."""
    size = np.abs(residuals) / sigma
    one, two, three = (float(np.mean(size < bound)) for bound in COVERAGE_BOUNDS)
    return one, two, three
