"""What stable ground says about errors: calibration of sigma, errors common to blocks, correlation with distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import nnls

from terrain3d.change.filters import Array, box_mean
from terrain3d.stats import NMAD_FACTOR, nmad

BLOCK = 50.0  # metres
LEAST_FACTOR = 0.5  # of a nominal sigma that the scene's own differences may reduce it to
CLASSES = 12  # of roughness, for calibration
LEAST_IN_CLASS = 200
Q90 = 1.6449  # 90 % of a normal distribution's absolute values lie within this many sigma
LAGS_CELLS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TABLE_STEP, TABLE_STEPS = 0.005, 8000  # metres of roughness, and how many; steps of a factor
LONG_RANGE = 25.0  # metres; wider than the windows of matching and what stands on the ground
CROWN_AREA = 64.0  # m2: of a large one, with the shade beside it
PAIRS = 1_000_000  # of a lag, plenty


@dataclass(frozen=True)
class Structure:
    """One part of the errors of cells: its share of their variance, and its practical range (m), beyond which hardly
    any correlation is left: 1 - exp(-3 h / range) in the variogram."""

    share: float
    range: float

    @property
    def area(self) -> float:
        """Area (m2) whose errors of this part count as one: the integral of the correlation over the plane."""
        return float(2 * np.pi * (self.range / 3) ** 2)


@dataclass(frozen=True)
class StableStatistics:
    """Differences on stable ground, after co-registration.

    nmad: of single cells, metres. registration: NMAD of the medians of 50 m blocks, metres: the part of the error
    that does not average out over an object. calibration: factor on the nominal sigma on smooth ground, at least 1.
    lags, variogram: empirical variogram (m, m2), Dowd's robust estimator. structures: what was fitted to it, and sill:
    their variance together (m2).
    n_cells, n_blocks: that stood behind these.
    """

    nmad: float
    registration: float
    calibration: float
    lags: tuple[float, ...]
    variogram: tuple[float, ...]
    structures: tuple[Structure, ...]
    sill: float
    n_cells: int
    n_blocks: int

    def mean_sigma(self, variance: float, area: float) -> float:
        """1-sigma (m) of the mean over an area (m2) of cells with that mean variance (m2), correlation counted.

        Each structure averages out over the areas that it correlates (Rolstad et al. 2009, J. Glaciol. 55, 666-680);
        the registration not at all. Where cells are less certain than on stable ground, it is the errors of matching,
        of short range, that are larger; long waves of a surface are as large everywhere.
        """
        random = max(variance - self.registration**2, 0.0)
        short = [s for s in self.structures if s.range < LONG_RANGE]
        total = sum(s.share for s in short)
        matching = sum(s.share / total * min(1.0, s.area / max(area, 1e-9)) for s in short)
        waves = sum(s.share * min(1.0, s.area / max(area, 1e-9)) for s in self.structures if s.range >= LONG_RANGE)
        return float(np.sqrt(self.registration**2 + random * (matching if short else 1.0) + self.sill * waves))

    def stand_sigma(self, variance: float, area: float) -> float:
        """As ``mean_sigma``, of a stand of trees: what its cells are less certain than stable ground is that crowns are
        there or not in an epoch's matching, each whole and by itself, however far errors of ground reach."""
        known = min(variance, max(self.sill, self.registration**2))
        crowns = (variance - known) * min(1.0, CROWN_AREA / max(area, 1e-9))
        return float(np.hypot(self.mean_sigma(known, area), np.sqrt(crowns)))


def smooth_limit(rough: Array) -> float:
    """Roughness up to which cells are open ground or roofs rather than crowns: three times the noise of the surface.

    The noise is taken from the smoother quarter of the cells, so it holds where up to three quarters are forest.
    """
    finite = rough[np.isfinite(rough)]
    return max(0.35, 3.0 * float(np.percentile(finite, 25))) if finite.size else 0.35


def stable_cells(difference: Array, sigma: Array, rough: Array, limit: float) -> NDArray[np.bool_]:
    """Smooth cells whose difference is not gross: within four times the spread of such cells about their median."""
    smooth = np.isfinite(difference) & np.isfinite(sigma) & (rough <= limit)
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


def stable_statistics(stable: Sequence[Array], sigma: Sequence[Array], resolution: float) -> StableStatistics:
    """Figures of stable ground from one or more parts of a scene.

    stable: differences, NaN where a cell is not stable. sigma: nominal, of the same cells. Zero registration and NaN
    spread where there is hardly any.
    """
    cells = [np.isfinite(d) for d in stable]
    d = np.concatenate([v[c] for v, c in zip(stable, cells, strict=True)] or [np.zeros(0, np.float32)])
    s = np.concatenate([v[c] for v, c in zip(sigma, cells, strict=True)] or [np.zeros(0, np.float32)])
    alone = (Structure(1.0, 0.0),)
    if d.size < 50:
        return StableStatistics(float("nan"), 0.0, 1.0, (), (), alone, 0.0, int(d.size), 0)
    size = max(2, round(BLOCK / resolution))
    medians = np.concatenate([block_medians(v, c, size) for v, c in zip(stable, cells, strict=True)])
    registration = nmad(medians) if medians.size >= 4 else float(np.abs(np.median(d)))
    lags, gamma = variogram(stable, resolution)
    return StableStatistics(
        nmad=nmad(d),
        registration=registration,
        calibration=max(1.0, nmad(d / np.sqrt(s**2 + registration**2))),
        lags=lags,
        variogram=gamma,
        structures=structures(lags, gamma, resolution) or alone,
        sill=max(gamma, default=0.0),
        n_cells=int(d.size),
        n_blocks=int(medians.size),
    )


