"""Orthophoto at twice the resolution from several views: each saw the ground with its pixels at other places.

Iterative back-projection (Irani and Peleg 1991, CVGIP 53(3)): the fine picture is imaged by the model of every view,
and what its pixels differ from their model is brought back to the cells they saw. Differences are robust (Huber), so
that what has moved or is displaced does not count, and the picture is held by a bilateral total variation (Farsiu et
al. 2004, Fast and robust multiframe super resolution, IEEE TIP 13(10)). Only detail is taken: over metres the picture
stays the true ortho that it began as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.raster import Raster
from terrain3d.stats import nmad
from terrain3d.surface.ortho import RankedView, lonlat, ortho
from terrain3d.surface.visibility import visible

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

FACTOR = 2
POINT_SPREAD = 0.5  # px: deviation of optics and detector together; a contrast of 0.29 at the Nyquist frequency
_REACH = 1.75  # px
_TABLE = 64  # entries a pixel
_ITERATIONS = 8
_STEP = 1.3
_HUBER = 2.5  # NMAD of the residuals
_SMOOTH = 0.05  # of the NMAD of the residuals, a step of the total variation
_DECAY = 0.7
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_DETAIL = 8.0  # px: deviation of the window whose mean residual is not detail
_LEAST_WEIGHT = 0.5  # of that of a pixel whose whole footprint is seen


@dataclass(frozen=True)
class _Seen:
    """A view of the part: pixels (bands, H, W) in the radiometry of the first view, and of each fine cell the line and
    sample in them, and whether it is seen."""

    pixels: Singles
    line: Singles
    sample: Singles
    sees: Bools


def super_resolved(dsm: Raster, views: Sequence[RankedView], inner: tuple[slice, slice]) -> Singles:
    """Values of the inner rows and columns of ``dsm`` on cells of half the size, (bands, 2 h, 2 w), NaN where no view
    sees the cell. Arguments as those of ``ortho``."""
    z, grid = np.asarray(dsm.values, np.float32), dsm.grid
    part = z[inner]
    where = grid.window(inner[0].start or 0, inner[1].start or 0, *part.shape)
    fine = replace(
        where, resolution=grid.resolution / FACTOR, height=part.shape[0] * FACTOR, width=part.shape[1] * FACTOR
    )
    surface = Raster(_finer(part), fine)
    begun = ortho(surface, views)
    if not views or not (begun.source > 0).any():
        return begun.values
    lon, lat = lonlat(fine)
    seen = []
    for view in views:
        sees = np.repeat(np.repeat(visible(z, grid.resolution, view.lean)[inner], FACTOR, 0), FACTOR, 1)
        found = _seen(view, surface.values, lon, lat, sees & np.isfinite(surface.values))
        if found is not None:
            seen.append(found)
    out = begun.values
    for band in range(out.shape[0]):
        out[band] = _reconstructed(out[band], seen, band)
    return out


def _finer(z: Singles) -> Singles:
    """Heights on cells of half the size; no value where the cell has none."""
    known = np.isfinite(z)
    if not known.any():
        return np.full((z.shape[0] * FACTOR, z.shape[1] * FACTOR), np.nan, np.float32)
    _, label = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(int(label.max()) + 1, np.int64)
    index[label[known]] = np.flatnonzero(known)
    base = np.float32(z[known][0])
    whole = cv2.resize(z.ravel()[index[label]] - base, (z.shape[1] * FACTOR, z.shape[0] * FACTOR)) + base
    return np.where(np.repeat(np.repeat(known, FACTOR, 0), FACTOR, 1), whole, np.float32(np.nan)).astype(np.float32)


def _seen(
    view: RankedView, z: Singles, lon: NDArray[np.float64], lat: NDArray[np.float64], sees: Bools
) -> _Seen | None:
    height, width = view.view.shape
    line, sample = (np.full(z.shape, -1e6) for _ in range(2))
    line[sees], sample[sees] = view.view.camera.project(lon[sees], lat[sees], z[sees])
    sees = sees & (line > -0.5) & (sample > -0.5) & (line < height - 0.5) & (sample < width - 0.5)
    if not sees.any():
        return None
    margin = ceil(_REACH) + 1
    r0, r1 = max(int(line[sees].min()) - margin, 0), min(int(line[sees].max()) + margin + 1, height)
    c0, c1 = max(int(sample[sees].min()) - margin, 0), min(int(sample[sees].max()) + margin + 1, width)
    pixels = view.view.read(r0, c0, r1 - r0, c1 - c0) * view.gain[:, None, None] + view.offset[:, None, None]
    return _Seen(pixels, (line - r0).astype(np.float32), (sample - c0).astype(np.float32), sees)


def _reconstructed(begun: Singles, seen: list[_Seen], band: int) -> Singles:
    """One band of the fine picture."""
    known = np.isfinite(begun)
    x = np.where(known, begun, np.float32(np.median(begun[known])))
    table = np.exp(-0.5 * (np.arange(int(_REACH * _TABLE) + 2) / (_TABLE * POINT_SPREAD)) ** 2).astype(np.float32)
    scale = np.float32(0)
    for turn in range(_ITERATIONS):
        total, weight = np.zeros_like(x), np.zeros_like(x)
        for view in seen:
            use = view.sees & known
            pixels = view.pixels[band]
            model, mass = _imaged(x, view.line, view.sample, use, table, *pixels.shape)
            full = np.median(mass[mass > 0]) if (mass > 0).any() else np.float32(1)
            good = np.isfinite(pixels) & (mass > _LEAST_WEIGHT * full)
            rest = np.where(good, pixels - model / np.maximum(mass, 1e-6), np.float32(0)).astype(np.float32)
            rest = np.where(good, rest - _mean_around(rest, good), np.float32(0)).astype(np.float32)
            spread = np.float32(max(float(nmad(rest[good])), 1e-6)) if good.any() else np.float32(1)
            if turn == 0:
                scale = max(scale, spread)
            limit = np.float32(_HUBER) * spread
            _brought_back(np.clip(rest, -limit, limit), good, view.line, view.sample, use, table, total, weight)
        x = (
            x
            + np.float32(_STEP) * total / np.maximum(weight, np.float32(1e-6))
            - _variation(x, np.float32(_SMOOTH) * scale)
        )
        x = x.astype(np.float32)
    return np.where(known, x, np.float32(np.nan))


def _mean_around(rest: Singles, good: Bools) -> Singles:
    """Mean residual over a wider window."""
    weight = cv2.GaussianBlur(good.astype(np.float32), (0, 0), _DETAIL)
    return np.asarray(cv2.GaussianBlur(rest, (0, 0), _DETAIL) / np.maximum(weight, 1e-3), np.float32)


def _variation(x: Singles, step: np.float32) -> Singles:
    """Step down the gradient of the bilateral total variation."""
    out = np.zeros_like(x)
    for down, right in _SHIFTS:
        share = step * np.float32(_DECAY ** (abs(down) + abs(right)))
        a = np.s_[down:, max(right, 0) : x.shape[1] + min(right, 0)]
        b = np.s_[: x.shape[0] - down, max(-right, 0) : x.shape[1] - max(right, 0)]
        sign = share * np.clip((x[a] - x[b]) / (4 * step), -1, 1)  # rounded at zero, so that noise is not kept alive
        out[a] += sign
        out[b] -= sign
    return out


@njit(**_JIT)
def _imaged(
    x: Singles, line: Singles, sample: Singles, use: Bools, table: Singles, height: int, width: int
) -> tuple[Singles, Singles]:
    """Sum of the cells that each pixel sees, weighed by its point spread, and of the weights."""
    total, mass = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if not use[i, j]:
                continue
            a, b = line[i, j], sample[i, j]
            c0, c1 = max(int(np.ceil(b - _REACH)), 0), min(int(np.floor(b + _REACH)), width - 1)
            for r in range(max(int(np.ceil(a - _REACH)), 0), min(int(np.floor(a + _REACH)), height - 1) + 1):
                down = table[int(abs(r - a) * _TABLE)]
                for c in range(c0, c1 + 1):
                    w = down * table[int(abs(c - b) * _TABLE)]
                    total[r, c] += w * x[i, j]
                    mass[r, c] += w
    return total, mass


@njit(**_JIT)
def _brought_back(
    rest: Singles, good: Bools, line: Singles, sample: Singles, use: Bools, table: Singles, total: Singles,
    weight: Singles,
) -> None:  # fmt: skip
    """Add to each cell the residuals of the pixels that see it, and their weights."""
    height, width = rest.shape
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            if not use[i, j]:
                continue
            a, b = line[i, j], sample[i, j]
            c0, c1 = max(int(np.ceil(b - _REACH)), 0), min(int(np.floor(b + _REACH)), width - 1)
            s, m = np.float32(0), np.float32(0)
            for r in range(max(int(np.ceil(a - _REACH)), 0), min(int(np.floor(a + _REACH)), height - 1) + 1):
                down = table[int(abs(r - a) * _TABLE)]
                for c in range(c0, c1 + 1):
                    if good[r, c]:
                        w = down * table[int(abs(c - b) * _TABLE)]
                        s += w * rest[r, c]
                        m += w
            total[i, j] += s
            weight[i, j] += m
