"""Tiles of a pair: anchored to the CRS, so that every run cuts the same place alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import get_coordinates, union_all
from shapely.affinity import translate
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from terrain3d.image.view import View, footprint, ground_sample_distance, lean
from terrain3d.stereo.epipolar import EpipolarFrame, EpipolarTile, epipolar_frame
from terrain3d.stereo.pairs import Pair
from terrain3d.stereo.trend import CoarseSurface

Floats = NDArray[np.float64]

CORE_PX = 768
MARGIN_PX = 64  # SGM paths have settled after this far
SPARE_PX = 8  # around the common ground, for what the lean of the whole image and the coarse surface leave open
LEAST_PX = 8  # of a core, a side
PLACES = 65  # a side of a square where the surface is looked at


@dataclass(frozen=True)
class MatchTask:
    """One tile of a pair to match: the tile with its margins, and the core (first column, row, width, height in the
    tile) whose points are kept."""

    pair: Pair
    tile: EpipolarTile
    core: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Common:
    """Ground that both views of a pair show. left, right: footprints at ``height``; lean: of the left view, and how
    much it leans more than the right one, (2,) metres east and north per metre of height."""

    left: Polygon
    right: Polygon
    height: float
    lean: Floats
    relative: Floats

    def on_plane(self, low: float, high: float, height0: float) -> BaseGeometry:
        """Where the ground from ``low`` to ``high`` lies on the plane at ``height0``, seen by the left view."""
        reach = [translate(self.right, *(self.relative * (h - self.height))) for h in (low, high)]
        seen = self.left.intersection(union_all(reach).convex_hull)
        return translate(seen, *(self.lean * (self.height - height0)))


def plan_matching(
    views: list[View], pair: Pair, crs: str, surface: CoarseSurface, pixel: float, core_px: int = CORE_PX
) -> list[MatchTask]:
    """Tiles that cover the ground a pair has in common, each on a plane at the mean of its surface."""
    left, right = views[pair.left], views[pair.right]
    height = float(np.median(surface.trend.values))
    frame = epipolar_frame(left, right, crs, height, pixel)
    towards = lean(left, crs, height)
    common = _Common(
        footprint(left, crs, height), footprint(right, crs, height), height, towards, towards - lean(right, crs, height)
    )
    # relief moves the ground on the plane by the lean
    reach = float(np.hypot(*towards)) * (float(surface.high.values.max()) - float(surface.low.values.min()))
    corners = np.array(pair.area.envelope.buffer(2 * reach + SPARE_PX * pixel).exterior.coords)
    x, y = frame.from_ground(corners[:, 0], corners[:, 1])
    tasks = []
    for j in range(int(np.floor(y.min() / core_px)), int(np.floor(y.max() / core_px)) + 1):
        for i in range(int(np.floor(x.min() / core_px)), int(np.floor(x.max() / core_px)) + 1):
            task = _task(frame, pair, i * core_px, j * core_px, core_px, surface, common)
            if task is not None:
                tasks.append(task)
    return tasks


def _task(
    frame: EpipolarFrame, pair: Pair, column: int, row: int, core_px: int, surface: CoarseSurface, common: _Common
) -> MatchTask | None:
    places = np.meshgrid(*(first + np.linspace(0, core_px, PLACES) for first in (column, row)))
    limits = surface.limits_over(*frame.to_ground(*places))
    core, height0 = (column, row, core_px, core_px), _trend(frame, surface, column, row, core_px, core_px)
    for _ in range(2):  # the plane is that of what the images cover of the square, which depends on it a little
        found = _covered(frame, common.on_plane(*limits, height0), column, row, core_px)
        if found is None:
            return None
        core, height0 = found, _trend(frame, surface, *found)
    left, top, width, height = core
    if width < LEAST_PX or height < LEAST_PX:
        return None
    tile = EpipolarTile(
        frame, left - MARGIN_PX, top - MARGIN_PX, width + 2 * MARGIN_PX, height + 2 * MARGIN_PX, height0
    )
    return MatchTask(pair, tile, (MARGIN_PX, MARGIN_PX, width, height))


def _trend(frame: EpipolarFrame, surface: CoarseSurface, column: int, row: int, width: int, height: int) -> float:
    """Trend of the surface in the middle of a rectangle, to a metre."""
    centre = frame.to_ground(np.array([column + width / 2]), np.array([row + height / 2]))
    return float(np.round(surface.trend_at(*centre)[0]))


def _covered(
    frame: EpipolarFrame, area: BaseGeometry, column: int, row: int, core_px: int
) -> tuple[int, int, int, int] | None:
    """Smallest rectangle (first column and row, width, height) that holds what a square has of an area."""
    x = np.array([column, column + core_px, column + core_px, column], float)
    y = np.array([row, row, row + core_px, row + core_px], float)
    square = Polygon(np.column_stack(frame.to_ground(x, y)))
    common = square.intersection(area.buffer(SPARE_PX * frame.pixel))
    if common.is_empty or common.area < 1:
        return None
    px, py = frame.from_ground(*get_coordinates(common).T)
    left, top = max(int(np.floor(px.min())), column), max(int(np.floor(py.min())), row)
    right, bottom = min(int(np.ceil(px.max())), column + core_px), min(int(np.ceil(py.max())), row + core_px)
    return left, top, right - left, bottom - top


def rectified_pixel(views: list[View], pair: Pair, crs: str, height: float) -> float:
    """Pixel of the rectified images: the finer ground sample distance of the two, to half a centimetre."""
    gsd = min(ground_sample_distance(views[k], crs, height) for k in (pair.left, pair.right))
    return round(gsd * 200) / 200
