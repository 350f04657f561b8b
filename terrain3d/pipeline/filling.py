"""Voids of a stored surface model filled, and the sigma of its cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import label
from terrain3d.pipeline.model import Extent, StoredModel
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.settling import NO_RIM
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Raster, odd_cells
from terrain3d.register.move import Move
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.rims import MARGIN as RIM_MARGIN
from terrain3d.surface.sigma import cell_sigma, missing_pairs
from terrain3d.surface.voids import FILL_MARGIN, MAX_VOID_AREA, fill_voids, sunken_islands

Singles = NDArray[np.float32]

NARROW = 3.0  # metres: what is no wider belongs to no large void, however long it is
STRIP_ROWS = 256
BASELINE = 1.5  # m, about as far as a model may lie off sideways
# Of the sigma of heights that registration states: over 20 draws of returns each, errors of 100 m blocks are 0.74 of it
# for a town and 0.90 to 1.06 for a mountain. The lower counts, for with more of it intervals of both are too wide on
# open ground. Sideways they are 0.9 to 1.5 of it.
RAISED = 0.76
STEEPEST = 1.0  # slope up to which a cell is a surface and not a wall


@dataclass(frozen=True)
class Frame:
    """How well the model lies in its frame. move: onto lidar, if any. orientation: 1-sigma (m) of heights by the
    orientation of the views to each other, coarse, to be interpolated; finite wherever there are cells."""

    move: Move | None
    orientation: Raster


def fill_model(
    model: StoredModel, clean: StoredRaster, extent: Extent, frame: Frame, folder: Place, workers: Workers,
    reporter: Reporter, odds: StoredRaster | None = None,
) -> tuple[StoredRaster, StoredRaster, StoredRaster]:  # fmt: skip
    """Surface with small voids filled, its sigma, and its mask (no water yet). odds: of overhangs, as
    ``settled_heights`` gives them; none without images."""
    grid = model.grid
    dsm, sigma = (new_raster(folder / f"{name}.raw", grid, np.float32) for name in ("dsm", "dsm_sigma"))
    mask = new_raster(folder / "mask.raw", grid, np.uint8)
    narrow = np.ones((odd_cells(NARROW, grid.resolution),) * 2, np.uint8)

    def void(block: Block) -> NDArray[np.bool_]:
        return np.asarray(~np.isfinite(block.read(clean)) & extent.hull(block))

    def wide(block: Block) -> NDArray[np.bool_]:
        return cv2.morphologyEx(void(block).astype(np.uint8), cv2.MORPH_OPEN, narrow) > 0

    voids = label(wide, grid, folder / "voids.raw", workers, 2 * NARROW)
    large = voids.area * grid.resolution**2 > MAX_VOID_AREA
    large[0] = False
    left_open = voids.values(large)

    def work(block: Block) -> None:
        z, fill = block.read(clean), void(block) & ~left_open.read(block)
        if odds is not None:
            sunken = sunken_islands(Raster(z, block.grid), fill)
            z, fill = np.where(sunken, np.float32(np.nan), z), fill | sunken
        known = np.isfinite(z)
        own = missing_pairs(block.read(model.sigma), block.read(model.pairs), grid.resolution)
        matches = np.where(known, own, np.float32(np.nan))
        filled, spread = fill_voids(Raster(z, block.grid), Raster(matches, block.grid), fill, block.origin)
        hanging = None if odds is None else np.where(known, block.read(odds).astype(np.float32), NO_RIM)
        cells = cell_sigma(filled, spread, known, hanging)
        part = block.around_core(baseline_cells(block.grid.resolution))  # for slopes
        inner = block.part(*part)
        total = with_frame(Raster(cells.values[part], inner.grid), Raster(filled.values[part], inner.grid), frame)
        block.write(dsm, filled.values)
        inner.write(sigma, total.values)
        codes = np.where(known, MaskCode.MEASURED, np.where(fill & np.isfinite(filled.values), MaskCode.FILLED, 0))
        block.write(mask, codes.astype(np.uint8))

    for_blocks(work, cut(grid, max(FILL_MARGIN, RIM_MARGIN)), workers, reporter)
    voids.labels.remove()
    return dsm, sigma, mask


def with_frame(sigma: Raster, dsm: Raster, frame: Frame) -> Raster:
    """Sigma of the cells with that of the frame added: of the views' orientation, of the vertical correction by lidar,
    and of a sideways shift on the slope of the cell."""
    x, y = sigma.grid.centres()
    baseline = baseline_cells(sigma.grid.resolution)
    total = np.empty_like(sigma.values)
    for top in range(0, sigma.grid.height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, sigma.grid.height))
        first = max(top - baseline, 0)  # rows more on both sides for the slopes
        slopes = surface_slopes(dsm.values[first : rows.stop + baseline], sigma.grid.resolution)
        slopes = slopes[:, top - first : rows.stop - first]
        total[rows] = np.sqrt(sigma.values[rows] ** 2 + common_variance(frame, x, y[rows], slopes))
    return Raster(total, sigma.grid)


def common_variance(frame: Frame, x: NDArray[np.float64], y: NDArray[np.float64], slopes: Singles) -> Singles:
    """Variance (m2) of what cells have in common, see ``with_frame``. x, y: columns and rows; slopes: as from
    ``surface_slopes``, of the same cells."""
    variance = frame.orientation.sample(x[None, :], y[:, None]) ** 2
    if frame.move is not None and frame.move.applied:
        vertical = frame.move.sigma_at(x[None, :], y[:, None]) ** 2
        variance = variance + RAISED**2 * vertical + sideways_variance(slopes, frame.move)
    return np.asarray(variance, np.float32)


def sideways_variance(slopes: Singles, move: Move) -> NDArray[np.float64]:
    """Variance of the heights of a model that the uncertainty of its move sideways brings about, m2. slopes: as from
    ``surface_slopes``; what is steeper than a surface counts as one, and unknown as level."""
    slopes = np.clip(slopes, -STEEPEST, STEEPEST)
    return np.nan_to_num(np.einsum("irc,ij,jrc->rc", slopes, move.covariance[:2, :2], slopes))


def surface_slopes(z: Singles, resolution: float) -> Singles:
    """Slopes of heights (h, w) to the east and north, (2, h, w), rise over run; rows and columns within
    ``baseline_cells`` of the border want neighbours."""
    baseline = baseline_cells(resolution)
    return np.stack([slope_along(z, 1, baseline), -slope_along(z, 0, baseline)]) / np.float32(resolution)


def baseline_cells(resolution: float) -> int:
    """Cells on either side over which the slope of a surface is taken."""
    return max(round(BASELINE / resolution), 1)


def slope_along(z: NDArray[np.float32], axis: int, baseline: int) -> NDArray[np.float32]:
    """Slope per cell along an axis, 0 where it is unknown: the lesser of those to either side, and none where the two
    are opposed. Noise, which has no slope, and walls, which have one on a single side, do not count."""
    rest = [(baseline, baseline) if i == axis else (0, 0) for i in range(2)]
    wide = np.pad(z, rest, mode="edge")
    n = z.shape[axis]
    before, after = (np.take(wide, np.arange(n) + k, axis) for k in (0, 2 * baseline))
    back, ahead = (z - before) / baseline, (after - z) / baseline
    lesser = np.where(np.abs(back) < np.abs(ahead), back, ahead)
    return np.where(back * ahead > 0, lesser, 0).astype(np.float32)
