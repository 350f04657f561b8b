"""Whether the ties show jitter along the track, and how fine: splines are taken only if ties that had no part in them
agree better for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import (
    JITTER_SIGMA_PX,
    TIES_PER_SPLINE,
    Adjustment,
    intersect,
    jitter_prior,
    pointing_prior,
    refine,
    tie_weight,
    with_parameters,
    with_splines,
)
from terrain3d.adjust.normal import joint_step, linear_modes, linearize
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera, along_basis

Floats = NDArray[np.float64]
COUNTS = (6, 12, 24, 48)
MIN_LINES_PER_SPLINE = 40.0
JITTER_SHARE_SEEN = 1.4  # of two views that differ by what both have, and that the prior draws together
MIN_JITTER_PX = 0.02
MIN_GAIN = 0.015  # of the RMS of the ties left out


def follow_jitter(adjustment: Adjustment, ties: Ties, drift: Sequence[bool]) -> Adjustment:
    """The adjustment with splines along the track, if ties show jitter; else as it is.

    drift: as the adjustment was made with.
    """
    count = along_terms(adjustment, ties)
    if not count:
        return adjustment
    wide = pointing_prior(len(adjustment.cameras), drift, count)
    found = refine(adjustment, ties, count, jitter_prior(adjustment, count), wide)
    return replace(found, covariance=_as_large_as_found(found))


def _as_large_as_found(adjustment: Adjustment) -> Floats:
    """Covariance that expects jitter of the size that the views show against each other, also where they would all
    jitter alike, which ties cannot see."""
    splines = np.array([[c.correction.line_along, c.correction.sample_along] for c in adjustment.cameras])
    terms = along_basis(np.linspace(-1, 1, 8 * adjustment.along), adjustment.along)
    swing = JITTER_SHARE_SEEN * np.sqrt(((splines @ terms.T) ** 2).mean())
    # independent coefficients without a linear part make splines that swing less than the coefficients themselves
    modes = linear_modes(adjustment.along)
    free = terms - terms @ modes.T @ modes
    size = max(float(swing / np.sqrt((free**2).sum(axis=1).mean())), MIN_JITTER_PX)
    half = 3 + adjustment.along
    more = np.where(np.arange(len(adjustment.covariance)) % half >= 3, size**-2.0 - JITTER_SIGMA_PX**-2.0, 0.0)
    return np.asarray(np.linalg.inv(np.linalg.inv(adjustment.covariance) + np.diag(more)), float)


def along_terms(adjustment: Adjustment, ties: Ties) -> int:
    """Number of spline coefficients an image that lowers the residuals of held-out ties most; 0 where none does.

    One Gauss-Newton step from the finished adjustment on every other track, judged on the rest.
    """
    cameras = list(adjustment.cameras)
    train = adjustment.used & (ties.track % 2 == 0)
    test = adjustment.used & (ties.track % 2 == 1)
    per_view = np.bincount(ties.view[train], minlength=len(cameras))
    lines = 2 * min(c.rpc.line_scale for c in cameras)
    counts = [k for k in COUNTS if k * TIES_PER_SPLINE <= 2 * per_view.min() and k * MIN_LINES_PER_SPLINE <= lines]
    if not counts or test.sum() < len(cameras) * TIES_PER_SPLINE:
        return 0
    held_out = _subset(ties, test)
    rms = {k: _rms(_fitted(adjustment, ties, train, k), held_out) for k in (0, *counts)}
    best = min(rms, key=lambda k: rms[k])
    return best if rms[best] < (1 - MIN_GAIN) * rms[0] else 0


def _fitted(adjustment: Adjustment, ties: Ties, train: NDArray[np.bool_], k: int) -> list[Camera]:
    cameras, points = list(adjustment.cameras), adjustment.points
    residual = linearize(cameras, ties, points)[1]
    weight = train.astype(float) * tie_weight(int(train.sum()), len(cameras), k, residual[train], ties)
    start = with_splines(cameras, k)
    step, _, _ = joint_step(cameras, ties, points, weight, start, jitter_prior(adjustment, k))
    return [with_parameters(c, p) for c, p in zip(cameras, start + step, strict=True)]


def _subset(ties: Ties, keep: NDArray[np.bool_]) -> Ties:
    return Ties(
        ties.view[keep], np.unique(ties.track[keep], return_inverse=True)[1], ties.line[keep], ties.sample[keep]
    )


def _rms(cameras: list[Camera], ties: Ties) -> float:
    height = float(np.mean([c.rpc.height_off for c in cameras]))
    residual = linearize(cameras, ties, intersect(cameras, ties, height))[1]
    return float(np.sqrt((residual**2).mean()))
