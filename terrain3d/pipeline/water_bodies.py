"""Bodies of water of a stored scene: found over all blocks, joined with a user's polygons, each with its level."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from terrain3d.io.scratch import Place, StoredRaster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import Components, label
from terrain3d.pipeline.lakes import lake_amid_banks
from terrain3d.pipeline.picture import VALUES, Grey
from terrain3d.pipeline.polygons import burned
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import Counts, Tally, tally
from terrain3d.pipeline.sea import ShoreCells, sea_level
from terrain3d.pipeline.threads import Workers, learned
from terrain3d.raster import Grid, Raster
from terrain3d.stats import NMAD_FACTOR
from terrain3d.surface.water import (
    BANK_MARGIN,
    MIN_AREA,
    SHORE,
    SMOOTH_RANK,
    SURE,
    WATER_MARGIN,
    Shores,
    WaterLimits,
    agreeing,
    is_pit,
    is_water,
    picture_texture,
    shores,
    to_the_bank,
    water_candidates,
    water_limits,
    with_rim_area,
    without_land,
)
from terrain3d.surface.water_level import BodyShape, WaterKind, WaterLevel, water_level

TEXTURE_MARGIN = 8.0  # metres
TEXTURE_BINS = (1.0, 100_000)
SHAPE_CELL, SHAPE_CELLS = 2.0, 4_000_000  # metres, and cells at most, of the shape along which levels are found
LOST_CELLS = 4  # of the rim of a patch, to the window in which texture is looked at
RIM_CELLS = 3  # that a body may end before its bank
WIDE_SHORE = 14.0  # metres around a user's polygon, where its own shore shows nothing
WIDEST = 24.0  # m of a bridge, with the rims of the water that are not seen beside it
LEAST_PIECE, PIECE_STEP = 300.0, 0.5  # m2 of water beyond a bridge, m between the levels on either side
FRAGMENT = 100.0  # m2: what growing to the banks leaves beside a body is none
LAND = "land"
CODES = {"": 1, WaterKind.LAKE: 2, WaterKind.RIVER: 3, WaterKind.SEA: 4, LAND: 255}
Values = tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.int64]]


@dataclass(frozen=True)
class GivenWater:
    """What a user says of the water: polygons in the CRS of the run, and of each 'lake', 'river', 'sea', 'land' (no
    water, whatever the images show) or ''. flatten: heights of water become its level."""

    shapes: tuple[BaseGeometry, ...] = ()
    kinds: tuple[str, ...] = ()
    flatten: bool = True

    def codes(self, grid: Grid) -> NDArray[np.uint8]:
        """``CODES`` of the polygons on the cells of a grid, 0 where there is none."""
        return burned(np.array(self.shapes, dtype=object), np.array([CODES[k] for k in self.kinds], np.uint8), grid)


@dataclass(frozen=True)
class Evidence:
    """What water is found by. heights: surface before voids were filled, NaN where nothing was matched; confidence: of
    the matches, 0 to 1; grey: what the images show. placed: the heights are true to lidar."""

    heights: StoredRaster
    confidence: StoredRaster
    grey: Grey
    placed: bool = True


@dataclass(frozen=True)
class Look:
    """Median and spread (NMAD) of the image over a patch of water, and its level."""

    centre: float
    spread: float
    level: WaterLevel


@dataclass(frozen=True)
class Waters:
    """Bodies with a level, by number; frame: sigma (m) of the surface along their shores at its best; given: numbers of
    those that polygons say to be water."""

    bodies: Components
    levels: dict[int, WaterLevel]
    frame: dict[int, float]
    given: frozenset[int]


def find_waters(
    evidence: Evidence, sigma: StoredRaster, given: GivenWater, folder: Place, workers: Workers, reporter: Reporter
) -> Waters | None:
    """Water of a scene; None if there is none."""
    clean, confidence = evidence.heights, evidence.confidence
    looks, patches = _seen(evidence, sigma, folder, workers, reporter)
    if not looks and not given.shapes:
        if patches is not None:
            patches.labels.remove()
        return None
    grid, image = clean.grid, evidence.grey.values

    def wet(block: Block) -> NDArray[np.bool_]:
        seen = None
        if looks and patches is not None:
            sure = block.read(confidence) > SURE
            seen = _grown(block, patches, block.read(image), Raster(block.read(clean), block.grid), sure, looks)
        codes = given.codes(block.grid)
        said = (codes > 0) & (codes < CODES[LAND])
        return said if seen is None else said | (seen & (codes != CODES[LAND]))

    bodies = label(wet, grid, folder / "water.raw", workers, BANK_MARGIN)
    if patches is not None:
        patches.labels.remove()
    kinds = _claimed(bodies, given, workers)
    every = np.arange(len(bodies) + 1) > 0
    beside = max(SHORE, RIM_CELLS * grid.resolution)
    levels, found, _ = _levels(bodies, every, evidence, sigma, workers, kinds=kinds, reach=beside)
    missing = np.isin(np.arange(len(bodies) + 1), [k for k in kinds if k not in levels])
    if missing.any():
        wider, more, _ = _levels(bodies, missing, evidence, sigma, workers, kinds=kinds, reach=WIDE_SHORE)
        levels, found = levels | wider, found | more
    large = bodies.area * grid.resolution**2 >= FRAGMENT
    levels = {k: level for k, level in levels.items() if k in kinds or (large[k] and not is_pit(level))}
    return Waters(bodies, levels, found, frozenset(kinds))


def body_shape(bodies: Components, number: int, cell: float, most: int) -> BodyShape:
    """Shape of a body on cells of about that many metres, coarser if they were too many. Its rows and columns, like all
    that levels are found from, are counted from the origin of the reference."""
    grid = bodies.labels.grid
    (up, west), ends = grid.origin, (grid.origin[0] + grid.height, grid.origin[1] + grid.width)
    top, left, bottom, right = (int(v) + o for v, o in zip(bodies.bounds[number], 2 * grid.origin, strict=True))
    step = max(round(cell / grid.resolution), 1, ceil(sqrt((bottom - top) * (right - left) / most)))
    first = top // step - 1, left // step - 1
    mask = np.zeros((-(-bottom // step) - first[0] + 1, -(-right // step) - first[1] + 1), bool)
    rows = max(1024 // step, 1)
    column, width = left // step * step, -(-right // step) * step - left // step * step
    inner = max(column, west), min(column + width, ends[1])
    for a in range(top // step, -(-bottom // step), rows):
        row, height = a * step, min(a + rows, -(-bottom // step)) * step - a * step
        own = max(row, up), min(row + height, ends[0])
        here = bodies.numbers.window(own[0] - up, inner[0] - west, own[1] - own[0], inner[1] - inner[0]) == number
        padded = np.pad(here, ((own[0] - row, row + height - own[1]), (inner[0] - column, column + width - inner[1])))
        pooled = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).any(axis=(1, 3))
        mask[a - first[0] : a - first[0] + pooled.shape[0], 1 : 1 + pooled.shape[1]] = pooled
    return BodyShape(mask, step, first, grid.resolution)


def _seen(
    evidence: Evidence, sigma: StoredRaster, folder: Place, workers: Workers, reporter: Reporter
) -> tuple[dict[int, Look], Components | None]:
    """Patches that the images show to be water, by number."""
    clean, picture = evidence.heights, evidence.grey
    limits = _limits(clean, picture, workers, reporter)
    if limits is None:
        return {}, None
    grid, cell, image = clean.grid, clean.grid.resolution**2, picture.values
    patches = label(
        lambda b: water_candidates(Raster(b.read(clean), b.grid), Raster(b.read(image), b.grid), limits),
        grid, folder / "patches.raw", workers, WATER_MARGIN,
    )  # fmt: skip
    area = with_rim_area(patches.area * cell, LOST_CELLS * grid.resolution)
    length = np.hypot(*(patches.bounds[:, 2:] - patches.bounds[:, :2]).T) * grid.resolution
    reach = max(SHORE, LOST_CELLS * grid.resolution)

    def looked_at(which: NDArray[np.bool_], least: float) -> dict[int, Look]:
        levels, _, values = _levels(patches, which, evidence, sigma, workers, shown=True, reach=reach)
        return {
            k: Look(*_centre_and_spread(values, k), level)
            for k, level in levels.items()
            if is_water(level, float(area[k]), float(length[k]), least)
        }

    large = area >= MIN_AREA
    large[0] = False
    found = more = looked_at(large, MIN_AREA)
    left = (area >= LEAST_PIECE) & ~large
    left[0] = False
    while more:  # beyond a bridge may be less, and beyond the next one, too
        pieces = left & _beside(patches, more, ceil(WIDEST / grid.resolution))
        nearby = looked_at(pieces, LEAST_PIECE)
        more = {k: look for k, look in nearby.items() if _continues(look.level, more)}
        left[list(more)] = False
        found |= more
    return found, patches


def _beside(patches: Components, looks: dict[int, Look], cells: int) -> NDArray[np.bool_]:
    """Patches whose box lies within so many cells of the box of one of the bodies."""
    near = np.zeros(len(patches) + 1, bool)
    low, high = patches.bounds[:, :2], patches.bounds[:, 2:]
    for k in looks:
        near |= ((low <= high[k] + cells) & (high >= low[k] - cells)).all(axis=1)
    return near


def _continues(piece: WaterLevel, looks: dict[int, Look]) -> bool:
    """Whether a piece of water lies a bridge's width from a body and at its level there."""
    row, column = piece.shape.cells()
    for look in looks.values():
        other = look.level.shape
        rows, columns = other.cells()
        far, at = cKDTree(np.column_stack([rows, columns])).query(np.column_stack([row, column]))
        nearest = int(far.argmin())
        if far[nearest] * other.resolution > WIDEST:
            continue
        ends = piece.at(row[[nearest]], column[[nearest]]), look.level.at(rows[at[[nearest]]], columns[at[[nearest]]])
        if abs(float(ends[0][0] - ends[1][0])) <= PIECE_STEP:
            return True
    return False


