"""Water under bridges: what parts two stretches of a river at one level and hangs over both is no terrain."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import Components, label
from terrain3d.pipeline.threads import Workers
from terrain3d.pipeline.water_bodies import PIECE_STEP, WIDEST, Waters
from terrain3d.surface.disks import full_disk
from terrain3d.surface.water_level import WaterKind, WaterLevel

Singles = NDArray[np.float32]
_SLIVER = 3.0  # m: what is narrower lies along the banks
_LEAST_AREA = 20.0  # m2
_CLEARANCE = 1.0  # m of a deck over the water, at least
_SLENDER = 6.0  # diagonal of a body's box, squared, over its area: a river, of whatever kind its level is


@dataclass(frozen=True)
class Bridges:
    """decks: by number; levels: of the water under each that is a bridge, as on either side of it; sigma: of it, m."""

    decks: Components
    levels: dict[int, tuple[WaterLevel, ...]]
    sigma: dict[int, float]

    def under(self, block: Block) -> tuple[Singles, Singles]:
        """Level of the water under bridges on the window of a block and its sigma, NaN elsewhere."""
        numbers = self.decks.read(block)
        level, sigma = (np.full(numbers.shape, np.nan, np.float32) for _ in range(2))
        for k in (int(k) for k in np.unique(numbers) if int(k) in self.levels):
            row, column = np.nonzero(numbers == k)
            sides = [w.at(row + block.origin[0], column + block.origin[1]) for w in self.levels[k]]
            level[row, column] = np.mean(sides, axis=0)
            sigma[row, column] = self.sigma[k]
        return level, sigma


def find_bridges(
    waters: Waters, levels: dict[int, WaterLevel], spread: dict[int, float], heights: StoredRaster, folder: Place,
    workers: Workers,
) -> Bridges | None:  # fmt: skip
    """Bridges over rivers; None if there are none. levels, spread: of the bodies, by number. heights: of the surface
    before voids were filled, NaN where nothing was matched."""
    grid, bodies = heights.grid, waters.bodies
    rivers = {k for k in levels if _is_river(levels[k], bodies, k)}
    if len(levels) < 2 or not rivers:
        return None
    across, narrow = (full_disk(d / 2 / grid.resolution) for d in (WIDEST, _SLIVER))

    def gap(block: Block) -> NDArray[np.bool_]:
        wet = np.isin(bodies.read(block), list(levels)).astype(np.uint8)
        if not wet.any():
            return wet > 0
        between = cv2.morphologyEx(wet, cv2.MORPH_CLOSE, across, borderType=cv2.BORDER_REPLICATE) & ~wet & 1
        return np.asarray(cv2.morphologyEx(between, cv2.MORPH_OPEN, narrow) > 0)

    gaps = label(gap, grid, folder / "bridges.raw", workers, 2 * WIDEST)
    touching = full_disk(_SLIVER / grid.resolution)

    def sides(block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64], Singles]:
        """Pairs of gap and body that meet, and gap and height of matched cells in it."""
        numbers, water = gaps.read(block), bodies.read(block)
        if not numbers.any():
            return np.empty((0, 2), np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        near = cv2.dilate(numbers.astype(np.float32), touching)[block.core].astype(np.int64)
        met = (near > 0) & np.isin(water[block.core], list(levels))
        pairs = np.unique(np.column_stack([near[met], water[block.core][met]]), axis=0)
        z, own = block.read(heights)[block.core], numbers[block.core]
        matched = (own > 0) & np.isfinite(z)
        return pairs, own[matched].astype(np.int64), z[matched]

    found = for_blocks(sides, cut(grid, 2 * _SLIVER), workers)
    pairs, own, z = (np.concatenate([f[i] for f in found]) for i in range(3))
    between: dict[int, list[int]] = {}
    for k in np.flatnonzero(gaps.area * grid.resolution**2 >= _LEAST_AREA).tolist():
        beside, deck = np.unique(pairs[pairs[:, 0] == k, 1]).tolist(), z[own == k]
        if k == 0 or len(beside) != 2 or deck.size == 0:
            continue
        top, left, bottom, right = gaps.bounds[k]
        row, column = (top + bottom) / 2 + grid.origin[0], (left + right) / 2 + grid.origin[1]
        middle = np.array([row]), np.array([column])
        ends = [float(levels[b].at(*middle)[0]) for b in beside]
        if abs(ends[0] - ends[1]) <= PIECE_STEP and float(np.median(deck)) > max(ends) + _CLEARANCE:
            between[k] = beside
    kept: set[int] = set()
    while more := {k for k, beside in between.items() if k not in kept and rivers.intersection(beside)}:
        kept |= more  # what a river runs into under a bridge is river, too
        rivers |= {b for k in more for b in between[k]}
    under = {k: tuple(levels[b] for b in between[k]) for k in sorted(kept)}
    sigma = {k: max(spread[b] for b in between[k]) for k in sorted(kept)}
    if not under:
        gaps.labels.remove()
        return None
    return Bridges(gaps, under, sigma)


def _is_river(level: WaterLevel, bodies: Components, number: int) -> bool:
    top, left, bottom, right = bodies.bounds[number]
    long = (bottom - top) ** 2 + (right - left) ** 2 > _SLENDER * bodies.area[number]
    return level.kind is WaterKind.RIVER or (level.kind is WaterKind.LAKE and bool(long))
