"""Voids of a stereo surface model filled by their cause, and flying cells removed.

Beside a wall the void is an occlusion: what hides there is the low side, so only the lower boundary is continued. Other
voids (texture-poor ground) are closed by a membrane. A void too large to be guessed, or outside the data's footprint,
stays empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from terrain3d.raster import Raster
from terrain3d.surface import membrane
from terrain3d.surface.trend import smooth_trend

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MAX_VOID_AREA = 2000.0  # m2
_WALL_SLOPE = 0.3  # a boundary that rises faster than this over the trend across a void is a wall
_WALL_STEP = 1.0  # m
ISLAND_AREA = 60.0  # m2
_SPIKE_AREA = 12.0  # m2: a chimney or a bush is smaller than what matching can invent at random; a house is not
_FLYING_AREA = ISLAND_AREA  # up to here a patch is judged by its width, which is the root of its area
_DEEPEST = 2.0  # widths: to the bottom of a deeper pit two views more than 28 degrees apart do not see
_AGREED_AREA, _AGREED_SHARE = 1.0, 0.1  # m2, and share of a patch, that two pairs agree upon by no chance
_SLIMMEST = 10.0  # widths: of towers only masts are slimmer, and they are not matched
_GAP_CELLS = 2  # of a void, that what stands beyond it is still beside a patch: ``remove_islands`` joins them too
CLEAN_MARGIN = 64.0  # m: the longest string of cells that is still an island or a spike
FILL_MARGIN = 64.0  # m: beyond it a void's boundary no longer shapes what fills it
_SUNKEN, _AROUND = 3.0, 32.0  # m under what fills a void around an island, m of the void that tells it
LARGEST_SIGMA = 0.8  # m: matches beside a void may be wrong themselves
GROWTH = 0.1  # of the sigma, m per metre from what was measured
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_JIT)
def _cones(low: Singles, domain: NDArray[np.uint8], step: float) -> None:
    """Lower envelope of upward cones from the finite values, in place, along paths in the domain (chamfer 3 x 3)."""
    h, w = low.shape
    diagonal = step * 1.41421356
    for _ in range(2):
        for i in range(h):
            for j in range(w):
                if domain[i, j]:
                    v = low[i, j]
                    if j > 0 and domain[i, j - 1]:
                        v = min(v, low[i, j - 1] + step)
                    if i > 0:
                        if domain[i - 1, j]:
                            v = min(v, low[i - 1, j] + step)
                        if j > 0 and domain[i - 1, j - 1]:
                            v = min(v, low[i - 1, j - 1] + diagonal)
                        if j + 1 < w and domain[i - 1, j + 1]:
                            v = min(v, low[i - 1, j + 1] + diagonal)
                    low[i, j] = v
        for i in range(h - 1, -1, -1):
            for j in range(w - 1, -1, -1):
                if domain[i, j]:
                    v = low[i, j]
                    if j + 1 < w and domain[i, j + 1]:
                        v = min(v, low[i, j + 1] + step)
                    if i + 1 < h:
                        if domain[i + 1, j]:
                            v = min(v, low[i + 1, j] + step)
                        if j > 0 and domain[i + 1, j - 1]:
                            v = min(v, low[i + 1, j - 1] + diagonal)
                        if j + 1 < w and domain[i + 1, j + 1]:
                            v = min(v, low[i + 1, j + 1] + diagonal)
                    low[i, j] = v


def footprint(measured: Bools) -> Bools:
    """Convex hull of the measured cells, as a mask."""
    first, last = row_ends(measured)
    left, right = hull_spans(first, last)
    return between(left, right, 0, measured.shape[1])


def row_ends(measured: Bools) -> tuple[Ints, Ints]:
    """First and last measured column of each row; where there is none, first is the number of columns and last -1."""
    some = measured.any(axis=1)
    first = np.where(some, measured.argmax(axis=1), measured.shape[1])
    last = np.where(some, measured.shape[1] - 1 - measured[:, ::-1].argmax(axis=1), -1)
    return first, last


def hull_spans(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """First and last column of each row of the convex hull of all cells between the ends of rows, as ``row_ends`` gives
    them: the cells inside, and those on the line around it, as Bresenham draws it."""
    rows = np.flatnonzero(last >= first)
    left, right = np.full(first.shape, int(first.max(initial=0)) + 1), np.full(first.shape, -1)
    if rows.size:
        inside = np.arange(rows[0], rows[-1] + 1)
        left[inside] = _drawn(inside, *_lower_hull(rows, first[rows]))
        right[inside] = -_drawn(inside, *_lower_hull(rows, -last[rows]))
    return left, right


def _drawn(rows: Ints, y: list[int], x: list[int]) -> Ints:
    """First column of each row on a line through vertices."""
    # along a flat stretch a row holds all columns where the line is within half a row of it
    flat = np.minimum(*(np.interp(np.clip(rows + d, y[0], y[-1]), y, x) for d in (-0.5, 0.5)))
    return np.minimum(np.floor(np.interp(rows, y, x) + 0.5), np.ceil(flat)).astype(np.int64)


def between(left: Ints, right: Ints, column: int, width: int) -> Bools:
    """Mask of the cells between two columns of each row, (rows, width), from a column on."""
    columns = np.arange(column, column + width)
    return np.asarray((columns >= left[:, None]) & (columns <= right[:, None]))


def _lower_hull(x: Ints, y: Ints) -> tuple[list[int], list[int]]:
    """Vertices of the lower convex hull of points in the order of x (Andrew's monotone chain)."""
    hull: list[tuple[int, int]] = []
    for p in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1 and _turn(hull[-2], hull[-1], p) <= 0:
            hull.pop()
        hull.append(p)
    return [p[0] for p in hull], [p[1] for p in hull]


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def fill_voids(dsm: Raster, sigma: Raster, fill: Bools, origin: tuple[int, int] = (0, 0)) -> tuple[Raster, Raster]:
    """DSM with voids filled, and its sigma.

    dsm, sigma: (h, w) float32 metres, NaN voids. fill: the cells to be filled. origin: place of the first cell, see
    ``membrane.solve``. The sigma of a filled cell starts from that of the nearest measured one and grows with
    distance. Cells farther than ``FILL_MARGIN`` from the border do not depend on what
    lies beyond it.
    """
    if not fill.any():
        return dsm, sigma
    trend = smooth_trend(dsm)
    z = np.asarray(dsm.values, np.float32) - trend
    ring = cv2.dilate(fill.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & np.isfinite(z)
    low = np.where(ring, z, np.float32(np.inf))
    _cones(low, (ring | fill).astype(np.uint8), _WALL_SLOPE * dsm.grid.resolution)
    floor = ring & (z <= low + _WALL_STEP)
    state = np.where(fill, membrane.UNKNOWN, np.where(floor, membrane.FIXED, membrane.OUTSIDE)).astype(np.uint8)
    filled = membrane.solve(np.where(floor, z, np.float32(0)), state, origin)
    out = np.where(fill, filled + trend, dsm.values).astype(np.float32)
    s = _filled_sigma(np.asarray(sigma.values, np.float32), fill, ring, dsm.grid.resolution)
    return replace(dsm, values=out), replace(sigma, values=s)


def _filled_sigma(sigma: Singles, fill: Bools, ring: Bools, resolution: float) -> Singles:
    """Sigma of filled cells: that of the nearest measured one, growing with the distance from it."""
    out = sigma.copy()
    if not ring.any():
        return out
    distance, nearest = cv2.distanceTransformWithLabels(
        (~ring).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at = np.zeros(int(nearest.max()) + 1, np.int32)
    at[nearest[ring]] = np.flatnonzero(ring)
    s = np.minimum(np.nan_to_num(sigma.ravel()[at[nearest[fill]]]), LARGEST_SIGMA)
    out[fill] = np.hypot(s, GROWTH * distance[fill] * resolution)
    return out


def roughness(z: Singles, resolution: float, size: int = 5, limit: float = 2.0) -> Singles:
    """Standard deviation of heights in ``size`` x ``size`` cells, slope taken out, at most ``limit``; 0 at voids."""
    ok = np.isfinite(z)
    if not ok.any():
        return np.zeros(z.shape, np.float32)
    padded = np.pad(z, size // 2, mode="symmetric")
    # squares of heights are far larger than the variance of a few cells: in double precision, from about zero
    mean, variance = _windows(padded, size, float(np.mean(z[ok], dtype=np.float64)))
    plane = (size**2 - 1) / 12 * resolution**2  # variance over the window of a plane of slope one
    return np.where(ok, _without_slope(mean, variance, resolution, plane, limit), np.float32(0))


@njit(**_JIT)
def _windows(z: Singles, size: int, base: float) -> tuple[NDArray[np.float64], Singles]:
    """Mean over ``base`` and variance of the finite cells of all windows inside ``z``; 0 where there are none."""
    h, w = z.shape[0] - size + 1, z.shape[1] - size + 1
    mean, variance = np.empty((h, w)), np.empty((h, w), np.float32)
    count, total, square = np.zeros(w + size - 1), np.zeros(w + size - 1), np.zeros(w + size - 1)
    for i in range(h + size - 1):
        for j in range(w + size - 1):
            if np.isfinite(z[i, j]):
                v = z[i, j] - base
                count[j] += 1
                total[j] += v
                square[j] += v * v
            if i >= size and np.isfinite(z[i - size, j]):
                v = z[i - size, j] - base
                count[j] -= 1
                total[j] -= v
                square[j] -= v * v
        if i < size - 1:
            continue
        n, s, q = 0.0, 0.0, 0.0
        for j in range(w + size - 1):
            n, s, q = n + count[j], s + total[j], q + square[j]
            if j >= size:
                n, s, q = n - count[j - size], s - total[j - size], q - square[j - size]
            if j >= size - 1:
                m = s / max(n, 1.0)
                mean[i - size + 1, j - size + 1] = m
                variance[i - size + 1, j - size + 1] = max(q / max(n, 1.0) - m * m, 0.0)
    return mean, variance


@njit(**_JIT)
def _without_slope(
    mean: NDArray[np.float64], variance: Singles, resolution: float, plane: float, limit: float
) -> Singles:
    """Square root of the variances less ``plane`` times the squared slope of the means, at most ``limit``."""
    h, w = mean.shape
    out = np.empty((h, w), np.float32)
    for i in range(h):
        above, below = max(i - 1, 0), min(i + 1, h - 1)
        for j in range(w):
            left, right = max(j - 1, 0), min(j + 1, w - 1)
            gy = (mean[below, j] - mean[above, j]) / (max(below - above, 1) * resolution)
            gx = (mean[i, right] - mean[i, left]) / (max(right - left, 1) * resolution)
            rest = variance[i, j] - plane * (gx * gx + gy * gy)
            out[i, j] = min(np.sqrt(max(rest, 0.0)), limit)
    return out


def remove_spikes(dsm: Raster, agreed: Bools | None = None, step: float = 3.0, max_area: float = _SPIKE_AREA) -> Raster:
    """DSM without flying cells: small patches that stand off all of their surroundings, above or below.

    agreed: (h, w) cells that more than one pair of images has at their height; a patch above its surroundings that has
    some of them is a tall tree or a tower. step: metres between a patch and every neighbouring cell beyond which they
    are not connected. max_area: m2 up to which such a patch is taken for an error of matching; a larger one is, if it
    is too deep or too high for its width. The cells become NaN.
    """
    z, cell = np.asarray(dsm.values, np.float32), dsm.grid.resolution
    patch, size = _patches(z, np.float32(step))
    flying = max(round(_FLYING_AREA / cell**2), 1)
    off, off_large, above = _least_steps(z, patch, size > flying)
    width = cell * np.sqrt(size)
    slim = np.isfinite(off) & (off > np.where(above, _SLIMMEST, _DEEPEST) * width)
    slim |= np.isfinite(off_large) & (off_large > _SLIMMEST * width)  # whatever other errors touch it
    bad = (size <= max(round(max_area / cell**2), 1)) | ((size <= flying) & slim)
    if agreed is not None:  # errors are each pair's own
        common = np.bincount(patch[agreed], minlength=size.size)
        bad &= ~(above & (common * cell**2 >= _AGREED_AREA) & (common >= _AGREED_SHARE * size))
    bad[0] = False
    return replace(dsm, values=np.where(bad[patch], np.float32(np.nan), z))


def remove_islands(dsm: Raster, max_area: float = ISLAND_AREA) -> Raster:
    """DSM without small islands in the void, which matching invents where images hardly overlap or show water.

    Cells closer than two cells belong together; groups of up to ``max_area`` m2 become NaN.
    """
    label, area = _groups(dsm)
    return replace(dsm, values=np.where((area > max_area)[label], dsm.values, np.float32(np.nan)))


def sunken_islands(dsm: Raster, fill: Bools) -> Bools:
    """Cells of small islands in the voids that lie far under what would fill the void without them, (h, w): matches
    that water and shadows invent, which would pull down all that is filled around. A crown stands above.

    fill: the cells to be filled. Islands are told by what lies within ``_AROUND`` of them.
    """
    label, area = _groups(dsm)
    small = area <= ISLAND_AREA
    small[0] = False
    found = np.isfinite(dsm.values) & small[label]
    out, reach = np.zeros_like(found), round(_AROUND / dsm.grid.resolution)
    for number, box in enumerate(find_objects(np.where(found, label, 0)), 1):
        if box is None:
            continue
        part = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
        z = np.asarray(dsm.values[part], np.float32)
        island, rest = found[part] & (label[part] == number), np.where(found[part], np.float32(np.nan), z)
        around = cv2.dilate(island.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if not (around & fill[part]).any() or not np.isfinite(rest).any():
            continue
        window = replace(dsm, values=rest, grid=dsm.grid.window(part[0].start, part[1].start, *rest.shape))
        without, _ = fill_voids(window, replace(window, values=np.zeros_like(rest)), fill[part] | found[part])
        out[part] |= island & bool(np.median((without.values - z)[island]) > _SUNKEN)
    return out


def largest_group(dsm: Raster) -> float:
    """Area of the largest group of cells that belong together, m2."""
    return float(_groups(dsm)[1].max(initial=0.0))


def _groups(dsm: Raster) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Group of each cell, and the area of the groups' cells that have a value."""
    known = np.isfinite(dsm.values).astype(np.uint8)
    joined = cv2.dilate(known, np.ones((3, 3), np.uint8))
    n, label = cv2.connectedComponents(joined, connectivity=8)
    area = np.bincount(label[known > 0], minlength=n) * dsm.grid.resolution**2
    return np.asarray(label, np.int32), np.asarray(area, float)


@njit(**_JIT)
def _patches(z: Singles, step: float) -> tuple[NDArray[np.int32], Ints]:
    """Number of the 4-connected patch of each cell, whose neighbours differ by less than ``step``, 0 at voids; and the
    cells of each patch, those of one at the border without end."""
    h, w = z.shape
    patch = np.zeros((h, w), np.int32)
    size = np.zeros(h * w + 1, np.int64)
    stack = np.empty(h * w, np.int32)
    number = 0
    for start in range(h * w):
        if patch[start // w, start % w] or not np.isfinite(z[start // w, start % w]):
            continue
        number += 1
        head, tail = 0, 1
        stack[0] = start
        patch[start // w, start % w] = number
        edge = False
        while head < tail:
            i, j = stack[head] // w, stack[head] % w
            head += 1
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if a < 0 or b < 0 or a >= h or b >= w:
                    edge = True
                elif not patch[a, b] and abs(z[i, j] - z[a, b]) < step:  # false beside voids
                    patch[a, b] = number
                    stack[tail] = a * w + b
                    tail += 1
        size[number] = np.int64(2**62) if edge else tail
    return patch, size[: number + 1]


@njit(**_JIT)
def _least_steps(
    z: Singles, patch: NDArray[np.int32], large: Bools
) -> tuple[NDArray[np.float64], NDArray[np.float64], Bools]:
    """Smallest step (m) of each patch to any other beside it or across a gap, and to a large one, infinite without;
    and whether any is lower. Those of large ones are not looked for."""
    h, w = z.shape
    off, off_large = np.full(large.size, np.inf), np.full(large.size, np.inf)
    above = np.zeros(large.size, np.bool_)
    for i in range(h):
        for j in range(w):
            number = patch[i, j]
            if number == 0 or large[number]:
                continue
            for v, u in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                a, b = i + v, j + u
                for _ in range(_GAP_CELLS):
                    if 0 < a < h - 1 and 0 < b < w - 1 and patch[a, b] == 0:
                        a, b = a + v, b + u
                other = patch[a, b]
                if other and other != number:  # a step inside the patch tells nothing of it
                    rise = z[i, j] - z[a, b]
                    off[number] = min(off[number], abs(rise))
                    above[number] = above[number] or rise > 0
                    if large[other]:
                        off_large[number] = min(off_large[number], abs(rise))
    return off, off_large, above