def _limits(clean: StoredRaster, picture: Grey, workers: Workers, reporter: Reporter) -> WaterLimits | None:
    """What the whole picture says of water; None if it is empty."""
    values, texture, land = picture.values, Counts(*TEXTURE_BINS), Counts(VALUES, VALUES)

    def measure(block: Block) -> tuple[Tally, Tally]:
        image = block.read(values)
        lit = image[block.core] > 0
        matched = lit & agreeing(block.read(clean))[block.core]
        shown = tally(picture_texture(image)[block.core][lit], *TEXTURE_BINS)
        return shown, tally(image[block.core][matched], VALUES, VALUES)

    for shown, matched in for_blocks(measure, cut(values.grid, TEXTURE_MARGIN), workers, reporter):
        texture.put(shown)
        land.put(matched)
    median, smooth = land.quantile(0.5) or picture.counts.quantile(0.5), texture.quantile(SMOOTH_RANK)
    limits = None if median is None or smooth is None else water_limits(median, smooth)
    return learned("limits of water", limits, workers)


def _grown(
    block: Block, patches: Components, image: NDArray[np.uint16], dsm: Raster, sure: NDArray[np.bool_],
    looks: dict[int, Look],
) -> NDArray[np.bool_]:  # fmt: skip
    """Water of a block: the patches that ``looks`` names, up to their banks, without what stands above their level.
    sure: cells whose match is beyond doubt."""
    numbers = patches.read(block)
    out = np.zeros(numbers.shape, bool)
    margin = ceil(BANK_MARGIN / block.grid.resolution)
    for k in (int(k) for k in np.unique(numbers) if int(k) in looks):
        top, left, bottom, right = (int(v) for v in patches.bounds[k])
        rows = slice(max(top - margin - block.row, 0), bottom + margin - block.row)
        columns = slice(max(left - margin - block.column, 0), right + margin - block.column)
        body = numbers[rows, columns] == k
        grid = block.grid.window(rows.start, columns.start, *body.shape)
        body = to_the_bank(body, Raster(image[rows, columns], grid), looks[k].centre, looks[k].spread)
        row, column = np.mgrid[0 : body.shape[0], 0 : body.shape[1]]
        level = looks[k].level.at(row + grid.origin[0], column + grid.origin[1])
        out[rows, columns] |= without_land(body, Raster(dsm.values[rows, columns], grid), level, sure[rows, columns])
    return out


