"""Parts of images that show something else than the ground: cloud, dense haze, another season, a saturated area.

Where two images of one place agree on its texture, at a surface that is about right, they show the ground. An image
that agrees with none there shows something else, and in the fusion, the refinement and the ortho it would do harm. With
the correlations of all pairs of images, in windows that are small against a cloud, each image is judged by its best
partner, against the best pair of the others. So at least three images are needed, and where none of them agree, as on
open water, nothing is said by texture. There an image counts as obscured that is much brighter than all others, which
are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.image.view import View
from terrain3d.io.images import read_window
from terrain3d.raster import Raster
from terrain3d.stats import nmad

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
Places = NDArray[np.int32]

LEAST_VIEWS = 3  # of which two tell what the third shows
WINDOW = 9  # cells of the surface, that a correlation is taken over
LEAST_COMMON = 0.5  # of a window
UNLIKE, ALIKE = 0.4, 0.6  # correlation with its best partner of what is obscured; of the best two others
BRIGHT, BRIGHTER = 2.0, 4.0  # above the median of the others: contrasts (NMAD) of the scene, times what these differ
STEEPEST = 1.1  # metres a metre, over a window
LEAST_WIDTH = 5  # cells: of what is obscured
MARGIN_CELLS = WINDOW // 2 + 2 * LEAST_WIDTH
STRIP_LINES = 1024


def find_obscured(
    views: Sequence[View], usable: Sequence[tuple[int, int]], heights: Raster, core: tuple[slice, slice],
    sizes: Sequence[int],
) -> list[Places]:  # fmt: skip
    """What of each view is obscured: row and column of its squares of ``sizes`` pixels a side, (n, 2).

    usable: pairs of views, by number, with a base that heights can be measured with. heights: of the ground, about as
    wide cells. core: those of them that are told of; what is farther off than ``MARGIN_CELLS`` changes
    nothing of their texture, only how bright a view is as a whole.
    """
    light = np.stack([_light(v, heights, size) for v, size in zip(views, sizes, strict=True)])
    apart = disagreeing(light, usable)
    apart |= outshining(light, apart)
    apart &= ~cliffs(heights)
    inner = np.zeros(heights.values.shape, np.bool_)
    inner[core] = True
    return [
        _squares(v, heights, size, _cleaned(cells) & inner) for v, size, cells in zip(views, sizes, apart, strict=True)
    ]


def disagreeing(light: Singles, usable: Sequence[tuple[int, int]]) -> Bools:
    """Cells (views, h, w) at which a view agrees with no other while a usable pair of others agrees.

    light: (views, h, w) what each view shows at the cells, NaN for nothing. usable: pairs of views by number.
    """
    n = len(light)
    best, others = np.full(light.shape, -1, np.float32), np.full(light.shape, -1, np.float32)
    matched = {tuple(sorted(p)) for p in usable}
    for j, k in combinations(range(n), 2):
        alike = correlation(light[j], light[k])
        for i in range(n):
            if i in (j, k):
                np.fmax(best[i], alike, out=best[i])
            elif (j, k) in matched:
                np.fmax(others[i], alike, out=others[i])
    return np.isfinite(light) & (best < UNLIKE) & (others > ALIKE)


def correlation(a: Singles, b: Singles) -> Singles:
    """Correlation of two pictures (h, w) around each cell, NaN where they have too little in common."""
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return np.full(a.shape, np.nan, np.float32)
    share = _mean(both)
    first, second = (np.where(both, v - np.float32(np.nanmedian(v)), 0).astype(np.float64) for v in (a, b))
    weight = np.maximum(share, 1e-6)
    means = _mean(first) / weight, _mean(second) / weight
    variances = [_mean(v * v) / weight - m * m for v, m in zip((first, second), means, strict=True)]
    product = np.sqrt(np.maximum(variances[0], 1e-9) * np.maximum(variances[1], 1e-9))
    found = (_mean(first * second) / weight - means[0] * means[1]) / product
    return np.where(share >= LEAST_COMMON, found, np.nan).astype(np.float32)


def outshining(light: Singles, apart: Bools) -> Bools:
    """Cells (views, h, w) at which a view is far brighter than all others, which are alike. apart: cells that say
    nothing of how bright a view is as a whole."""
    level = light.copy()
    for own, aside in zip(level, apart, strict=True):
        plain = own[np.isfinite(own) & ~aside]
        if plain.size:
            own[:] = (own - np.median(plain)) / max(nmad(plain), 1e-6)
    out = np.zeros(light.shape, np.bool_)
    for i in range(len(level)):
        rest = np.delete(np.where(apart, np.float32(np.nan), level), i, axis=0)
        seen = np.isfinite(rest).sum(axis=0) >= LEAST_VIEWS - 1
        low, high = (f(np.where(np.isfinite(rest), rest, v), axis=0) for f, v in ((np.min, np.inf), (np.max, -np.inf)))
        with np.errstate(invalid="ignore"):
            above = level[i] - high
            out[i] = seen & (above > BRIGHT) & (above > BRIGHTER * (high - low))
    return out


def cliffs(heights: Raster) -> Bools:
    """Cells (h, w) around which a surface is so steep that images differ by what they see of it, and by its errors."""
    window = np.ones((WINDOW, WINDOW), np.uint8)
    relief = cv2.dilate(heights.values, window) - cv2.erode(heights.values, window)
    return np.asarray(relief > STEEPEST * WINDOW * heights.grid.resolution)


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.blur(values.astype(np.float64), (WINDOW, WINDOW), borderType=cv2.BORDER_CONSTANT))


def _light(view: View, heights: Raster, size: int) -> Singles:
    """What a view shows at the cells of a surface, each the mean of ``size`` times as many pixels, NaN for nothing."""
    row, column = _places(view, heights, size)
    last = -(-view.image.height // size) - 1, -(-view.image.width // size) - 1
    inside = (row >= 0) & (column >= 0) & (row <= last[0]) & (column <= last[1])
    if not inside.any():
        return np.full(row.shape, np.nan, np.float32)
    top, left = int(row[inside].min()), int(column[inside].min())
    small = _reduced(view, size, top, left, int(row[inside].max()) + 2 - top, int(column[inside].max()) + 2 - left)
    at = [np.where(inside, a - first, -9).astype(np.float32) for a, first in ((column, left), (row, top))]
    none = float("nan")
    light = cv2.remap(small, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=none)
    return np.asarray(light, np.float32)


def _places(view: View, heights: Raster, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column (h, w) of the cells of a surface in an image reduced ``size`` times."""
    x, y = np.meshgrid(*heights.grid.centres())
    line, sample = view.project(heights.grid.reference.horizontal, x, y, heights.values)
    return (line - (size - 1) / 2) / size, (sample - (size - 1) / 2) / size


