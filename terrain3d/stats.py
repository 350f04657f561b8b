"""Robust statistics of errors, as used by ASPRS accuracy standards and by Hoehle & Hoehle (2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODE_WINDOW = 1.5  # metres, half width of the window that finds the most common difference
NMAD_FACTOR = 1.4826  # 1 / Phi^-1(3/4): the MAD of a normal distribution to its sigma


def nmad(values: Any) -> float:
    """Normalized median absolute deviation of the finite values; NaN if there are none."""
    v = np.asarray(values, float)
    v = v[np.isfinite(v)]
    return float(NMAD_FACTOR * np.median(np.abs(v - np.median(v)))) if v.size else float("nan")


def most_common(values: NDArray[np.float64], half_width: float = MODE_WINDOW) -> float:
    """Median of the values within the window that holds the most of them; survives far more than half of outliers."""
    v = np.sort(values[np.isfinite(values)])
    if not v.size:
        return 0.0
    last = np.searchsorted(v, v + 2 * half_width, side="right")
    first = int(np.argmax(last - np.arange(len(v))))
    return float(np.median(v[first : last[first]]))


@dataclass(frozen=True)
class ErrorSummary:
    """Figures of a set of height errors (estimate minus reference), metres. ``bias`` is the median."""

    n: int
    bias: float
    mean: float
    nmad: float
    rmse: float
    mae: float
    le90: float
    le95: float


def summarize(errors: Any) -> ErrorSummary:
    """ErrorSummary of the finite errors; NaN figures where there are none."""
    e = np.asarray(errors, float).ravel()
    e = e[np.isfinite(e)]
    if not e.size:
        return ErrorSummary(0, *(float("nan"),) * 7)
    a = np.abs(e)
    return ErrorSummary(
        n=int(e.size),
        bias=float(np.median(e)),
        mean=float(e.mean()),
        nmad=nmad(e),
        rmse=float(np.sqrt((e**2).mean())),
        mae=float(a.mean()),
        le90=float(np.percentile(a, 90)),
        le95=float(np.percentile(a, 95)),
    )


def tukey_weights(residuals: NDArray[Any], sigma: Any, c: float = 4.685) -> NDArray[np.float64]:
    """Weights of Tukey's biweight: gross errors beyond c sigma get none."""
    u = np.asarray(residuals, float) / (c * np.asarray(sigma, float))
    return np.where(np.abs(u) < 1, (1 - u**2) ** 2, 0.0)