def _claimed(bodies: Components, given: GivenWater, workers: Workers) -> dict[int, WaterKind | None]:
    """Bodies that polygons say to be water, and the kind that most of their cells are said to have, if any."""
    if not given.shapes:
        return {}

    def work(block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        block = block.part(*block.core)
        codes = given.codes(block.grid)
        said = (codes > 0) & (codes < CODES[LAND])
        return np.unique(bodies.read(block)[said].astype(np.int64) << 8 | codes[said], return_counts=True)

    votes: dict[int, dict[int, int]] = {}
    for keys, numbers in for_blocks(work, cut(bodies.labels.grid), workers):
        for key, n in zip(keys.tolist(), numbers.tolist(), strict=True):
            of_body = votes.setdefault(key >> 8, {})
            of_body[key & 255] = of_body.get(key & 255, 0) + n
    names = {code: kind for kind, code in CODES.items() if isinstance(kind, WaterKind)}
    return {k: names.get(max(v, key=lambda code: v[code])) for k, v in votes.items() if k > 0}


def _levels(
    bodies: Components, which: NDArray[np.bool_], evidence: Evidence, sigma: StoredRaster, workers: Workers, *,
    shown: bool = False, kinds: dict[int, WaterKind | None] | None = None, reach: float = SHORE,
) -> tuple[dict[int, WaterLevel], dict[int, float], list[Values]]:  # fmt: skip
    """Levels of bodies from their shores, or of the sea where these agree on none; the sigma there at its best; and, by
    block, the values of the picture in them if they are to be shown: body, value, how often."""
    if not which.any():
        return {}, {}, []
    dsm, image = evidence.heights, evidence.grey.values

    def work(block: Block) -> tuple[Shores, Values | None] | None:
        numbers = bodies.read(block)
        numbers[~which[numbers]] = 0
        if not numbers.any():
            return None
        z = Raster(block.read(dsm), block.grid)
        beside = shores(z, block.read(sigma), numbers, block.origin, block.core, reach)
        if not shown:
            return beside, None
        inside = numbers[block.core] > 0
        body, value = numbers[block.core][inside], block.read(image)[block.core][inside]
        both, n = np.unique(body.astype(np.int64) << 16 | value, return_counts=True)
        return beside, ((both >> 16).astype(np.int32), (both & 0xFFFF).astype(np.uint16), n)

    found = [f for f in for_blocks(work, cut(dsm.grid, BANK_MARGIN), workers) if f is not None]
    if not found:
        return {}, {}, []
    body, row, column, height, spread = (
        np.concatenate([getattr(f[0], n) for f in found]) for n in ("body", "row", "column", "height", "sigma")
    )
    order = np.argsort(body, kind="stable")
    names, start = np.unique(body[order], return_index=True)
    levels, best = {}, {}
    for k, at in zip(names.tolist(), np.split(order, start)[1:], strict=True):
        shape = body_shape(bodies, k, SHAPE_CELL, SHAPE_CELLS)
        cells = ShoreCells(row[at], column[at], height[at])
        level = water_level(shape, cells.row, cells.column, cells.height, (kinds or {}).get(k))
        if level is not None and is_pit(level) and k not in (kinds or {}):
            sea = sea_level(level, cells, bodies, k, image, placed=evidence.placed)
            level = sea or lake_amid_banks(level, cells.height) or level
        if level is not None:
            levels[k], best[k] = level, float(np.nanquantile(spread[at], 0.1))
    return levels, best, [f[1] for f in found if f[1] is not None]


def _centre_and_spread(found: list[Values], body: int) -> tuple[float, float]:
    """Median and NMAD of the values of a body."""
    value, n = (np.concatenate([f[i][f[0] == body] for f in found]) for i in (1, 2))
    centre = _weighted_median(value.astype(float), n)
    return centre, NMAD_FACTOR * _weighted_median(np.abs(value - centre), n)


def _weighted_median(values: NDArray[np.float64], n: NDArray[np.int64]) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(n[order]), n.sum() / 2)])
