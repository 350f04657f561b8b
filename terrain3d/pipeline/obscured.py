"""Parts of a scene's images that cloud or the like hides are left out of all that follows the coarse surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely import box

from terrain3d.image.view import View, footprint, ground_sample_distance
from terrain3d.io.images import Obscured
from terrain3d.pipeline.growth import kept_pairs
from terrain3d.pipeline.threads import Workers, for_each, learned
from terrain3d.raster import Grid, Raster
from terrain3d.stereo.obscured import LEAST_VIEWS, MARGIN_CELLS, Places, find_obscured
from terrain3d.stereo.pairs import Pair, with_clear_partners
from terrain3d.stereo.trend import CoarseSurface

BLOCK_CELLS = 512
TOLD = 0.01  # share of an image, from which on a user is told

_Item = tuple[Grid, Raster, tuple[slice, slice], list[View], list[int], list[tuple[int, int]]]
_Named = dict[str, Obscured | None]


def without_obscured(
    views: list[View], pairs: list[Pair], surface: CoarseSurface, workers: Workers, tell: Callable[[str], None]
) -> tuple[list[View], list[Pair]]:
    """Views without what is obscured, and pairs with those added that make up for it. pairs: as decided."""
    named = dict(zip([v.name for v in views], _found(views, pairs, surface.height, workers), strict=True))
    named = learned("obscured parts", named, workers, lambda old, new: new | old)
    if not any(named.values()):
        return views, pairs
    clear = [replace(v, image=replace(v.image, obscured=named[v.name])) for v in views]
    for v in clear:
        if (share := obscured_share(v)) >= TOLD:
            what = f"{100 * share:.0f} % of it shows something else than the other images do"
            tell(f"{v.name}: {what}, such as cloud, haze or snow; left out there")
    more = with_clear_partners(pairs, [1 - obscured_share(v) for v in clear])
    return clear, kept_pairs(more, clear, workers, "pairs of clear parts")


def obscured_share(view: View) -> float:
    """Share of a view that is obscured."""
    return 0.0 if view.image.obscured is None else view.image.obscured.share


def _found(views: list[View], pairs: list[Pair], heights: Raster, workers: Workers) -> list[Obscured | None]:
    """What of each view is obscured; None where nothing is. heights: of a coarse surface."""
    middle, crs = float(np.median(heights.values)), heights.grid.reference.horizontal
    gsd = [ground_sample_distance(v, crs, middle) for v in views]
    sizes = [max(round(heights.grid.resolution / g), 1) for g in gsd]
    items, shown = _items(views, pairs, heights, sizes)

    def work(item: _Item) -> list[Places]:
        _, part, core, seen, of_seen, usable = item
        return find_obscured(seen, usable, part, core, of_seen)

    shapes = [[-(-n // s) for n in v.image.shape] for v, s in zip(views, sizes, strict=True)]
    squares = [np.zeros(shape, np.uint8) for shape in shapes]
    for numbers, found in zip(shown, for_each(work, items, workers), strict=True):
        for k, at in zip(numbers, found or [], strict=False):  # none where the work has failed
            squares[k][at[:, 0], at[:, 1]] = 1
    return [_obscured(cells, size) for cells, size in zip(squares, sizes, strict=True)]


def _obscured(squares: NDArray[np.uint8], size: int) -> Obscured | None:
    if not squares.any():
        return None
    whole = cv2.morphologyEx(squares, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))  # cells are no squares of pixels
    return Obscured(whole > 0, size)


def _items(
    views: list[View], pairs: list[Pair], heights: Raster, sizes: list[int]
) -> tuple[list[_Item], list[list[int]]]:
    """Parts of the ground that enough views show, with what is to be known of them, and the numbers of these views."""
    grid, z = heights.grid, heights.values
    low, high = float(z.min()), float(z.max())
    prints = [
        footprint(v, grid.reference.horizontal, low).union(footprint(v, grid.reference.horizontal, high)).convex_hull
        for v in views
    ]
    usable = [(p.left, p.right) for p in pairs if p.has_usable_base]
    items, shown = [], []
    for top in range(0, grid.height, BLOCK_CELLS):
        for left in range(0, grid.width, BLOCK_CELLS):
            row, column = max(top - MARGIN_CELLS, 0), max(left - MARGIN_CELLS, 0)
            end = min(top + BLOCK_CELLS, grid.height), min(left + BLOCK_CELLS, grid.width)
            height, width = (
                min(e + MARGIN_CELLS, n) - f for e, n, f in zip(end, grid.shape, (row, column), strict=True)
            )
            part = grid.window(row, column, height, width)
            seen = [k for k, p in enumerate(prints) if p.intersects(box(*part.bounds))]
            if len(seen) < LEAST_VIEWS:
                continue
            core = slice(top - row, end[0] - row), slice(left - column, end[1] - column)
            place = {k: i for i, k in enumerate(seen)}
            both = [(place[i], place[j]) for i, j in usable if i in place and j in place]
            around = Raster(np.ascontiguousarray(z[row : row + height, column : column + width]), part)
            items.append((part, around, core, [views[k] for k in seen], [sizes[k] for k in seen], both))
            shown.append(seen)
    return items, shown
