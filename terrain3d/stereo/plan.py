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
Rectangle = tuple[int, int, int, int]  # first column and row in a frame, width, height

CORE_PX = 768
MARGIN_PX = 64  # SGM paths have settled after this far
SPARE_PX = 8  # around the common ground, for what the lean of the whole image and the coarse surface leave open
LEAST_PX = 8  # of a core, a side
PLACES = 65  # a side of a square where the surface is looked at
ROUNDING_PX = 0.01  # of the cameras, which would add a row or a column
TURNS = 3  # of a tile's plane and what it covers, each of which depends on the other


@dataclass(frozen=True)
class MatchTask:
    """One tile of a pair to match: the tile with its margins, and the core (first column, row, width, height in the
    tile) whose points are kept. square: number of its square of the frame, to the right and down."""

    pair: Pair
    tile: EpipolarTile
    core: tuple[int, int, int, int]
    square: tuple[int, int]


@dataclass(frozen=True)
class _Common:
    """Ground that both views of a pair show. view: the left one. left, right: footprints at ``height``; lean: of the
    left view, and how much it leans more than the right one, (2,) metres east and north per metre of height."""

    view: View
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

    def laid(self, frame: EpipolarFrame, square: tuple[int, int], core_px: int, height0: float) -> Rectangle:
        """Where the rays of the left view through a square on the plane at ``height`` meet the plane at ``height0``, to
        whole pixels outwards: tiles on planes of their own leave no ray out that way, nor have many in common."""
        column, row = square[0] * core_px, square[1] * core_px
        middle = frame.to_ground(np.array([column + core_px / 2]), np.array([row + core_px / 2]))
        ray = self.view.project(frame.crs, *middle, self.height)
        x, y = frame.from_ground(*self.view.locate(frame.crs, *ray, height0))
        ends = [(float(at[0]) - core_px / 2, float(at[0]) + core_px / 2) for at in (x, y)]
        (left, right), (top, bottom) = (
            (int(np.floor(first + ROUNDING_PX)), int(np.ceil(last - ROUNDING_PX))) for first, last in ends
        )
        return left, top, right - left, bottom - top


def plan_matching(
    views: list[View], pair: Pair, crs: str, surface: CoarseSurface, pixel: float, core_px: int = CORE_PX
) -> list[MatchTask]:
    """Tiles that cover the ground a pair has in common, each on a plane at the mean of its surface."""
    left, right = views[pair.left], views[pair.right]
    height = float(np.median(surface.trend.values))
    frame = epipolar_frame(left, right, crs, height, pixel)
    towards = lean(left, crs, height)
    prints = footprint(left, crs, height), footprint(right, crs, height)
    common = _Common(left, *prints, height, towards, towards - lean(right, crs, height))
    # relief moves the ground on the plane by the lean
    reach = float(np.hypot(*towards)) * (float(surface.high.values.max()) - float(surface.low.values.min()))
    corners = np.array(pair.area.envelope.buffer(2 * reach + SPARE_PX * pixel).exterior.coords)
    x, y = frame.from_ground(corners[:, 0], corners[:, 1])
    tasks = []
    for j in range(int(np.floor(y.min() / core_px)), int(np.floor(y.max() / core_px)) + 1):
        for i in range(int(np.floor(x.min() / core_px)), int(np.floor(x.max() / core_px)) + 1):
            task = _task(frame, pair, (i, j), core_px, surface, common)
            if task is not None:
                tasks.append(task)
    return tasks


def _task(
    frame: EpipolarFrame, pair: Pair, square: tuple[int, int], core_px: int, surface: CoarseSurface, common: _Common
) -> MatchTask | None:
    height0 = common.height
    for _ in range(TURNS):
        height0 = _trend(frame, surface, common.laid(frame, square, core_px, height0))
    column, row, width, height = common.laid(frame, square, core_px, height0)
    places = np.meshgrid(column + np.linspace(0, width, PLACES), row + np.linspace(0, height, PLACES))
    limits = surface.limits_over(*frame.to_ground(*places))

    def covered() -> Rectangle | None:
        return _covered(frame, common.on_plane(*limits, height0), common.laid(frame, square, core_px, height0))

    found = covered()
    for _ in range(TURNS - 1):  # the plane is that of what the images cover of the square, which depends on it a little
        if found is None:
            return None
        height0 = _trend(frame, surface, found)
        found = covered()
    if found is None or min(found[2:]) < LEAST_PX:
        return None
    left, top, width, height = found
    tile = EpipolarTile(
        frame, left - MARGIN_PX, top - MARGIN_PX, width + 2 * MARGIN_PX, height + 2 * MARGIN_PX, height0
    )
    return MatchTask(pair, tile, (MARGIN_PX, MARGIN_PX, width, height), square)


def _trend(frame: EpipolarFrame, surface: CoarseSurface, rectangle: Rectangle) -> float:
    """Trend of the surface in the middle of a rectangle, to a metre."""
    column, row, width, height = rectangle
    centre = frame.to_ground(np.array([column + width / 2]), np.array([row + height / 2]))
    return float(np.round(surface.trend_at(*centre)[0]))


def _covered(frame: EpipolarFrame, area: BaseGeometry, rectangle: Rectangle) -> Rectangle | None:
    """Smallest rectangle that holds what a rectangle has of an area."""
    column, row, width, height = rectangle
    x = np.array([column, column + width, column + width, column], float)
    y = np.array([row, row, row + height, row + height], float)
    square = Polygon(np.column_stack(frame.to_ground(x, y)))
    common = square.intersection(area.buffer(SPARE_PX * frame.pixel))
    if common.is_empty or common.area < 1:
        return None
    px, py = frame.from_ground(*get_coordinates(common).T)
    left, top = max(int(np.floor(px.min())), column), max(int(np.floor(py.min())), row)
    right, bottom = min(int(np.ceil(px.max())), column + width), min(int(np.ceil(py.max())), row + height)
    return left, top, right - left, bottom - top


def rectified_pixel(views: list[View], pair: Pair, crs: str, height: float) -> float:
    """Pixel of the rectified images: the finer ground sample distance of the two, to half a centimetre."""
    gsd = min(ground_sample_distance(views[k], crs, height) for k in (pair.left, pair.right))
    return round(gsd * 200) / 200
