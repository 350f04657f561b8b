"""Photons of one beam to ground returns: a robust line along the track through the photons of every segment.

Photons and their classes are those of ATL03 (``signal_conf_ph``, ``quality_ph``) and of ATL08 (``classed_pc_flag``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.lidar.rules import RuleSet, Sieve

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]

GROUND, CANOPY, TOP_OF_CANOPY = 1, 2, 3  # classed_pc_flag
LOW_CONFIDENCE = 2  # signal_conf_ph: 2 low, 3 medium, 4 high; less is background
ECHO = 3  # quality_ph of the transmitter echo path
HIGHEST = 1e5  # metres; fill values are larger
MIN_SHARE = 0.8  # of unclassified signal photons that one line must explain
SHARE_OF_100M = 5  # 20 m segments in the 100 m that min_ground_photons is made for
CANOPY_SHARE = 0.98
NO_GROUND = "no ground photons"
ROUNDS = 8  # of the clipping; it has settled after three or four
CLIP = 3.0  # robust standard deviations
NARROWEST = 0.15  # metres; the noise of the range alone, so a flat segment is not clipped to nothing
FEWEST = 3  # photons that a line and its scatter need
STARTERS = 20  # photons that the first line is made of
SURE_SLOPE = 5.0  # metres of track that the photons must span before a slope is fitted


class Grounds(NamedTuple):
    """Fits of N segments; NaN where there are too few photons.

    height: of the line at the mean place of its photons. along: that mean place, metres from the segment's begin.
    used: photons on the line. share: of all candidates that these are. spread: robust scatter of all candidates about
    the line. sigma: of ``height``, from the scatter of the used ones.
    """

    height: Floats
    along: Floats
    used: NDArray[np.int64]
    share: Floats
    spread: Floats
    sigma: Floats


def fit_grounds(along: Floats, height: Floats, first: NDArray[np.int64], last: NDArray[np.int64]) -> Grounds:
    """Ground of each segment whose candidate photons are ``first`` to ``last`` (exclusive) of the arrays.

    Repeated median line (Siegel 1982) through some of the photons, which up to half of them may miss; then least
    squares through those within three scaled median deviations, until they stay the same.
    """
    n = len(first)
    out = np.full((5, n), np.nan)
    used = np.zeros(n, np.int64)
    _fit(np.asarray(along, float), np.asarray(height, float), first, last, out, used)
    return Grounds(out[0], out[1], used, out[2], out[3], out[4])


@dataclass(frozen=True)
class FittedSegments:
    """N segments with the lines through their candidate photons.

    chosen: index of the candidates among all photons; first, last: (N,) those of each segment among them (last
    exclusive); along: (candidates,) metres from the segment's begin. canopy: (N,) height of the canopy over the ground,
    metres, NaN where it is not known. classified: candidates are photons that have the class of the ground.
    """

    fit: Grounds
    chosen: Counts
    first: Counts
    last: Counts
    along: Floats
    canopy: Floats
    classified: bool

    def mean(self, values: Floats) -> Floats:
        """Value at the fitted place of each segment, from those of all photons."""
        return segment_means(values[self.chosen], self.along, self.fit.along, self.first, self.last)

    def mean_longitude(self, degrees: Floats) -> Floats:
        """Longitude of the fitted place of each segment, -180 to 180 degrees."""
        whole = unbroken(degrees[self.chosen], self.first, self.last)
        return (segment_means(whole, self.along, self.fit.along, self.first, self.last) + 180.0) % 360.0 - 180.0

    def sift(self, sieve: Sieve, rules: RuleSet) -> None:
        """Rules on the lines through the photons."""
        fit = self.fit
        sieve.keep(NO_GROUND, self.last > self.first)
        least = max(FEWEST, (rules.min_ground_photons or 0) // SHARE_OF_100M)
        sieve.keep("few ground photons", np.isfinite(fit.height) & (fit.used >= least))
        if not self.classified and rules.max_photon_spread is not None:
            sieve.keep("more than one surface", (fit.share >= MIN_SHARE) & (fit.spread <= rules.max_photon_spread))
        sieve.limit("height sigma", fit.sigma, high=rules.max_height_sigma)


def fit_segments(
    along: Floats, height: Floats, candidate: Bools, label: NDArray[np.int8] | None, offset: Counts, count: Counts
) -> FittedSegments:
    """Lines through the candidates among photons, of which ``count`` from ``offset`` on make each segment.

    along: metres from the segment's begin. label: class of each photon; None where none are known.
    """
    chosen = np.flatnonzero(candidate)
    first, last = np.searchsorted(chosen, offset), np.searchsorted(chosen, offset + count)
    x = along[chosen]
    fit = fit_grounds(x, height[chosen], first, last)
    unknown = np.full(len(offset), np.nan)
    canopy = unknown if label is None else canopy_heights(label, height, offset, count, fit.height)
    return FittedSegments(fit, chosen, first, last, x, canopy, label is not None)


def is_sound(height: Floats, quality: NDArray[Any] | None, rules: RuleSet) -> Bools:
    """Which photons are from the surface as far as the instrument knows, and have a height."""
    sound = np.abs(height) < HIGHEST
    if quality is None:
        return np.asarray(sound)
    return np.asarray(sound & (quality == 0 if rules.require_nominal_photons else quality != ECHO))


def is_signal(confidence: NDArray[Any], rules: RuleSet) -> Bools:
    """Which photons without a class are signal by their confidence for land."""
    return np.asarray(confidence >= max(rules.min_signal_confidence or LOW_CONFIDENCE, LOW_CONFIDENCE))


def unbroken(degrees: Floats, first: Counts, last: Counts) -> Floats:
    """Longitudes without a step of 360 degrees inside a segment, where the track crosses the 180th meridian."""
    if not degrees.size or np.ptp(degrees) <= 180.0:
        return degrees
    start = np.repeat(degrees[np.minimum(first, degrees.size - 1)], last - first)
    return start + (degrees - start + 180.0) % 360.0 - 180.0


def segment_means(values: Floats, x: Floats, along: Floats, first: Counts, last: Counts) -> Floats:
    """Coordinate of the fitted place ``along`` of each segment: linear in x through the coordinates of its photons."""
    n = (last - first).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_v, mean_x = _sums(values, first, last) / n, _sums(x, first, last) / n
        owner = np.repeat(np.arange(len(first)), last - first)
        dv, dx = values - mean_v[owner], x - mean_x[owner]
        steepness = _sums(dv * dx, first, last) / np.maximum(_sums(dx * dx, first, last), 1e-6)
        return mean_v + steepness * (along - mean_x)


def _sums(values: Floats, first: Counts, last: Counts) -> Floats:
    """Sums over consecutive runs that together are all of ``values``."""
    owner = np.repeat(np.arange(len(first)), last - first)
    return np.asarray(np.bincount(owner, values, len(first)), float)


def canopy_heights(label: NDArray[np.int8], height: Floats, offset: Counts, count: Counts, ground: Floats) -> Floats:
    """Height of the canopy photons' 98th percentile over the ground of each segment; NaN where it has none."""
    tall = np.flatnonzero((label == CANOPY) | (label == TOP_OF_CANOPY))
    first, last = np.searchsorted(tall, offset), np.searchsorted(tall, offset + count)
    return quantiles(height[tall], first, last, CANOPY_SHARE) - ground


