"""An old model brought up to date: new heights where a change was found, the old ones elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terrain3d.change.align import level_off
from terrain3d.change.blend import Provenance, blended, blended_sigma, provenance, weights
from terrain3d.change.epoch import Epoch, Source, common_vertical, load_epoch
from terrain3d.change.resample import on_grid
from terrain3d.errors import InputFileError
from terrain3d.io.atomic import write_json
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, write_strips
from terrain3d.pipeline.change_folder import ChangeFolder, read_change_folder, read_changes
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import all_or_none, check_apart, scratch_folder
from terrain3d.raster import Grid
from terrain3d.tiles import reproject

ROWS = 512
FEATHER = 3.0  # metres
Strips = Iterator[tuple[int, NDArray[Any]]]


@dataclass(frozen=True)
class UpdateOutcome:
    """Areas of the updated surface by where they come from, m2, and how many changes were taken over."""

    changes: int
    old: float
    new: float
    blended: float


def run_update(
    old: Path, new: Path, change: Path, out: Path, reporter: Reporter, *, feather: float = FEATHER,
    least_confidence: float = 0.0,
) -> UpdateOutcome:  # fmt: skip
    """Write the updated DSM, and DTM and sigmas where both models have them, on the grid of the old model.

    change: folder of ``terrain3d change old new``, whose polygons of at least that confidence are taken over.
    Raises Terrain3dError.
    """
    check_apart(out, [old, new, change])
    reporter.stage("reading")
    folder = read_change_folder(change)
    first, second, _ = common_vertical(load_epoch(old), load_epoch(new), *folder.told)
    layer = read_changes(change)
    if "confidence" not in layer.columns:
        raise InputFileError("layer 'changes' has no confidence", where=change / "change.gpkg")
    kept = layer.geometries[layer.columns["confidence"].astype(float) >= least_confidence]
    grid = first.dsm.grid
    polygons = np.array([reproject(p, layer.crs, grid.reference.horizontal) for p in kept], dtype=object)
    work = _Work(first, second, folder, polygons, feather)
    products = [("dsm", first.dsm, second.dsm, True), ("dtm", first.dtm, second.dtm, True),
                ("dsm_sigma", first.sigma, second.sigma, False),
                ("dtm_sigma", first.dtm_sigma, second.dtm_sigma, False)]  # fmt: skip
    with bounded_cache(), scratch_folder(out) as scratch, all_or_none(scratch, out) as ready:
        reporter.stage("writing", 5)
        for name, before, after, heights in products:
            if before is not None and after is not None and (heights or name == "dsm_sigma" or first.dtm is not None):
                write_strips(
                    ready / f"{name}.tif", replace(before.grid, reference=grid.reference),
                    work.strips(before, after, heights), np.float32, nodata=HEIGHT_NODATA, heights=heights,
                )  # fmt: skip
            reporter.step()
        counts = np.zeros(len(Provenance), np.int64)
        write_strips(
            ready / "provenance.tif", grid, work.provenance(counts), np.uint8, nodata=0, heights=False,
            band_names=("1 old, 2 new, 3 blended",),
        )  # fmt: skip
        reporter.step()
        cell = grid.resolution**2
        outcome = UpdateOutcome(len(kept), *(float(counts[c] * cell) for c in (1, 2, 3)))
        write_json(
            ready / "quality.json",
            {"old": str(old), "new": str(new), "change": str(change), "changes": outcome.changes,
             "old_area_m2": outcome.old, "new_area_m2": outcome.new, "blended_area_m2": outcome.blended,
             "feather_m": feather},
        )  # fmt: skip
    return outcome


@dataclass(frozen=True)
class _Work:
    first: Epoch
    second: Epoch
    folder: ChangeFolder
    polygons: NDArray[Any]
    feather: float

    def strips(self, before: Source, after: Source, heights: bool) -> Strips:
        """Strips of one updated raster, heights or sigmas."""

        def mix(grid: Grid, weight: NDArray[np.float32]) -> NDArray[Any]:
            old, new = on_grid(before, grid), self._moved(after, grid, heights)
            if heights:
                return blended(old, new, weight)
            return blended_sigma(old, new, weight, self.folder.registration)

        return self._each(before.grid, mix)

    def provenance(self, counts: NDArray[np.int64]) -> Strips:
        """Strips of the codes; ``counts`` gets how many cells have each."""

        def code(grid: Grid, weight: NDArray[np.float32]) -> NDArray[Any]:
            codes = provenance(on_grid(self.first.dsm, grid), self._moved(self.second.dsm, grid, True), weight)
            counts[:] += np.bincount(codes.ravel(), minlength=len(counts))
            return codes

        return self._each(self.first.dsm.grid, code)

    def _moved(self, source: Source, grid: Grid, heights: bool) -> NDArray[Any]:
        a = self.folder.alignment
        values = on_grid(source, grid, a.east, a.north)
        return level_off(values, grid, a) if heights else values

    def _each(self, grid: Grid, make: Callable[[Grid, NDArray[np.float32]], NDArray[Any]]) -> Strips:
        """Strips of what ``make`` gives for a part of the grid and the share of the new model in it."""
        margin = int(np.ceil(self.feather / grid.resolution)) + 1
        tree = shapely.STRtree(self.polygons)
        for row in range(0, grid.height, ROWS):
            top, bottom = max(row - margin, 0), min(row + ROWS + margin, grid.height)
            wide = grid.window(top, 0, bottom - top, grid.width)
            near = self.polygons[tree.query(shapely.box(*wide.bounds), "intersects")] if len(self.polygons) else []
            share = weights(list(near), wide, self.feather)
            rows = min(ROWS, grid.height - row)
            yield row, make(grid.window(row, 0, rows, grid.width), share[row - top : row - top + rows])
