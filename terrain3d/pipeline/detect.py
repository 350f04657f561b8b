"""Change between two epochs, block by block: co-registration, test, regions, kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.epoch import ASSUMED_SIGMA, Epoch, common_vertical
from terrain3d.change.evidence import EpochSurfaces, Window
from terrain3d.change.kinds import BUILDINGS, CANOPY_BIAS, LINKED, Classified, classify
from terrain3d.change.outline import outline, straight_outline, trimmed
from terrain3d.change.regions import Patch, make_patch, measure, split_by_ground
from terrain3d.change.result import ChangeOptions, ChangeResult, Region, confidence, discoveries
from terrain3d.change.shore import LEVEL_SIGMA, cover_changes, look_at_shore
from terrain3d.change.significance import ErrorModel, Fields, error_model, look, test
from terrain3d.errors import OverlapError
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import Components, label
from terrain3d.pipeline.pair import EpochPair, aligned_pair
from terrain3d.pipeline.progress import Reporter, Silent
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid, Raster

MARGIN = 16.0  # metres that the test of a cell looks away from it at most
STRIP_ROWS = 256
MARGIN_CELLS = 16  # and cells, whatever their size


def detect(before: Epoch, after: Epoch, options: ChangeOptions | None = None) -> ChangeResult[Raster]:
    """What changed from ``before`` to ``after``, rasters in memory; ``detect_stored`` for large ones.

    The epochs may differ in grid, CRS and (with geoid grids present) vertical reference. Raises OverlapError if they
    do not cover common ground, FrameError if their heights cannot be brought into one reference.
    """
    with TemporaryDirectory(prefix="terrain3d-") as folder:
        found = detect_stored(before, after, options or ChangeOptions(), Path(folder), 1, Silent())
        rasters = {n: _loaded(getattr(found, n)) for n in ("difference", "sigma", "significant", "detectable")}
    return ChangeResult(
        **rasters, regions=found.regions, alignment=found.alignment, stable=found.stable, notes=found.notes,
        compared=found.compared, changed=found.changed,
    )  # fmt: skip


def _loaded(raster: StoredRaster) -> Raster:
    return Raster(raster.read(0, 0, *raster.grid.shape), raster.grid)


def detect_stored(
    before: Epoch, after: Epoch, options: ChangeOptions, folder: Place, workers: Workers, reporter: Reporter
) -> ChangeResult[StoredRaster]:
    """As ``detect``, with rasters in ``folder``; memory does not grow with the scene."""
    before, after, notes = common_vertical(before, after, options.vertical_before, options.vertical_after)
    reporter.stage("co-registration")
    pair, samples = aligned_pair(before, after)
    for doubt in _doubts(pair):
        reporter.warn(doubt)
        notes.append(doubt)
    notes += _notes(pair)
    model = error_model([_fields(pair, grid) for grid in samples], pair.grid.resolution)
    rasters = _Rasters.new(folder, pair)
    margin = max(MARGIN, MARGIN_CELLS * pair.grid.resolution)

    def work(block: Block) -> int:
        return _test_block(pair, model, options, rasters, block)

    blocks = cut(pair.grid, margin)
    reporter.stage("test", len(blocks))
    compared = sum(for_blocks(work, blocks, workers, reporter))
    if not compared:
        raise OverlapError("the two surfaces have no measured cell in common", fix="give epochs of common ground")
    reporter.stage("regions")
    changed, found = _patches(rasters, options, folder, workers)
    scene = _Scene(rasters, model.smooth_limit)
    found = [part for patch in found for part in _by_ground(patch, scene)]
    regions = _regions(classify(found, scene), scene, model, options, compared)
    regions += _shores(scene, model, options, folder, workers)
    return ChangeResult(
        difference=rasters.difference, sigma=rasters.sigma, significant=rasters.significant,
        detectable=rasters.detectable, regions=tuple(regions), alignment=pair.alignment, stable=model.stable,
        notes=tuple(notes), compared=compared, changed=changed,
    )  # fmt: skip


def _notes(pair: EpochPair) -> list[str]:
    notes = []
    grid, before, after = pair.grid, pair.before, pair.after
    if grid.resolution > before.dsm.grid.resolution * 1.01 and before.dsm.grid.reference.crs.is_projected:
        notes.append(f"compared at {grid.resolution:g} m, the resolution of {after.name}")
    for epoch in (before, after):
        if epoch.sigma is None:
            notes.append(f"{epoch.name} has no sigma: {ASSUMED_SIGMA:g} m assumed, then calibrated on the scene")
    bend = pair.alignment.bend
    if bend is not None:
        notes.append(
            f"a bend of up to {bend.largest:.2f} m between the epochs was taken out; places left out confirm it"
        )
    return notes


def _doubts(pair: EpochPair) -> list[str]:
    """Lines on a co-registration that is not to be trusted. Raises OverlapError if it plainly failed."""
    found = pair.alignment
    check = "check CRS and place of both epochs"
    if found.unlike and not found.converged:
        raise OverlapError(
            f"co-registration of {pair.after.name} to {pair.before.name} failed: shifted by "
            f"{np.hypot(found.east, found.north):.0f} m, they are still no more alike than by chance",
            fix=f"{check}; one may lie off by more than co-registration can find, or show another place",
        )
    if found.unlike:
        return [f"the surfaces are no more alike than by chance where co-registration puts them: {check}"]
    if not found.converged:
        return [
            f"co-registration did not converge: after {found.east:.1f} m east and {found.north:.1f} m north, its last "
            f"step was larger than a fiftieth of a cell; changes may be its errors: {check}"
        ]
    return []


def _fields(pair: EpochPair, grid: Grid) -> Fields:
    return look(*pair.heights(grid), pair.sigma(grid), grid.resolution)


@dataclass(frozen=True)
class _Rasters:
    """What is kept of all blocks. known: rasters of the fields of ``EpochSurfaces`` that there are."""

    difference: StoredRaster
    sigma: StoredRaster
    significant: StoredRaster
    detectable: StoredRaster
    extent: StoredRaster
    seed: StoredRaster
    cover: StoredRaster
    known: dict[str, StoredRaster]

    @classmethod
    def new(cls, folder: Place, pair: EpochPair) -> _Rasters:
        grid = pair.grid
        heights = {n: new_raster(folder / f"{n}.raw", grid, np.float32) for n in ("difference", "sigma", "detectable")}
        signs = {n: new_raster(folder / f"{n}.raw", grid, np.int8) for n in ("extent", "seed", "cover")}
        corner = grid.window(0, 0, 1, 1)
        one = pair.surfaces(corner, *pair.heights(corner))
        known = {
            f.name: new_raster(folder / f"known_{f.name}.raw", grid, getattr(one, f.name).dtype)
            for f in fields(one)
            if getattr(one, f.name) is not None
        }
        return cls(**heights, **signs, significant=new_raster(folder / "significant.raw", grid, np.uint8), known=known)


def _test_block(pair: EpochPair, model: ErrorModel, options: ChangeOptions, rasters: _Rasters, block: Block) -> int:
    """Test one block, store what was found, and count the cells that were compared."""
    r = block.grid.resolution
    first, second = pair.heights(block.grid)
    seen = look(first, second, pair.sigma(block.grid), r)
    tested = test(first, second, seen, model, r, options.test)
    known = np.isfinite(seen.difference)
    nothing = np.float32(np.nan)
    for raster, values in (
        (rasters.difference, seen.difference), (rasters.sigma, np.where(known, tested.sigma, nothing)),
        (rasters.detectable, np.where(known, tested.detectable, nothing)),
        (rasters.extent, tested.extent), (rasters.seed, tested.seed),
        (rasters.significant, np.zeros(known.shape, np.uint8)),
    ):  # fmt: skip
        block.write(raster, values)
    core = block.part(*block.core)
    every = pair.surfaces(core.grid, first[block.core], second[block.core])
    masks = pair.before.mask is not None and pair.after.mask is not None  # without one there may have been water too
    wet = pair.wet(block.grid) if masks else None
    cover = np.zeros(known.shape, np.int8)
    if wet is not None and wet.any():
        cover = cover_changes(first, second, wet, r)
    block.write(rasters.cover, cover)
    for name, raster in rasters.known.items():
        core.write(raster, getattr(every, name))
    return int(np.count_nonzero(known[block.core]))


def _patches(rasters: _Rasters, options: ChangeOptions, folder: Place, workers: Workers) -> tuple[int, list[Patch]]:
    """Cells that belong to supported changes, which are marked, and the patches of those large and high enough."""
    cell = rasters.extent.grid.resolution**2
    found: list[Patch] = []
    changed = 0
    for sign in (1, -1):
        parts = _parts(rasters.extent, sign, folder, workers)
        proven = _seed_cells(parts, rasters.seed, sign, workers) * cell >= options.test.seed_area
        proven[0] = False
        changed += _mark(parts, proven, rasters, workers)
        for k in np.flatnonzero(proven & (parts.area * cell >= options.min_area)):
            found += _patch(parts, int(k), sign, rasters, options)
    return changed, sorted(found, key=lambda p: (p.row, p.column, p.sign))


def _parts(signs: StoredRaster, sign: int, folder: Place, workers: Workers) -> Components:
    """Connected cells of one sign."""

    def mask(block: Block) -> NDArray[np.bool_]:
        return np.asarray(block.read(signs) == sign)

    return label(mask, signs.grid, folder / f"labels{sign}.raw", workers)


def _strips(grid: Grid) -> list[Block]:
    """Blocks as wide as the grid, whose cells lie together on disk."""
    heights = [(row, min(STRIP_ROWS, grid.height - row)) for row in range(0, grid.height, STRIP_ROWS)]
    whole = slice(0, grid.width)
    return [Block(grid.window(row, 0, rows, grid.width), row, 0, (slice(0, rows), whole)) for row, rows in heights]


def _seed_cells(parts: Components, seeds: StoredRaster, sign: int, workers: Workers) -> NDArray[np.int64]:
    """Cells of each component that prove it."""

    def count(block: Block) -> NDArray[np.int64]:
        proof = block.read(seeds) == sign
        if not proof.any():
            return np.zeros(len(parts.area), np.int64)
        return np.bincount(parts.numbers.read(block)[proof], minlength=len(parts.area))

    total = np.zeros(len(parts.area), np.int64)
    for part in for_blocks(count, _strips(seeds.grid), workers):
        total += part
    return total


def _mark(parts: Components, proven: NDArray[np.bool_], rasters: _Rasters, workers: Workers) -> int:
    """Set the significant cells, and count them."""

    def work(block: Block) -> int:
        if not block.read(rasters.extent).any():
            return 0
        new = proven[parts.numbers.read(block)] & np.isfinite(block.read(rasters.difference))
        block.write(rasters.significant, np.where(new, np.uint8(1), block.read(rasters.significant)))
        return int(np.count_nonzero(new))

    return sum(for_blocks(work, _strips(rasters.extent.grid), workers))


def _patch(parts: Components, number: int, sign: int, rasters: _Rasters, options: ChangeOptions) -> Iterator[Patch]:
    """The patch of one component, if it is large and high enough."""
    row, column, bottom, right = (int(v) for v in parts.bounds[number])
    window = row, column, bottom - row, right - column
    difference = rasters.difference.read(*window)
    cells = (parts.numbers.window(*window) == number) & np.isfinite(difference)
    r = rasters.extent.grid.resolution
    if (
        np.count_nonzero(cells) * r * r < options.min_area
        or sign * np.median(difference[cells]) < options.test.min_height
    ):
        return
    yield make_patch(sign, row, column, cells, rasters.extent.read(*window) == -sign, r)


@dataclass(frozen=True)
class _Scene:
    """What was kept of all blocks, by windows."""

    rasters: _Rasters
    smooth_limit: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.rasters.extent.grid.shape

    @property
    def resolution(self) -> float:
        return self.rasters.extent.grid.resolution

    def surfaces(self, where: Window) -> EpochSurfaces:
        """Both epochs on a window."""
        window = _of_slices(where)
        return EpochSurfaces(**{name: raster.read(*window) for name, raster in self.rasters.known.items()})


def _of_slices(where: Window) -> tuple[int, int, int, int]:
    rows, columns = where
    return rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start


def _by_ground(patch: Patch, scene: _Scene) -> list[Patch]:
    """Parts of a patch whose ground moved alike."""
    seen = scene.surfaces(patch.where)
    change = seen.ground_change(scene.resolution)
    return [patch] if change is None else split_by_ground(patch, change, seen.ground_sigma, scene.resolution)


def _regions(
    found: list[Classified], scene: _Scene, model: ErrorModel, options: ChangeOptions, compared: int
) -> list[Region]:
    """Regions of the classified patches, weak ones left out."""
    grid = scene.rasters.extent.grid
    kept: list[Region] = []
    for item in found:
        built = item.verdict.kind in BUILDINGS
        window = _of_slices(item.patch.where)
        difference, sigma = scene.rasters.difference.read(*window), scene.rasters.sigma.read(*window)
        patch = trimmed(item.patch, difference) if built else item.patch
        seen = scene.surfaces(patch.where)
        m = measure(
            patch.cells, difference, sigma, model.stable, grid.resolution, seen.closed, seen.ground_rise,
            seen.ground_sigma, CANOPY_BIAS if item.canopy(model.smooth_limit) else 0.0,
        )  # fmt: skip
        # Crowns come and go with the matching, also where errors are long-tailed: single ones are no change.
        weak = m.area < options.min_stand_area or m.stand_certainty < options.test.seed_z
        if m.area < options.min_area or (weak and item.wooded and item.verdict.kind not in LINKED):
            continue
        polygon = straight_outline(patch, grid) if built else outline(patch, grid)
        region = Region(
            polygon, item.verdict.kind, m, confidence(m, item.verdict.margin), item.verdict.part,
            item.event, *item.covers(model.smooth_limit), item.evidence.tone,
        )  # fmt: skip
        kept.append(region)
    certainty = np.array([r.measures.certainty for r in kept])
    stand = discoveries(certainty, compared * grid.resolution**2 / options.min_area, options.level)
    return [region for region, ok in zip(kept, stand, strict=True) if ok]


def _shores(
    scene: _Scene, model: ErrorModel, options: ChangeOptions, folder: Place, workers: Workers
) -> list[Region]:  # fmt: skip
    """Regions where land became water or water land."""
    if "wet" not in scene.rasters.known:
        return []
    cover, r = scene.rasters.cover, scene.resolution
    out = []
    for sign in (1, -1):
        parts = _parts(cover, sign, folder, workers)
        for k in np.flatnonzero(parts.area * r * r >= options.min_stand_area):
            if k == 0:
                continue
            row, column, bottom, right = (int(v) for v in parts.bounds[k])
            window = row, column, bottom - row, right - column
            patch = Patch(sign, row, column, parts.numbers.window(*window) == k)
            seen = look_at_shore(patch, scene, options.test.min_height)
            if seen is None:
                continue
            m = measure(patch.cells, seen.rise, np.full_like(seen.rise, LEVEL_SIGMA), model.stable, r)
            certainty = 1 - np.exp(-m.area / options.min_stand_area / 2)  # the larger the less likely a mask's mistake
            out.append(
                Region(
                    outline(patch, cover.grid), seen.verdict.kind, m, round(float(certainty) * seen.verdict.margin, 3),
                    cover_before=seen.cover_before, cover_after=seen.cover_after, tone=seen.tone,
                )
            )  # fmt: skip
    return out
