"""Matching of a whole scene: a coarse pass that finds the surface, then every pair tile by tile, on several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.errors import OverlapError
from terrain3d.image.view import View
from terrain3d.io.scratch import Place
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.spool import Part, Spool, save_part
from terrain3d.pipeline.threads import Workers, for_each
from terrain3d.points import PointCloud
from terrain3d.raster import Grid, Raster
from terrain3d.stereo.dense import DensePoints, match_tile
from terrain3d.stereo.pairs import Pair
from terrain3d.stereo.plan import MatchTask, plan_matching, rectified_pixel
from terrain3d.stereo.sgm import SgmBuffers
from terrain3d.stereo.trend import CoarseSurface, coarse_surface, flat_surface

COARSE_REDUCTION = 4
COARSE_BLOCK = 512
COARSE_CELL_PX = 8  # image pixels per cell of the coarse surface
BELOW_TIES_M, ABOVE_TIES_M = 30.0, 60.0  # ties lie on textured ground; roofs and gorges reach further


class _Buffers(threading.local):
    """Buffers of the matcher, one set a thread, kept from tile to tile."""

    def __init__(self) -> None:
        self.sgm = SgmBuffers()

    def __reduce__(self) -> str:
        return "_BUFFERS"  # another process has its own


_BUFFERS = _Buffers()


_Item = tuple[int, MatchTask, View, View]  # number of the pair, tile, left and right view


def _name(pair: int, task: MatchTask) -> str:
    return f"{pair:03d}_{task.square[0]}_{task.square[1]}"


def pair_bounds(pairs: list[Pair]) -> tuple[float, float, float, float]:
    """West, south, east, north of the ground that the pairs have in common."""
    b = np.array([p.area.bounds for p in pairs])
    return float(b[:, 0].min()), float(b[:, 1].min()), float(b[:, 2].max()), float(b[:, 3].max())


def coarse_pass(
    views: list[View],
    pairs: list[Pair],
    reference: Reference,
    heights: tuple[float, float],
    folder: Place,
    workers: Workers,
    reporter: Reporter,
) -> CoarseSurface:
    """Surface of the scene at an eighth of the image resolution, from matching at a quarter.

    heights: of the tie points. folder: for the points meanwhile. Raises OverlapError if nothing matches.
    """
    low, high = heights[0] - BELOW_TIES_M, heights[1] + ABOVE_TIES_M
    pixel = rectified_pixel(views, pairs[0], reference.horizontal, (low + high) / 2)
    bounds = pair_bounds(pairs)
    start = flat_surface(reference, bounds, low, high)
    tasks = [
        (k, t, views[p.left], views[p.right])
        for k, p in enumerate(pairs)
        for t in plan_matching(views, p, reference.horizontal, start, COARSE_REDUCTION * pixel)
    ]

    def work(item: _Item) -> Part | None:
        k, task, left, right = item
        points = match_tile(
            left, right, task.tile, start, _BUFFERS.sgm, reduction=COARSE_REDUCTION, margin_m=0.0, polish=False
        )
        return save_part(folder / f"coarse_{_name(k, task)}.npy", _cloud(points, task, reference, 0))

    reporter.stage("coarse surface", len(tasks))
    grid = Grid.from_bounds(reference, *bounds, COARSE_CELL_PX * pixel)
    parts = [p for p in for_each(work, tasks, workers, reporter) if p is not None]
    spool = Spool(reference, tuple(parts))
    surface = np.full(grid.shape, np.nan, np.float32)
    for row in range(0, grid.height, COARSE_BLOCK):
        for column in range(0, grid.width, COARSE_BLOCK):
            here = np.s_[row : row + COARSE_BLOCK, column : column + COARSE_BLOCK]
            part = grid.window(row, column, *surface[here].shape)
            xyz = spool.within(part, part.resolution).xyz
            inside = (xyz[:, 2] >= low) & (xyz[:, 2] <= high)  # the matcher's vectors reach farther
            surface[here] = median_heights(xyz[inside], part)
    if not np.isfinite(surface).any():
        raise OverlapError(
            "no ground could be matched in any pair",
            fix="check the images for cloud, snow, water or ground without texture",
        )
    return coarse_surface(Raster(surface, grid))


def median_heights(xyz: NDArray[np.float64], grid: Grid) -> NDArray[np.float32]:
    """Median height of the points of every cell, (h, w), NaN where there are fewer than three."""
    column, row = (np.rint(a).astype(np.int64) for a in grid.column_row(xyz[:, 0], xyz[:, 1]))
    inside = (column >= 0) & (row >= 0) & (column < grid.width) & (row < grid.height)
    cell, z = (row * grid.width + column)[inside], xyz[inside, 2]
    order = np.lexsort((z, cell))
    cells, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    out = np.full(grid.height * grid.width, np.nan, np.float32)
    enough = count >= 3
    out[cells[enough]] = z[order][first[enough] + count[enough] // 2]
    return out.reshape(grid.shape)


def _cloud(points: DensePoints, task: MatchTask, reference: Reference, pair: int) -> PointCloud:
    """The points that lie in the core of a task."""
    inside = _in_core(points, task)
    return PointCloud(
        reference, points.xyz[inside], points.sigma[inside], points.confidence[inside],
        np.full(int(inside.sum()), min(pair, 255), np.uint8),
        np.clip(np.rint(points.intensity[inside]), 0, 65535).astype(np.uint16),
    )  # fmt: skip


def _in_core(points: DensePoints, task: MatchTask) -> NDArray[np.bool_]:
    column, row, width, height = task.core
    x, y = points.pixel[:, 0], points.pixel[:, 1]
    return (x >= column) & (x < column + width) & (y >= row) & (y < row + height)


def match_scene(
    views: list[View],
    pairs: list[Pair],
    reference: Reference,
    surfaces: Sequence[CoarseSurface],
    folder: Place,
    workers: Workers,
    reporter: Reporter,
) -> Spool:
    """Match all pairs in full, each from its coarse surface; the points go to files of ``folder``. Raises OverlapError
    if there are none."""
    crs = reference.horizontal
    parts: list[Part | None] = []
    plans: list[tuple[CoarseSurface, list[_Item]]] = []
    for k, (p, surface) in enumerate(zip(pairs, surfaces, strict=True)):
        height = float(np.median(surface.trend.values))
        tasks = plan_matching(views, p, crs, surface, rectified_pixel(views, p, crs, height))
        if not plans or plans[-1][0] is not surface:
            plans.append((surface, []))
        plans[-1][1].extend((k, t, views[p.left], views[p.right]) for t in tasks)
    reporter.stage("matching", sum(len(items) for _, items in plans))
    for surface, items in plans:
        parts += for_each(_matcher(surface, reference, folder), items, workers, reporter)
    found = [p for p in parts if p is not None]
    if not found:
        raise OverlapError(
            "no point could be matched", fix="check the images for cloud, snow, water or ground without texture"
        )
    return Spool(reference, tuple(found))


def _matcher(surface: CoarseSurface, reference: Reference, folder: Place) -> Callable[[_Item], Part | None]:
    """Work that matches a tile from a coarse surface."""

    def work(item: _Item) -> Part | None:
        k, task, left, right = item
        points = match_tile(left, right, task.tile, surface, _BUFFERS.sgm)
        return save_part(folder / f"points_{_name(k, task)}.npy", _cloud(points, task, reference, k))

    return work
