"""The files of one tile: rasters, cloud, metadata. Written by a worker, from windows of the rasters of the area."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from terrain3d.export.lineage import Lineage, write_metadata
from terrain3d.export.stac import Asset, in_collection, stac_item
from terrain3d.io.atomic import write_json
from terrain3d.io.clouds import write_cloud
from terrain3d.io.objects import DeskShelf, sha256_of
from terrain3d.io.scratch import StoredRaster, padded
from terrain3d.pipeline.batch.features import Features, inside
from terrain3d.pipeline.batch.sheets import Sheet
from terrain3d.pipeline.batch.worker import Products
from terrain3d.pipeline.products import raster_writers, to_output
from terrain3d.pipeline.quality import count_cells
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.points import PointCloud
from terrain3d.raster import Bounds, Grid
from terrain3d.register.move import Move

TILES = "tiles"
EMPTY = "empty"
TITLES = {"trees": "Tree tops and stands", "water": "Bodies of water and shorelines"}


@dataclass(frozen=True)
class TileItem:
    """A tile to be written. lineage: of what serves it. features: trees and waters in it. note: what is not as it
    should be in it."""

    sheet: Sheet
    grid: Grid
    lineage: Lineage
    features: Features
    note: str = ""

    @property
    def code(self) -> str:
        return self.sheet.code

    @property
    def bounds(self) -> Bounds:
        return self.grid.bounds


def tile_grid(sheet: Sheet, like: Grid) -> Grid:
    """Cells of a tile: all that its outline touches."""
    return Grid.from_bounds(like.reference, *sheet.bounds, like.resolution)


def tile_writer(result: RunResult, spool: Spool, shelf: DeskShelf) -> Callable[[TileItem], Products]:
    """Work that writes the files of a tile under the folder of the batch."""
    surfaces, reference = replace(result.surfaces, seen=(), waters=(), canopy=None, frame=None), result.reference
    move = None if result.registration is None else result.registration.move

    def work(item: TileItem) -> Products:
        out = shelf.desk.out / TILES / item.code
        _clear(out)
        own = Surfaces(*(_on(getattr(surfaces, f.name), item.grid) for f in fields(Surfaces)))
        cells = count_cells(own, reference.vertical)
        if cells["nodata_share"] == 1.0:
            return Products((), EMPTY)
        prefix = f"{item.code}_"
        for write in raster_writers(own, reference, out, prefix):
            write()
        clouds = (to_output(c, reference) for c in _clouds(spool, item, move))
        write_cloud(out / f"{prefix}cloud.laz", clouds, item.lineage.end.date())
        assets = [
            Asset(layer, out / f"{prefix}{layer}.tif", title, unit=unit)
            for layer, title, unit in (
                ("dsm", "Digital surface model", "m"), ("dsm_sigma", "1-sigma of the surface model", "m"),
                ("dtm", "Digital terrain model", "m"), ("dtm_sigma", "1-sigma of the terrain model", "m"),
                ("chm", "Height above ground", "m"), ("ortho", "True orthophoto", None),
            )
        ]  # fmt: skip
        if own.finer:
            assets.append(Asset("ortho_super", out / f"{prefix}ortho_super.tif", "Super-resolved orthophoto"))
        assets.append(Asset("mask", out / f"{prefix}mask.tif", "Why a cell is what it is", roles=("metadata",)))
        assets.append(Asset("cloud", out / f"{prefix}cloud.laz", "Point cloud"))
        for name, path in item.features.write(out, prefix, reference.horizontal, item.lineage.end):
            assets.append(Asset(name, path, TITLES[name]))
        grid = replace(item.grid, reference=reference)
        for path, title in write_metadata(out, item.code, grid, item.lineage, cells, item.note):
            assets.append(Asset(path.suffix[1:], path, title, roles=("metadata",)))
        lineage = item.lineage
        described = stac_item(item.code, grid, assets, folder=out, start=lineage.start, end=lineage.end,
                              lineage=lineage.statement())  # fmt: skip
        write_json(out / f"{item.code}.json", in_collection(described, lineage.name))
        files = sorted(p for p in out.iterdir() if not p.name.startswith("."))
        return Products(tuple((f"{TILES}/{item.code}/{p.name}", str(sha256_of(p))) for p in files), cells)

    return work


def _clear(folder: Path) -> None:
    """Delete what is in the folder of a tile: older products, and what a worker that was killed left behind."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()


def _on(value: Any, grid: Grid) -> Any:
    """A raster, or the rasters of several bands, on the cells of a tile."""
    if isinstance(value, tuple):
        return tuple(_on(v, grid) for v in value)
    if not isinstance(value, StoredRaster):
        return value
    own = value.grid
    return padded(value, grid if own.resolution == grid.resolution else replace(
        grid, resolution=own.resolution, height=round(grid.height * grid.resolution / own.resolution),
        width=round(grid.width * grid.resolution / own.resolution),
    ))  # fmt: skip


def _clouds(spool: Spool, item: TileItem, move: Move | None) -> Iterator[PointCloud]:
    """Points inside the outline of a tile, part by part; without any, one part that has the reference."""
    grid = item.grid
    cloud, some = None, False
    for cloud in spool.clouds_within(grid, grid.resolution, move):
        here = inside(item.sheet.outline, grid, cloud.xyz[:, 0], cloud.xyz[:, 1])
        if here.any():
            some = True
            yield cloud if here.all() else cloud.select(np.flatnonzero(here))
    if cloud is not None and not some:
        yield cloud.select(np.empty(0, np.int64))


def files_of(folder: Path) -> set[str]:
    """Codes of the tiles that have a folder."""
    return {p.name for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()
