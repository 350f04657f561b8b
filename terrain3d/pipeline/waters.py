"""Bodies of water of a stored scene: found over all blocks, each made level as a whole."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import Components, label
from terrain3d.pipeline.picture import Picture
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import Counts, Tally, tally
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Raster
from terrain3d.stats import NMAD_FACTOR
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.water import (
    BANK_MARGIN,
    MIN_AREA,
    SMOOTH_RANK,
    WATER_MARGIN,
    Shores,
    WaterLevel,
    WaterLimits,
    is_pit,
    is_water,
    picture_texture,
    shores,
    to_the_bank,
    water_candidates,
    water_level,
    water_limits,
)

WATER_SIGMA = 1.0  # metres, of a level that rests on its shores alone
TEXTURE_MARGIN = 8.0  # metres
TEXTURE_BINS, SIGMA_BINS = (1.0, 100_000), (100.0, 1_000_000)
Values = tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.int64]]


def level_water(
    clean: StoredRaster, dsm: StoredRaster, sigma: StoredRaster, mask: StoredRaster, picture: Picture, folder: Place,
    workers: Workers, reporter: Reporter,
) -> None:  # fmt: skip
    """Find the water of a scene, level it in ``dsm`` and mark it in ``mask``, with a sigma on all of it.

    clean: surface before voids were filled.
    """
    wet = _find(clean, picture, folder, workers, reporter)
    levels: dict[int, WaterLevel] = {}
    spread = None
    flooded = np.ones(1 if wet is None else len(wet) + 1, bool)
    if wet is not None:
        levels, _ = _levels(wet, np.arange(len(wet) + 1) > 0, dsm, workers)
        flooded[[0, *(k for k, level in levels.items() if is_pit(level))]] = False
        spread = _median_sigma(wet, flooded, sigma, workers)

    if wet is None:
        return

    def work(block: Block) -> None:
        z = block.read(dsm)
        numbers = _only(wet.read(block), flooded)
        if numbers.any():
            for k in (int(k) for k in np.unique(numbers) if int(k) in levels):
                row, column = np.nonzero(numbers == k)
                z[row, column] = levels[k].at(row + block.row, column + block.column)
            s, codes = block.read(sigma), block.read(mask)
            water = (numbers > 0) & np.isfinite(z)
            s[water & ~np.isfinite(s)] = WATER_SIGMA if spread is None else spread
            codes[water] = MaskCode.WATER
            block.write(dsm, z)
            block.write(sigma, s)
            block.write(mask, codes)

    for_blocks(work, cut(dsm.grid), workers, reporter)
    wet.labels.remove()


def _find(
    clean: StoredRaster, picture: Picture, folder: Place, workers: Workers, reporter: Reporter
) -> Components | None:
    """Bodies of water grown to their banks; None if there are none."""
    limits = _limits(picture, workers, reporter)
    if limits is None:
        return None
    grid, cell, image = clean.grid, clean.grid.resolution**2, picture.values
    patches = label(
        lambda b: water_candidates(Raster(b.read(clean), b.grid), Raster(b.read(image), b.grid), limits),
        grid, folder / "patches.raw", workers, WATER_MARGIN,
    )  # fmt: skip
    large = patches.area * cell >= MIN_AREA
    large[0] = False
    levels, found = _levels(patches, large, clean, workers, image)
    length = np.hypot(*(patches.bounds[:, 2:] - patches.bounds[:, :2]).T) * grid.resolution
    looks = {
        k: _centre_and_spread(found, k)
        for k, level in levels.items()
        if is_water(level, float(patches.area[k]) * cell, float(length[k]))
    }
    grown = None
    if looks:
        grown = label(
            lambda b: _grown(b, patches, b.read(image), looks),
            grid,
            folder / "water.raw",
            workers,
            BANK_MARGIN,
        )
    patches.labels.remove()
    return grown


def _limits(picture: Picture, workers: Workers, reporter: Reporter) -> WaterLimits | None:
    """What the whole picture says of water; None if it is empty."""
    values, texture = picture.values, Counts(*TEXTURE_BINS)

    def measure(block: Block) -> Tally:
        image = block.read(values)
        return tally(picture_texture(image)[block.core][image[block.core] > 0], *TEXTURE_BINS)

    for found in for_blocks(measure, cut(values.grid, TEXTURE_MARGIN), workers, reporter):
        texture.put(found)
    median, smooth = picture.counts.quantile(0.5), texture.quantile(SMOOTH_RANK)
    return None if median is None or smooth is None else water_limits(median, smooth)


def _grown(
    block: Block, patches: Components, image: NDArray[np.uint16], looks: dict[int, tuple[float, float]]
) -> NDArray[np.bool_]:
    """Water of a block: the patches that ``looks`` names, with median and spread of their values, up to their banks."""
    numbers = patches.read(block)
    out = np.zeros(numbers.shape, bool)
    margin = ceil(BANK_MARGIN / block.grid.resolution)
    for k in (int(k) for k in np.unique(numbers) if int(k) in looks):
        top, left, bottom, right = (int(v) for v in patches.bounds[k])
        rows = slice(max(top - margin - block.row, 0), bottom + margin - block.row)
        columns = slice(max(left - margin - block.column, 0), right + margin - block.column)
        body = numbers[rows, columns] == k
        part = Raster(image[rows, columns], block.grid.window(rows.start, columns.start, *body.shape))
        out[rows, columns] |= to_the_bank(body, part, *looks[k])
    return out


def _levels(
    bodies: Components, which: NDArray[np.bool_], dsm: StoredRaster, workers: Workers, image: StoredRaster | None = None
) -> tuple[dict[int, WaterLevel], list[Values]]:
    """Levels of bodies from their shores; and, by block, the values of the image in them: body, value, how often."""
    if not which.any():
        return {}, []

    def work(block: Block) -> tuple[Shores, Values | None] | None:
        numbers = bodies.read(block)
        numbers[~which[numbers]] = 0
        if not numbers.any():
            return None
        beside = shores(Raster(block.read(dsm), block.grid), numbers, block.row, block.column, block.core)
        if image is None:
            return beside, None
        inside = numbers[block.core] > 0
        body, value = numbers[block.core][inside], block.read(image)[block.core][inside]
        both, n = np.unique(body.astype(np.int64) << 16 | value, return_counts=True)
        return beside, ((both >> 16).astype(np.int32), (both & 0xFFFF).astype(np.uint16), n)

    found = [f for f in for_blocks(work, cut(dsm.grid, BANK_MARGIN), workers) if f is not None]
    if not found:
        return {}, []
    parts = [f[0] for f in found]
    body, row, column, height = (
        np.concatenate([getattr(p, n) for p in parts]) for n in ("body", "row", "column", "height")
    )
    order = np.argsort(body, kind="stable")
    names, start = np.unique(body[order], return_index=True)
    levels = {}
    for k, at in zip(names, np.split(order, start)[1:], strict=True):
        level = water_level(row[at], column[at], height[at], dsm.grid.resolution)
        if level is not None:
            levels[int(k)] = level
    return levels, [f[1] for f in found if f[1] is not None]


def _centre_and_spread(found: list[Values], body: int) -> tuple[float, float]:
    """Median and NMAD of the values of a body."""
    value, n = (np.concatenate([f[i][f[0] == body] for f in found]) for i in (1, 2))
    centre = _weighted_median(value.astype(float), n)
    return centre, NMAD_FACTOR * _weighted_median(np.abs(value - centre), n)


def _weighted_median(values: NDArray[np.float64], n: NDArray[np.int64]) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(n[order]), n.sum() / 2)])


def _only(numbers: NDArray[np.int32], which: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Numbers of bodies, 0 for those that are not among ``which``."""
    return np.where(which[numbers], numbers, 0).astype(np.int32)


def _median_sigma(wet: Components, flooded: NDArray[np.bool_], sigma: StoredRaster, workers: Workers) -> float | None:
    """Median sigma of the cells of water that have one."""
    counts = Counts(*SIGMA_BINS)

    def measure(block: Block) -> Tally:
        s = block.read(sigma)[flooded[wet.read(block)]]
        return tally(s[np.isfinite(s)], *SIGMA_BINS)

    for found in for_blocks(measure, cut(sigma.grid), workers):
        counts.put(found)
    return counts.quantile(0.5)
