"""How well ground under trees and canopy height hold: against lidar tracks that took no part in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.canopy_ground import WINDOW_CELLS, WINDOW_MARGIN, StoredCells
from terrain3d.pipeline.threads import Workers
from terrain3d.points import LidarReturns
from terrain3d.raster import bilinear
from terrain3d.stats import ErrorSummary, summarize
from terrain3d.surface.canopy_cells import CanopyCells
from terrain3d.surface.under_canopy import GroundReturns, HiddenGround, ground_returns, hidden_ground

FOLDS = 3
LEAST_RETURNS = 10
ROUNDS = 3  # of the estimate, which hardly changes after them
GROSS = 8.0  # metres: a return farther off saw a cloud or the crowns
SEEN = 0.3  # of a cell that was measured: in voids of the surface nobody knows of trees
BOUNDS = (1.0, 1.645, 1.96)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CanopyCheck:
    """Errors on returns under trees whose tracks were left out, estimate minus lidar.

    ground: of the terrain; coverage: share of them within 1, 1.645 and 1.96 sigma (of both); canopy: of the height of
    the canopy's top over the ground, against ``h_canopy`` or RH98, None where too few state it. folds: groups of
    tracks. gross: returns left out.
    """

    ground: ErrorSummary
    coverage: tuple[float, float, float]
    canopy: ErrorSummary | None
    folds: int
    gross: int


def check_canopy(cells: StoredCells, returns: LidarReturns | None, workers: Workers) -> CanopyCheck | None:
    """Figures from up to three groups of tracks, each estimated without; None with too few returns under trees."""
    if returns is None or len(np.unique(returns.track)) < 2:
        return None
    tracks = np.unique(returns.track)
    fold = np.searchsorted(tracks, returns.track) % min(FOLDS, len(tracks))
    placed = ground_returns(returns, cells.grid.reference.horizontal)
    folds = [_chosen(placed, fold == k) for k in np.unique(fold)]

    def work(window: Block) -> Floats:
        part = cells.read(window)
        slope = np.hypot(*np.gradient(part.trend, window.grid.resolution))
        found = [np.zeros((0, 5))]
        for k, out in enumerate(folds):
            hidden = hidden_ground(part, _joined(folds[:k] + folds[k + 1 :]), rounds=ROUNDS)
            if hidden is not None:
                found.append(_compared(window, part, slope, hidden, out))
        return np.concatenate(found)

    rows = np.concatenate(for_blocks(work, cut(cells.grid, WINDOW_MARGIN, WINDOW_CELLS), workers))
    rows = rows[(rows[:, 4] > 0) & np.isfinite(rows[:, :2]).all(axis=1)]
    sound = np.abs(rows[:, 0]) < np.maximum(GROSS, 4 * rows[:, 1])
    if sound.sum() < LEAST_RETURNS:
        return None
    error, sigma, height, canopy = rows[sound, :4].T
    one, two, three = (float(np.mean(np.abs(error) <= k * sigma)) for k in BOUNDS)
    top = summarize(height - canopy)
    told = top if top.n >= LEAST_RETURNS else None
    return CanopyCheck(summarize(error), (one, two, three), told, len(folds), int((~sound).sum()))


def _compared(window: Block, cells: CanopyCells, slope: Floats, hidden: HiddenGround, out: GroundReturns) -> Floats:
    """Error of the ground, its sigma with that of the return, height of the canopy and that of the return, and whether
    the place is under trees, for the returns on the core of a window, (N, 5)."""
    column, row = window.grid.column_row(out.x, out.y)
    rows, columns = window.core
    here = (column >= columns.start - 0.5) & (column < columns.stop - 0.5)
    here &= (row >= rows.start - 0.5) & (row < rows.stop - 0.5)
    column, row = column[here], row[here]
    at = np.rint(row).astype(np.int64), np.rint(column).astype(np.int64)
    ground, sigma, steep = (bilinear(a, column, row) for a in (hidden.height.values, hidden.sigma.values, slope))
    lidar = _chosen(out, here).sigma_on(steep)
    canopy = cv2.dilate(np.nan_to_num(cells.top - hidden.height.values), np.ones((3, 3), np.uint8))
    under = (hidden.weight.values[at] > 0.5) & (cells.seen[at] > SEEN)
    return np.column_stack([ground - out.height[here], np.hypot(sigma, lidar), canopy[at], out.canopy[here], under])


def _chosen(returns: GroundReturns, which: NDArray[np.bool_]) -> GroundReturns:
    return GroundReturns(*(getattr(returns, name)[which] for name in GroundReturns.__dataclass_fields__))


def _joined(parts: list[GroundReturns]) -> GroundReturns:
    return GroundReturns(*(np.concatenate([getattr(p, n) for p in parts]) for n in GroundReturns.__dataclass_fields__))
