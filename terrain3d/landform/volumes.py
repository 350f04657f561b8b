"""Cut and fill between two surfaces inside polygons, with the sigma of sums whose parts err alike.

Errors of neighbouring cells of a stereo surface are correlated, so the sigma of a volume does not fall with the square
root of the number of cells. The correlation is that of stereo surfaces over open ground: most of the error fades within
the matching window, a share of it over tens of metres. What the whole surface shares (its registration) does not fade.
After Rolstad, Haug and Denby (2009), Spatially integrated geodetic glacier mass balance, Journal of Glaciology 55(192);
here the double sum over all pairs of cells is formed itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
SHORT_RANGE = 2.0  # m
LONG_RANGE = 40.0  # m
LONG_SHARE = 0.2  # of the variance
REACH = 3.0  # ranges; the long part is 1 % there


@dataclass(frozen=True)
class ErrorModel:
    """How errors of cells go together. correlation: exp(-d / short) and exp(-d / long) with shares of the variance.
    common: 1-sigma (m) that all cells share, and that their sigma contains."""

    common: float = 0.0
    long_range: float = LONG_RANGE
    long_share: float = LONG_SHARE
    short_range: float = SHORT_RANGE

    def kernel(self, resolution: float) -> Floats:
        """Correlation at the distances of cells around one, odd side."""
        n = int(np.ceil(self.reach / resolution))
        return self._correlation(np.hypot(*np.mgrid[-n : n + 1, -n : n + 1]) * resolution)

    def _correlation(self, d: Floats) -> Floats:
        short = np.exp(-d / self.short_range)
        return np.asarray((1 - self.long_share) * short + self.long_share * np.exp(-d / self.long_range))

    def alike(self, cells: int, resolution: float) -> float:
        """Sigma of the mean of a square of ``cells`` x ``cells`` over the sigma of one cell, without what is common."""
        steps = np.arange(cells)
        times = np.where(steps == 0, cells, 2 * (cells - steps))  # pairs of rows so many steps apart
        alike = self._correlation(np.hypot(steps[:, None], steps[None, :]) * resolution)
        return float(np.sqrt(np.average(alike, weights=np.outer(times, times))))

    @property
    def reach(self) -> float:
        """Metres beyond which cells count as independent."""
        return REACH * max(self.long_range, self.short_range)


@dataclass(frozen=True)
class PartialVolume:
    """What a part of a polygon adds. area, without: m2 with and without heights in both surfaces. cut, fill: m3, both
    positive. variance: of net, cut, fill (m6), without what is common. areas: of cut and fill,
    m2."""

    area: float = 0.0
    without: float = 0.0
    cut: float = 0.0
    fill: float = 0.0
    variance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    areas: tuple[float, float] = (0.0, 0.0)

    def __add__(self, other: PartialVolume) -> PartialVolume:
        a, b, c = (p + q for p, q in zip(self.variance, other.variance, strict=True))
        return PartialVolume(
            self.area + other.area, self.without + other.without, self.cut + other.cut, self.fill + other.fill,
            (a, b, c), (self.areas[0] + other.areas[0], self.areas[1] + other.areas[1]),
        )  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """Of a polygon, m2 and m3. net: fill - cut. sigmas are NaN where cells have none."""

    area: float
    without: float
    cut: float
    cut_sigma: float
    fill: float
    fill_sigma: float
    net: float
    net_sigma: float


def partial_volume(
    rise: Singles, sigma: Singles | None, weight: Singles, core: tuple[slice, slice], resolution: float,
    model: ErrorModel,
) -> PartialVolume:  # fmt: skip
    """Volume of the core of a window, with the covariance of its cells to all of the window.

    rise: new less old height, metres, NaN for none. sigma: of it. weight: share of each cell inside the polygon. The
    window should reach ``model.reach`` beyond the core where the polygon does.
    """
    cell = resolution**2
    known = np.isfinite(rise)
    w = np.where(known, weight, np.float32(0)).astype(np.float64)
    dz = np.where(known, rise, np.float32(0)).astype(np.float64)
    inner = w[core]
    cut, fill = -(inner * np.minimum(dz[core], 0)).sum(), (inner * np.maximum(dz[core], 0)).sum()
    areas = float((inner * (dz[core] < 0)).sum() * cell), float((inner * (dz[core] > 0)).sum() * cell)
    variance = (np.nan, np.nan, np.nan)
    if sigma is not None:
        local = np.sqrt(np.maximum(np.where(known, sigma, np.float32(0)).astype(np.float64) ** 2 - model.common**2, 0))
        kernel = model.kernel(resolution)
        variance = tuple(  # type: ignore[assignment]
            _double_sum(w * local * part, core, kernel) * cell**2 for part in (1.0, dz < 0, dz > 0)
        )
    without = float((weight[core].astype(np.float64) * ~known[core]).sum() * cell)
    return PartialVolume(float(inner.sum() * cell), without, float(cut * cell), float(fill * cell), variance, areas)


def volume(parts: PartialVolume, model: ErrorModel) -> Volume:
    """Volume of a polygon from the sum of its parts."""
    common = model.common * np.array([parts.area, *parts.areas])
    net, cut, fill = np.sqrt(np.maximum(parts.variance, 0) + common**2)
    return Volume(
        parts.area, parts.without, parts.cut, float(cut), parts.fill, float(fill), parts.fill - parts.cut, float(net)
    )


def _double_sum(values: Floats, core: tuple[slice, slice], kernel: Floats) -> float:
    """Sum over pairs of a cell of the core and a cell of the window, each pair weighed by its correlation."""
    from scipy.signal import fftconvolve  # a third of a second that only volumes need

    if not values[core].any() or not np.isfinite(values).all():
        return 0.0 if np.isfinite(values).all() else float("nan")
    rows, columns = np.flatnonzero(values.any(axis=1)), np.flatnonzero(values.any(axis=0))
    around = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = values[around]
    centre = np.zeros_like(values)
    centre[core] = values[core]
    n = kernel.shape[0] // 2
    r, c = min(n, part.shape[0] - 1), min(n, part.shape[1] - 1)
    near = kernel[n - r : n + r + 1, n - c : n + c + 1]
    return float((centre[around] * fftconvolve(part, near, mode="same")).sum())
