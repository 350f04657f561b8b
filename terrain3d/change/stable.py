"""What stable ground says about errors: calibration of sigma, errors common to blocks, correlation with distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.filters import Array, box_mean
from terrain3d.stats import NMAD_FACTOR, nmad

BLOCK = 50.0  # metres
LEAST_FACTOR = 0.5  # of a nominal sigma that the scene's own differences may reduce it to
CLASSES = 12  # of roughness, for calibration
LEAST_IN_CLASS = 200
Q90 = 1.6449  # 90 % of a normal distribution's absolute values lie within this many sigma
LAGS_CELLS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class StableStatistics:
    """Differences on stable ground, after co-registration.

    nmad: of single cells, metres. registration: NMAD of the medians of 50 m blocks, metres: the part of the error
    that does not average out over an object. calibration: factor on the nominal sigma on smooth ground, at least 1.
    lags, variogram: empirical variogram (m, m2), Dowd's robust estimator. correlation_area: m2 over which random
    errors are as one. n_cells, n_blocks: that stood behind these.
    """

    nmad: float
    registration: float
    calibration: float
    lags: tuple[float, ...]
    variogram: tuple[float, ...]
    correlation_area: float
    n_cells: int
    n_blocks: int


def smooth_limit(rough: Array) -> float:
    """Roughness up to which cells are open ground or roofs rather than crowns: three times the noise of the surface.

    The noise is taken from the smoother quarter of the cells, so it holds where up to three quarters are forest.
    """
    finite = rough[np.isfinite(rough)]
    return max(0.35, 3.0 * float(np.percentile(finite, 25))) if finite.size else 0.35


def stable_cells(difference: Array, sigma: Array, rough: Array) -> NDArray[np.bool_]:
    """Smooth cells whose difference is not gross: within four times the spread of such cells about their median."""
    smooth = np.isfinite(difference) & np.isfinite(sigma) & (rough <= smooth_limit(rough))
    if not smooth.any():
        return smooth
    normalized = np.where(smooth, difference / np.maximum(sigma, 1e-3), np.nan)
    values = normalized[smooth]
    centre, spread = float(np.median(values)), max(nmad(values), 1e-3)
    with np.errstate(invalid="ignore"):
        quiet = np.abs(normalized - centre) < 4 * spread
    # The rim of a change holds small differences too; it is no more stable than the change.
    change = (smooth & ~quiet).astype(np.float32)
    return np.asarray(quiet & (box_mean(change, 9) < 0.25))


def stable_statistics(
    difference: Array, sigma: Array, stable: NDArray[np.bool_], resolution: float
) -> StableStatistics:
    """Figures of the stable cells; zero registration and NaN spread where there are hardly any."""
    n = int(np.count_nonzero(stable))
    if n < 50:
        return StableStatistics(float("nan"), 0.0, 1.0, (), (), resolution**2, n, 0)
    d = np.where(stable, difference, np.float32(np.nan))
    medians = block_medians(d, stable, max(2, round(BLOCK / resolution)))
    registration = nmad(medians) if medians.size >= 4 else float(np.abs(np.median(d[stable])))
    ratio = np.sqrt(sigma[stable] ** 2 + registration**2)
    calibration = max(1.0, nmad(d[stable] / ratio))
    lags, gamma = variogram(d, resolution)
    return StableStatistics(
        nmad=nmad(d[stable]),
        registration=registration,
        calibration=calibration,
        lags=lags,
        variogram=gamma,
        correlation_area=correlation_area(lags, gamma, resolution),
        n_cells=n,
        n_blocks=int(medians.size),
    )


def block_medians(values: Array, valid: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Medians of square blocks of ``size`` cells, of those that are at least a quarter valid."""
    rows, columns = np.arange(values.shape[0]) // size, np.arange(values.shape[1]) // size
    block = rows[:, None] * (columns[-1] + 1) + columns[None, :]
    count = np.bincount(block[valid], minlength=int(block[-1, -1]) + 1)
    full = np.flatnonzero(count >= 0.25 * size * size)
    return np.asarray(ndimage.median(np.where(valid, values, 0), np.where(valid, block, -1), full), float)