@njit(cache=True, nogil=True)
def quantiles(values, first, last, share):  # type: ignore[no-untyped-def]
    """Quantile ``share`` of the values ``first`` to ``last`` (exclusive) of each of N runs; NaN for an empty one."""
    out = np.full(len(first), np.nan)
    for s in range(len(first)):
        if last[s] > first[s]:
            run = np.sort(values[first[s] : last[s]])
            place = share * (len(run) - 1)
            low = int(place)
            high = min(low + 1, len(run) - 1)
            out[s] = run[low] + (place - low) * (run[high] - run[low])
    return out


@njit(cache=True, nogil=True)
def _repeated_median(x, h):  # type: ignore[no-untyped-def]
    """Slope of the line: median over points of the median slope to the others; 0 where they lie too close together."""
    n = min(len(x), STARTERS)
    slopes, medians = np.empty(n), np.empty(n)
    found = 0
    for i in range(n):
        p = i * (len(x) - 1) // max(n - 1, 1)
        count = 0
        for j in range(n):
            q = j * (len(x) - 1) // max(n - 1, 1)
            if abs(x[q] - x[p]) > SURE_SLOPE / 2:
                slopes[count] = (h[q] - h[p]) / (x[q] - x[p])
                count += 1
        if count:
            medians[found] = np.median(slopes[:count])
            found += 1
    return np.median(medians[:found]) if found > 1 else 0.0


@njit(cache=True, nogil=True)
def _fit(along, height, first, last, out, used):  # type: ignore[no-untyped-def]
    for s in range(len(first)):
        n = last[s] - first[s]
        if n < FEWEST:
            continue
        x, h = along[first[s] : last[s]], height[first[s] : last[s]]
        slope = _repeated_median(x, h)
        residual = h - slope * x
        residual -= np.median(residual)
        keep = np.ones(n, np.bool_)
        count = 0
        centre, level = 0.0, 0.0
        for _ in range(ROUNDS):
            scale = 1.4826 * np.median(np.abs(residual[keep]))
            limit = CLIP * max(scale, NARROWEST)
            before = count
            keep = np.abs(residual) <= limit
            count = keep.sum()
            if count < FEWEST:
                break
            centre, level = x[keep].mean(), h[keep].mean()
            dx = x[keep] - centre
            if x[keep].max() - x[keep].min() >= SURE_SLOPE:
                slope = (dx * (h[keep] - level)).sum() / (dx * dx).sum()
            residual = h - level - slope * (x - centre)
            if count == before:
                break
        if count < FEWEST:
            continue
        out[0, s], out[1, s] = level, centre
        used[s] = count
        out[2, s] = count / n
        out[3, s] = 1.4826 * np.median(np.abs(residual))
        out[4, s] = max(np.sqrt((residual[keep] ** 2).mean()), NARROWEST / 2) / np.sqrt(count)
