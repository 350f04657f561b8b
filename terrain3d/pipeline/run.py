"""One scene from images and lidar to finished products."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from terrain3d.adjust.network import Network, build_network, with_lidar
from terrain3d.config import Scene
from terrain3d.crs import Reference
from terrain3d.image.view import View, ground_sample_distance
from terrain3d.io.atomic import write_text
from terrain3d.io.rasters import bounded_cache
from terrain3d.io.scratch import Place
from terrain3d.lidar.read import LidarSet
from terrain3d.pipeline.blocks import aligned
from terrain3d.pipeline.doubts import placement_doubts, pointing_doubts, unplaced_doubt
from terrain3d.pipeline.filling import Frame
from terrain3d.pipeline.growth import kept_grid, kept_network, kept_orientation, kept_pairs, kept_surfaces
from terrain3d.pipeline.load import (
    check_overlap,
    collar_warnings,
    crop_warnings,
    height_limits,
    load_lidar,
    load_options,
    load_views,
    mean_height,
    saturation_warnings,
    tile_warnings,
)
from terrain3d.pipeline.matching import coarse_pass, match_scene
from terrain3d.pipeline.memory import keep_freed_memory
from terrain3d.pipeline.model import register
from terrain3d.pipeline.obscured import without_obscured
from terrain3d.pipeline.output_crs import datum_warnings, output_reference
from terrain3d.pipeline.placement import pointing, raised
from terrain3d.pipeline.products import RASTERS, RUN_FILES, optional_files, write_products
from terrain3d.pipeline.progress import Recorder, Reporter
from terrain3d.pipeline.quality import count_cells
from terrain3d.pipeline.resolutions import coarser_surfaces
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.scratch_folder import all_or_none, scratch_folder
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.surfaces import make_surfaces
from terrain3d.pipeline.threads import Workers, hold, once
from terrain3d.points import LidarReturns
from terrain3d.raster import Bounds, Grid
from terrain3d.register.cameras import move_camera
from terrain3d.register.kept import Registered, kept
from terrain3d.register.lines import Lines
from terrain3d.register.registration import Registration
from terrain3d.stereo.pairs import choose_pairs

SPARSE = 0.2  # of the cells that are measured or water, below which a user is warned
RESOLUTIONS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0)


def run_scene(scene: Scene, out: Path, reporter: Reporter, *, workers: int | None = None) -> RunResult:
    """Run a scene and write all products to ``out``. Raises Terrain3dError; then ``out`` is as it was before."""
    workers = workers or os.cpu_count() or 1
    cv2.setNumThreads(1)  # the program's own threads fill the machine
    keep_freed_memory()
    recorder = Recorder(reporter)
    recorder.stage("inputs")
    views = load_views(scene)
    limits = height_limits(views)
    lidar = load_lidar(scene, views, mean_height(views))
    height = mean_height(views, lidar)
    reference = output_reference(scene.config.output, views, height, scene.folder)
    check_overlap(views, limits)
    with scratch_folder(out) as folder, bounded_cache():
        result, spool = compute(scene, views, limits, lidar, reference, folder, workers, recorder)
        coarser = coarser_surfaces(result.surfaces, scene.config.output.coarser, folder, workers, recorder)
        recorder.stage("writing", RUN_FILES + RASTERS * len(coarser))
        result = replace(result, coarser=coarser, seconds=dict(recorder.seconds))
        with all_or_none(folder, out, optional_files(out)) as ready:
            write_products(result, spool, ready, workers, recorder)
            recorder.close()
            write_text(ready / "run.log", "\n".join(recorder.log) + "\n")
    return result


def compute(
    scene: Scene,
    views: list[View],
    limits: tuple[float, float],
    lidar: LidarSet | None,
    reference: Reference,
    folder: Place,
    workers: Workers,
    recorder: Recorder,
    lost: Sequence[Bounds] = (),
) -> tuple[RunResult, Spool]:
    """All of a scene but its files: what was found, and the points. lost: parts of the surface to be left empty."""
    inside = Reference(reference.horizontal)  # ellipsoidal until the files are written
    crs = inside.horizontal
    options = load_options(scene, crs)
    of_images = [*crop_warnings(scene), *tile_warnings(scene), *collar_warnings(views), *saturation_warnings(views)]
    of_images += datum_warnings(scene.config.output, crs, views, mean_height(views, lidar))
    for warning in [*of_images, *(() if lidar is None else lidar.warnings)]:
        recorder.warn(warning)
    recorder.stage("tie points and adjustment")
    network = once(build_network, workers, views, crs, limits, threaded=True)
    network = kept_network(network, views, scene, crs, workers, recorder.note)
    doubts = pointing_doubts(network, crs)
    for note in network.warnings:
        recorder.warn(note)
    middle = sum(network.heights) / 2
    decided = kept_pairs(choose_pairs(network.views, crs, middle), network.views, workers)
    chosen = [p for p in decided if p.chosen]
    surface = coarse_pass(network.views, chosen, inside, network.all_heights, folder, workers, recorder)
    clear, decided = without_obscured(network.views, decided, surface, workers, recorder.warn)
    network, chosen = replace(network, views=clear), [p for p in decided if p.chosen]
    surfaces = kept_surfaces(surface, len(chosen), workers)
    spool = match_scene(network.views, chosen, inside, surfaces, folder, workers, recorder)
    grid = aligned(Grid.from_bounds(inside, *spool.bounds, resolution_of(scene, network.views, crs, middle)))
    grid = kept_grid(grid, [p.bounds for p in spool.parts], workers, recorder.note)
    placed = _Placed(network, crs)
    if lidar is not None:
        placed = _place(placed, spool, grid, lidar, folder, workers, recorder, lost)
    registration, final = placed.registration, placed.views()
    if registration is not None:
        doubts = [*doubts, *placement_doubts(registration, crs, max(p.base_to_height for p in chosen))]
    if not doubts and (wrong := pointing(network, grid).warning(raised(registration, grid))) is not None:
        doubts = [wrong]
    if (unplaced := unplaced_doubt(registration, pointing(network, grid))) is not None:
        doubts = [*doubts, unplaced]
    for doubt in doubts:
        recorder.warn(doubt)
    orientation = kept_orientation(network, grid, workers)
    frame = Frame(None if registration is None else registration.move, orientation)
    returns = None if lidar is None else placed.returns(lidar)
    made = make_surfaces(spool, grid, final, frame, returns, folder, workers, recorder, lost, options)
    cells = count_cells(made, reference.vertical)
    if cells["measured_share"] + cells["water_share"] < SPARSE:
        share = f"{100 * cells['measured_share']:.2g} %"
        recorder.warn(f"only {share} of the cells could be measured: cloud, snow, water or ground without texture")
    return RunResult(
        scene, reference, final, placed.network, decided, lidar, registration, made, cells, spool.count,
        tuple(recorder.warnings), registered=placed.files,
    ), spool  # fmt: skip


@dataclass(frozen=True)
class _Placed:
    """A network and how its model was registered to lidar, if there was any; files: of points behind that."""

    network: Network
    crs: str
    registration: Registration | None = None
    files: tuple[str, ...] = ()

    def views(self) -> list[View]:
        """Images with cameras in the frame of the registered model."""
        views = self.network.views
        if self.registration is None or not self.registration.applied:
            return views
        return [move_camera(v, self.registration, self.crs, self.network.heights) for v in views]

    def returns(self, lidar: LidarSet) -> LidarReturns | None:
        """Lidar where the registration found it to lie."""
        return None if self.registration is None else self.registration.placed(lidar.returns, self.crs)


def _place(
    scene: _Placed, spool: Spool, grid: Grid, lidar: LidarSet, folder: Place, workers: Workers, recorder: Recorder,
    lost: Sequence[Bounds],
) -> _Placed:  # fmt: skip
    """The model registered to lidar, or as it was registered before while that holds."""
    network, crs = scene.network, scene.crs
    seen = pointing(network, grid)
    lines = Lines.of(network.views, crs, sum(network.heights) / 2, seen.tilt)
    registration = register(spool, grid, lidar.returns, lines, seen, folder, workers, recorder, lost)
    found = Registered.of(registration, lidar.returns, tuple(p.path.name for p in spool.parts), grid)
    found = hold(
        "registration", found, lambda old, new: kept(old, new, recorder.note), workers, begin=not lost
    )  # fmt: skip
    # for the report: lidar in the adjustment moves what correcting the finished model moves, with less to go by
    levelled = once(with_lidar, workers, network, lidar.returns, crs)
    for note in found.registration.notes:
        recorder.note(note)
    for warning in found.registration.warnings:
        recorder.warn(warning)
    return _Placed(replace(network, height_ties=levelled.height_ties), crs, found.registration, found.files)


def resolution_of(scene: Scene, views: list[View], crs: str, height: float) -> float:
    """Cell size of the (finest) results: as configured, or the next common size not finer than the best image."""
    wanted = scene.config.output.resolution
    if wanted != "auto":
        return min(wanted) if isinstance(wanted, list) else float(wanted)
    finest = min(ground_sample_distance(v, crs, height) for v in views)
    return next((r for r in RESOLUTIONS if r >= 0.95 * finest), RESOLUTIONS[-1])
