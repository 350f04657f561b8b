"""Whether the ties show jitter along the track, and how fine: splines are taken only if ties that had no part in them
agree better for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import TIES_PER_SPLINE, Adjustment, intersect, prior_sigmas, tie_weight, with_parameters
from terrain3d.adjust.normal import joint_step, linearize, parameters_of
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera

COUNTS = (6, 12, 24, 48)
MIN_LINES_PER_SPLINE = 40.0
MIN_GAIN = 0.015  # of the RMS of the ties left out


def along_terms(adjustment: Adjustment, ties: Ties, drift: Sequence[bool]) -> int:
    """Number of spline coefficients an image that lowers the residuals of held-out ties most; 0 where none does.

    One Gauss-Newton step from the finished adjustment on every other track, judged on the rest.
    """
    cameras = list(adjustment.cameras)
    train = adjustment.used & (ties.track % 2 == 0)
    test = adjustment.used & (ties.track % 2 == 1)
    per_view = np.bincount(ties.view[train], minlength=len(cameras))
    lines = 2 * min(c.rpc.line_scale for c in cameras)
    counts = [k for k in COUNTS if k * TIES_PER_SPLINE <= per_view.min() and k * MIN_LINES_PER_SPLINE <= lines]
    if not counts or test.sum() < len(cameras) * TIES_PER_SPLINE:
        return 0
    held_out = _subset(ties, test)
    rms = {k: _rms(_fitted(cameras, ties, adjustment.points, train, k, drift), held_out) for k in (0, *counts)}
    best = min(rms, key=lambda k: rms[k])
    return best if rms[best] < (1 - MIN_GAIN) * rms[0] else 0


def _fitted(
    cameras: list[Camera], ties: Ties, points: NDArray[np.float64], train: NDArray[np.bool_], k: int,
    drift: Sequence[bool],
) -> list[Camera]:  # fmt: skip
    a, residual = linearize(cameras, ties, points)
    half = parameters_of(k) // 2
    parameters = np.zeros((len(cameras), 2, half))
    parameters[..., :3] = [[c.correction.line, c.correction.sample] for c in cameras]
    parameters = parameters.reshape(len(cameras), -1)
    weight = train * tie_weight(int(train.sum()), len(cameras), k, residual[train], ties)
    prior = prior_sigmas(len(cameras), drift, k)
    step, _, _ = joint_step(cameras, a, residual, weight, ties, parameters, prior)
    return [with_parameters(c, p) for c, p in zip(cameras, parameters + step, strict=True)]


def _subset(ties: Ties, keep: NDArray[np.bool_]) -> Ties:
    return Ties(
        ties.view[keep], np.unique(ties.track[keep], return_inverse=True)[1], ties.line[keep], ties.sample[keep]
    )


def _rms(cameras: list[Camera], ties: Ties) -> float:
    height = float(np.mean([c.rpc.height_off for c in cameras]))
    residual = linearize(cameras, ties, intersect(cameras, ties, height))[1]
    return float(np.sqrt((residual**2).mean()))