def block_medians(values: Array, valid: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Medians of square blocks of ``size`` cells, of those that are at least a quarter valid."""
    rows, columns = np.arange(values.shape[0]) // size, np.arange(values.shape[1]) // size
    block = rows[:, None] * (columns[-1] + 1) + columns[None, :]
    count = np.bincount(block[valid], minlength=int(block[-1, -1]) + 1)
    full = np.flatnonzero(count >= 0.25 * size * size)
    return np.asarray(ndimage.median(np.where(valid, values, 0), np.where(valid, block, -1), full), float)


def variogram(parts: Sequence[Array], resolution: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Semivariances (m2) at lags (m) along rows and columns, from medians of absolute differences (Dowd 1984)."""
    lags, gammas = [], []
    for lag in LAGS_CELLS:
        if lag >= min((min(p.shape) for p in parts), default=0) // 2:
            break
        step = 1 + sum(p.size for p in parts) // PAIRS
        pairs = [d for p in parts for d in (p[:, lag:] - p[:, :-lag], p[lag:] - p[:-lag])]
        absolute = np.concatenate([np.abs(p.ravel()[::step]) for p in pairs])
        absolute = absolute[np.isfinite(absolute)]
        if absolute.size < 100:
            break
        lags.append(lag * resolution)
        gammas.append(float((NMAD_FACTOR * np.median(absolute)) ** 2 / 2))
    return tuple(lags), tuple(gammas)


def structures(lags: tuple[float, ...], gamma: tuple[float, ...], resolution: float) -> tuple[Structure, ...]:
    """At most two exponential structures and a nugget that fit a variogram best, shares adding up to 1.

    Least squares over pairs of ranges, sills not negative. The lags lie denser where they are short, and count alike.
    """
    g = np.array(gamma)
    if len(lags) < 3 or g.max(initial=0.0) <= 0:
        return ()
    h = np.array(lags)
    best: tuple[float, tuple[float, float], NDArray[np.float64]] | None = None
    ranges = np.geomspace(2 * resolution, 3 * h[-1], 12)
    for k, short in enumerate(ranges):
        for long in ranges[k + 1 :]:
            design = np.stack([np.ones_like(h), 1 - np.exp(-3 * h / short), 1 - np.exp(-3 * h / long)], axis=1)
            sills, misfit = nnls(design, g)
            if best is None or misfit < best[0]:
                best = float(misfit), (float(short), float(long)), sills
    assert best is not None
    parts = zip(best[2] / best[2].sum(), (0.0, *best[1]), strict=True)
    return tuple(Structure(float(share), reach) for share, reach in parts if share > 1e-3)


@dataclass(frozen=True)
class Calibration:
    """Factors on a nominal sigma by roughness (m), interpolated; none where there was too little to tell."""

    centres: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()

    def of(self, sigma: Array, rough: Array) -> Array:
        """Calibrated sigma, metres."""
        if not self.centres:
            return sigma
        steps = np.arange(TABLE_STEPS, dtype=np.float32) * np.float32(TABLE_STEP)
        table = np.interp(steps, self.centres, self.factors).astype(np.float32)
        index = np.nan_to_num(rough * np.float32(1 / TABLE_STEP), nan=0.0, posinf=TABLE_STEPS, copy=False)
        return sigma * table[np.minimum(index, TABLE_STEPS - 1).astype(np.int32)]


def calibrate(difference: Array, sigma: Array, rough: Array) -> Calibration:
    """Factors that give the normalized difference of any cells (N,) unit spread, class by class of roughness.

    Nominal sigmas are too small where matching is hard and nothing says so, and too large where both epochs err alike
    (the gaps of one wood). The factor of each class is at least LEAST_FACTOR.
    """
    usable = np.isfinite(difference) & np.isfinite(sigma) & np.isfinite(rough)
    n = int(np.count_nonzero(usable))
    if n < LEAST_IN_CLASS:
        return Calibration()
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
    return Calibration(tuple(centres), tuple(factors))


def _half_spread(z: NDArray[np.float32]) -> float:
    """Sigma of ``z`` from the narrower of its positive and negative half.

    Errors are about symmetric, while change of one class of surface mostly has one sign: half a wood may be felled
    and the risen half still tells the errors. 90 % of a half lie within its sigma times Q90,
    which also counts the longer tails that errors of matching have.
    """
    halves = [h for h in (z[z > 0], -z[z < 0]) if h.size >= 0.15 * z.size]
    return min((float(np.percentile(h, 90)) / Q90 for h in halves), default=1.0)