def variogram(values: Array, resolution: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Semivariances (m2) at lags (m) along rows and columns, from medians of absolute differences (Dowd 1984)."""
    lags, gammas = [], []
    for lag in LAGS_CELLS:
        if lag >= min(values.shape) // 2:
            break
        step = 1 + values.size // 1_000_000  # a million pairs are plenty
        pairs = [values[:, lag:] - values[:, :-lag], values[lag:] - values[:-lag]]
        absolute = np.concatenate([np.abs(p.ravel()[::step]) for p in pairs])
        absolute = absolute[np.isfinite(absolute)]
        if absolute.size < 100:
            break
        lags.append(lag * resolution)
        gammas.append(float((NMAD_FACTOR * np.median(absolute)) ** 2 / 2))
    return tuple(lags), tuple(gammas)


def correlation_area(lags: tuple[float, ...], gamma: tuple[float, ...], resolution: float) -> float:
    """Area (m2) whose errors count as one: the integral of the correlation over the plane, up to its first zero."""
    if len(lags) < 3:
        return resolution**2
    sill = float(np.max(gamma))
    if sill <= 0:
        return resolution**2
    h = np.r_[0.0, lags]
    rho = np.clip(1 - np.r_[0.0, gamma] / sill, 0.0, 1.0)
    end = int(np.argmax(rho <= 0.02)) if np.any(rho <= 0.02) else len(rho) - 1
    return max(resolution**2, float(2 * np.pi * np.trapezoid(rho[: end + 1] * h[: end + 1], h[: end + 1])))


def calibrated_sigma(difference: Array, sigma: Array, rough: Array) -> Array:
    """Sigma scaled so that the normalized difference has unit spread, class by class of roughness.

    Nominal sigmas are too small where matching is hard and nothing says so, and too large where both epochs err alike
    (the gaps of one wood). The factor of each class is at least LEAST_FACTOR, and interpolated between the classes.
    """
    usable = np.isfinite(difference) & np.isfinite(sigma) & np.isfinite(rough)
    n = int(np.count_nonzero(usable))
    if n < LEAST_IN_CLASS:
        return sigma
    step = 1 + n // 1_000_000
    d, s, r = (v[usable][::step] for v in (difference, sigma, rough))
    # Classes of equal steps in log roughness, so that forest is a class of its own even where it is rare.
    low, high = np.percentile(r, [5, 99.5])
    edges = np.geomspace(max(low, 0.02), max(high, 1.01 * low, 0.021), CLASSES + 1)
    which = np.digitize(r, edges[1:-1])
    centres, factors = [], []
    for k in range(CLASSES):
        members = which == k
        if np.count_nonzero(members) * step < LEAST_IN_CLASS:
            continue
        z = d[members] / s[members]
        centres.append(float(np.sqrt(edges[k] * edges[k + 1])))
        factors.append(max(LEAST_FACTOR, _half_spread(z)))
    if not centres:
        return sigma
    factor = np.interp(np.maximum(rough, 1e-3), centres, factors).astype(np.float32)
    return sigma * factor


def _half_spread(z: NDArray[np.float32]) -> float:
    """Sigma of ``z`` from the narrower of its positive and negative half.

    Errors are about symmetric, while change of one class of surface mostly has one sign: half a wood may be felled
    and the risen half still tells the errors. 90 % of a half lie within its sigma times Q90,
    which also counts the longer tails that errors of matching have.
    """
    halves = [h for h in (z[z > 0], -z[z < 0]) if h.size >= 0.15 * z.size]
    return min((float(np.percentile(h, 90)) / Q90 for h in halves), default=1.0)
