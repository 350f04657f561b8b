"""From matched points to the rasters of a run: DSM, voids, water, terrain, height above ground, ortho, all on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.image.colour import sharpened
from terrain3d.image.view import View
from terrain3d.io.images import read_bands
from terrain3d.io.scratch import Place, StoredRaster
from terrain3d.pipeline.blocks import cut
from terrain3d.pipeline.canopy_check import CanopyCheck
from terrain3d.pipeline.filling import Frame, fill_model
from terrain3d.pipeline.fine_picture import draw_fine
from terrain3d.pipeline.height_files import HeightFile
from terrain3d.pipeline.model import StoredModel, clean_heights, surface_model
from terrain3d.pipeline.obscured import obscured_share
from terrain3d.pipeline.picture import draw, draw_grey, ranking
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.reference import fill_from_reference
from terrain3d.pipeline.settling import settled_heights
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.terrain import make_terrain
from terrain3d.pipeline.threads import Workers
from terrain3d.pipeline.water_bodies import Evidence, GivenWater
from terrain3d.pipeline.waters import WaterBody, level_water
from terrain3d.points import LidarReturns
from terrain3d.raster import Bounds, Grid
from terrain3d.surface.ortho import OrthoView
from terrain3d.surface.super_resolution import FACTOR


@dataclass(frozen=True)
class SurfaceOptions:
    """water: what a user says of it. reference: DEM for large voids. super_resolution: an ortho of half the cells.
    envelope: the surface has the rims of crowns and roofs that else are given to the ground."""

    water: GivenWater = field(default_factory=GivenWater)
    reference: HeightFile | None = None
    super_resolution: bool = False
    envelope: bool = False


@dataclass(frozen=True)
class Surfaces:
    """Rasters of a run on one grid, heights ellipsoidal. ``pairs``: number of stereo pairs that saw a cell, where it
    was measured. ortho: its bands. seen: as ``Picture.seen``. waters: bodies of water. finer: bands of the
    super-resolved ortho, if it was wanted. canopy: check of what is under trees against lidar. frame: how well it all
    lies. The files live as long as the run does."""

    dsm: StoredRaster
    dsm_sigma: StoredRaster
    dtm: StoredRaster
    dtm_sigma: StoredRaster
    chm: StoredRaster
    ortho: tuple[StoredRaster, ...]
    mask: StoredRaster
    pairs: StoredRaster
    seen: tuple[int, ...]
    waters: tuple[WaterBody, ...]
    finer: tuple[StoredRaster, ...] = ()
    canopy: CanopyCheck | None = None
    frame: Frame | None = None


def make_surfaces(
    spool: Spool, grid: Grid, views: list[View], frame: Frame, returns: LidarReturns | None, folder: Place,
    workers: Workers, reporter: Reporter, lost: Sequence[Bounds] = (), options: SurfaceOptions | None = None,
) -> Surfaces:  # fmt: skip
    """All rasters of a run, on the part of the grid that has values. ``grid``: as ``blocks.aligned`` gives it.
    ``views``: cameras in the frame of the registered model. lost: parts of the surface to be left empty.
    Raises OverlapError if nothing is left of the points."""
    model = surface_model(spool, grid, frame.move, folder, workers, reporter, lost)
    plain = [_ortho_view(v) for v in views]
    shown = [_coloured(v, o) for v, o in zip(views, plain, strict=True)]
    return derive(model, plain, frame, returns, folder, workers, reporter, options, shown)


def derive(
    model: StoredModel, views: list[OrthoView], frame: Frame, returns: LidarReturns | None, folder: Place,
    workers: Workers, reporter: Reporter, options: SurfaceOptions | None = None, shown: list[OrthoView] | None = None,
) -> Surfaces:  # fmt: skip
    """All rasters that follow from a surface model, whose files are used up. views: of the images that were matched;
    shown: those of the ortho, the same if they are not given."""
    options, shown = options or SurfaceOptions(), views if shown is None else shown
    reporter.stage("voids", 4 * len(cut(model.grid)))
    clean, extent = clean_heights(model, folder, workers, reporter)
    model.height.remove()
    light = ranking(clean, views, "light", workers)
    settled = settled_heights(model, clean, light, folder, workers, reporter)
    clean = settled.heights
    dsm, sigma, mask = fill_model(model, clean, extent, frame, folder, workers, reporter, settled.odds)
    model.sigma.remove()
    if options.reference is not None:
        fill_from_reference(dsm, sigma, mask, extent, options.reference, workers, reporter)
    reporter.stage("water", 3 * len(cut(model.grid)))
    grey = draw_grey(dsm, extent, light, folder, workers, reporter)
    evidence = Evidence(clean, model.confidence, grey, placed=frame.move is not None and frame.move.applied)
    waters, bridges = level_water(evidence, dsm, sigma, mask, options.water, folder, workers, reporter)
    for used in (clean, model.confidence, grey.values):
        used.remove()
    terrain = make_terrain(
        dsm, sigma, mask, extent, returns, folder, workers, reporter, settled, bridges, options.envelope
    )  # fmt: skip
    for used in (settled.envelope, settled.odds, *(() if bridges is None else (bridges.decks.labels,))):
        used.remove()
    if shown != views:  # colour says nothing of heights
        light = ranking(terrain.surface, shown, "light of colour", workers)
    picture = draw(terrain.surface, light, folder, workers, reporter)
    finer: tuple[StoredRaster, ...] = ()
    if options.super_resolution:
        finer = draw_fine(terrain.surface, light, folder, workers, reporter)

    def window(raster: StoredRaster) -> StoredRaster:
        return raster.window(*extent.window())

    return Surfaces(
        window(terrain.surface), window(terrain.surface_sigma), window(terrain.dtm), window(terrain.sigma),
        window(terrain.chm), tuple(window(b) for b in picture.bands), window(mask), window(model.pairs), picture.seen,
        tuple(waters), tuple(b.window(*(FACTOR * n for n in extent.window())) for b in finer), terrain.check,
        frame,
    )  # fmt: skip


def _ortho_view(view: View) -> OrthoView:
    def read(row: int, column: int, height: int, width: int) -> NDArray[np.float32]:
        return read_bands(view.image, row, column, height, width)

    image = view.image
    return OrthoView(view.camera, read, image.shape, len(image.bands), image.dtype, view.name, obscured_share(view))


def _coloured(view: View, plain: OrthoView) -> OrthoView:
    """The view in the bands of its colour, if it has any."""
    if (colour := view.colour) is None:
        return plain

    def read(row: int, column: int, height: int, width: int) -> NDArray[np.float32]:
        return sharpened(view.image, colour, row, column, height, width)

    return replace(plain, read=read, bands=len(colour.image.bands), dtype=colour.image.dtype)