def _reduced(view: View, size: int, row: int, column: int, height: int, width: int) -> Singles:
    """Means of a window of squares of pixels of an image, NaN where half of a square has no value."""
    step = max(STRIP_LINES // size, 1)
    out = np.empty((height, width), np.float32)
    for top in range(0, height, step):
        n = min(step, height - top)
        pixels = read_window(view.image, (row + top) * size, column * size, n * size, width * size)
        pixels = pixels.reshape(n, size, width, size)
        seen = np.isfinite(pixels)
        count = seen.sum(axis=(1, 3))
        total = np.where(seen, pixels, 0).sum(axis=(1, 3), dtype=np.float64)
        out[top : top + n] = np.where(2 * count > size * size, total / np.maximum(count, 1), np.nan)
    return out


def _cleaned(cells: Bools) -> Bools:
    """Cells of what is wide enough to be a cloud. Windows reach over its rim, so that needs no more."""
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LEAST_WIDTH, LEAST_WIDTH))
    closed = cv2.morphologyEx(cells.astype(np.uint8), cv2.MORPH_CLOSE, wide)
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, wide) > 0)


def _squares(view: View, heights: Raster, size: int, cells: Bools) -> Places:
    """Squares of a view's image that cells of a surface lie in."""
    if not cells.any():
        return np.zeros((0, 2), np.int32)
    row, column = (np.rint(a[cells]) for a in _places(view, heights, size))
    last = -(-view.image.height // size) - 1, -(-view.image.width // size) - 1
    inside = (row >= 0) & (column >= 0) & (row <= last[0]) & (column <= last[1])
    return np.unique(np.column_stack([row, column])[inside].astype(np.int32), axis=0)
