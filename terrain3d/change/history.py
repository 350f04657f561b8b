"""Heights of one place at several times: when each cell first and last changed, and how fast it rises or sinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.filters import Array


@dataclass(frozen=True)
class ChangeDates:
    """Numbers of epochs, from 2 on; 0 where a cell never changed. count: how often it changed."""

    first: NDArray[np.uint8]
    last: NDArray[np.uint8]
    count: NDArray[np.uint8]


def change_dates(significant: NDArray[np.bool_]) -> ChangeDates:
    """From (steps, height, width): whether a cell changed from each epoch to the next."""
    steps = len(significant)
    number = np.arange(2, steps + 2, dtype=np.uint8)[:, None, None]
    when = np.where(significant, number, np.uint8(0))
    first = np.where(significant, number, np.uint8(255)).min(axis=0)
    return ChangeDates(
        np.where(first == 255, 0, first).astype(np.uint8),
        when.max(axis=0).astype(np.uint8),
        significant.sum(axis=0).astype(np.uint8),
    )


def rate(heights: Array, sigma: Array, times: NDArray[np.float64]) -> tuple[Array, Array]:
    """Rise per unit of time and its 1-sigma by weighted least squares, of cells known at two times at least.

    heights, sigma: (epochs, height, width), NaN for no value. times: (epochs,). The sigma also counts how badly a line
    fits, where more than two times tell: it grows by the root of chi-squared over the degrees of freedom, if above 1.
    """
    known = np.isfinite(heights) & np.isfinite(sigma) & (sigma > 0)
    w = np.where(known, 1 / np.square(np.where(known, sigma, 1), dtype=np.float64), 0.0)
    z = np.where(known, heights, 0.0)
    t = times[:, None, None]
    total = w.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle_t, middle_z = (w * t).sum(axis=0) / total, (w * z).sum(axis=0) / total
        spread = (w * (t - middle_t) ** 2).sum(axis=0)
        slope = (w * (t - middle_t) * (z - middle_z)).sum(axis=0) / spread
        chi2 = (w * (z - middle_z - slope * (t - middle_t)) ** 2).sum(axis=0)
        freedom = known.sum(axis=0) - 2
        worse = np.where(freedom > 0, np.sqrt(np.maximum(chi2 / np.maximum(freedom, 1), 1.0)), 1.0)
        own = worse / np.sqrt(spread)
    enough = (freedom >= 0) & (spread > 0)
    return (
        np.where(enough, slope, np.nan).astype(np.float32),
        np.where(enough, own, np.nan).astype(np.float32),
    )
