"""Validation on whole tracks that were held out, and the report of a registration.

Neighbouring returns of a track see the same ground with the same errors, so random points would validate themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.register.shift import Fit, Linearization, fit_linear
from terrain3d.stats import ErrorSummary, summarize, tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_FOLDS = 5
MIN_TRACKS = 3
MIN_RETURNS = 10
MIN_TRAINING = 4
GROSS_SIGMAS = 10.0
GROSS_METRES = 5.0


@dataclass(frozen=True)
class FoldResult:
    """One fold: the tracks held out, the parameters estimated without them, and the errors on them."""

    tracks: tuple[str, ...]
    parameters: tuple[float, float, float, float, float]
    before: ErrorSummary
    after: ErrorSummary


@dataclass(frozen=True)
class ProductErrors:
    """Errors on the held-out returns of one product."""

    product: str
    before: ErrorSummary
    after: ErrorSummary


@dataclass(frozen=True)
class RegistrationReport:
    """What a registration rests on. Errors are surface minus return, metres, on returns that were held out.

    rejected: returns by the rule that rejected them. before, after: None where too little could be held out, and then
    ``note`` says why; the same returns enter both. Gross errors (beyond 5 m and 10 sigma) are left out of both and
    counted in ``n_gross``. Where enough returns are placed to better than 5 m, only these enter ``before`` and
    ``after``: on a slope the others mostly measure their own geolocation. ``by_product`` has all.
    """

    n_read: int
    n_usable: int
    n_used: int
    n_gross: int
    rejected: tuple[tuple[str, int], ...]
    shift: tuple[float, float, float]
    sigma: tuple[float, float, float]
    tilt: tuple[float, float]
    folds: tuple[FoldResult, ...]
    before: ErrorSummary | None
    after: ErrorSummary | None
    by_product: tuple[ProductErrors, ...]
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


def hold_out(problem: Linearization, free: tuple[int, ...], start: Floats) -> tuple[Floats, list[Fit]]:
    """Residuals (return minus surface) of every usable return from a fit that did not see its fold, and those fits.

    The fit starts from the full solution only as the point of linearization; its values come from the other tracks.
    NaN for returns that are not usable; all NaN where there are too few tracks.
    """
    usable = problem.ground.usable & np.isfinite(problem.difference)
    residuals = np.full(len(usable), np.nan)
    fits = []
    for held in make_folds(problem.track, usable):
        out = np.isin(problem.track, held)
        if (usable & ~out).sum() < max(MIN_TRAINING, len(free) + 1):
            return np.full(len(usable), np.nan), []
        fit = fit_linear(problem.select(~out), free, restart(problem, usable & ~out, start))
        residuals[usable & out] = problem.residuals(fit.parameters)[usable & out]
        fits.append(fit)
    return residuals, fits


def restart(problem: Linearization, training: Bools, start: Floats) -> Floats:
    """Starting parameters of a fold: place and tilt of linearization, height from its own training returns."""
    first = np.asarray(start, float).copy()
    first[2] = 0.0
    first[2] = float(np.median(problem.residuals(first)[training])) if training.any() else 0.0
    near = np.abs(problem.residuals(first)) < 10.0
    if (training & near).any():
        first[2] += float(np.median(problem.residuals(first)[training & near]))
    return first


def robust_loss(residuals: Floats, sigma: Floats) -> float:
    """Mean of Tukey's bounded loss, 0 for perfect and 1 for all beyond 4.685 sigma."""
    weight = np.sqrt(tukey_weights(residuals, sigma))
    return float(np.mean(1 - weight**3)) if len(residuals) else float("nan")


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


def product_errors(
    products: tuple[str, ...], track: NDArray[np.int32], before: Floats, residuals: Floats, kept: Bools
) -> tuple[ProductErrors, ...]:
    """Summaries by product, in order of their names; signs as in ``fold_results``."""
    results = []
    for product in sorted(set(products)):
        rows = kept & np.isin(track, [i for i, name in enumerate(products) if name == product])
        if rows.any():
            results.append(ProductErrors(product, summarize(-before[rows]), summarize(-residuals[rows])))
    return tuple(results)
