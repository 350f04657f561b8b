"""Blocks, rasters on disk, and what is counted over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.io.scratch import new_raster
from terrain3d.pipeline import blocks
from terrain3d.pipeline.blocks import aligned, at_resolution, coarse_block, cut, extended, for_blocks
from terrain3d.pipeline.components import label
from terrain3d.pipeline.running import Counts, laid_over, overview
from terrain3d.raster import Grid, Growth

GRID = aligned(Grid(Reference("EPSG:32654"), 300_003.0, 4_000_007.0, 0.5, 301, 410))


def test_aligned__holds_the_grid_and_starts_at_whole_steps() -> None:
    small = Grid(Reference("EPSG:32654"), 300_003.0, 4_000_007.0, 0.5, 301, 410)
    west, south, east, north = aligned(small).bounds
    assert west % 8 == south % 8 == east % 8 == north % 8 == 0
    assert west <= small.bounds[0] and small.bounds[2] <= east and south <= small.bounds[1] and small.bounds[3] <= north
    assert aligned(aligned(small)) == aligned(small)
    assert aligned(Grid(Reference("EPSG:32654"), 0.0, 0.0, 0.3, 50, 50)).height == 72


def test_cut__cores_cover_every_cell_once_and_windows_hold_the_margin() -> None:
    seen = np.zeros(GRID.shape, int)
    for block in cut(GRID, 10.0, 128):
        core = block.part(*block.core)
        seen[core.row : core.row + core.grid.height, core.column : core.column + core.grid.width] += 1
        assert max(core.grid.shape) <= 128
        assert core.row % 16 == core.column % 16 == block.row % 16 == block.column % 16 == 0
        assert core.row - block.row in (0, 32) and block.grid == GRID.window(block.row, block.column, *block.grid.shape)
        assert core.origin == (-round(core.grid.north / 0.5), round(core.grid.west / 0.5))
        coarse = coarse_block(block, 2)
        assert coarse.grid.bounds == block.grid.bounds and coarse.grid.resolution == 1.0
    assert (seen == 1).all()


def test_cut__blocks_of_before_stay_where_a_grid_grows() -> None:
    west, _, east, north = GRID.bounds
    before = cut(GRID, 10.0, 128)
    grown = extended(GRID, (west - 20.0, north - 100.0, east - 50.0, north + 70.0))
    assert grown.bounds[0] <= west - 20.0 and grown.bounds[3] >= north + 70.0 and grown.bounds[2] == east
    assert grown.bounds[0] % 512 == grown.bounds[3] % 512 == 0  # sides that move do so to whole blocks
    nothing = {(b.grid, b.part(*b.core).grid) for b in cut(grown, 10.0, 128)}
    assert {(b.grid, b.part(*b.core).grid) for b in before} < nothing
    north_west = Growth(GRID.bounds, ((west - 40.0, north, west + 9.0, north + 40.0),))
    seen = np.zeros(grown.shape, int)
    changed = []
    for block in cut(replace(grown, grown=(north_west,)), 10.0, 128):
        core = block.part(*block.core)
        seen[core.row : core.row + core.grid.height, core.column : core.column + core.grid.width] += 1
        if core.grid in {b.part(*b.core).grid for b in before} and block.grid not in {b.grid for b in before}:
            changed.append(core.grid)
    assert (seen == 1).all()
    assert [(g.west, g.north) for g in changed] == [(west, north)]  # the only one with something within its margin
    twice = extended(grown, (west - 20.0, north - 600.0, east, north))
    assert len(twice.grown) == 2 and nothing < {(b.grid, b.part(*b.core).grid) for b in cut(twice, 10.0, 128)}


def test_at_resolution__a_grown_grid_has_the_blocks_of_before_there_too() -> None:
    west, south, east, north = GRID.bounds
    before = cut(at_resolution(GRID, 3.0), 30.0, 32)
    after = cut(at_resolution(extended(GRID, (west, south, east + 40.0, north)), 3.0), 30.0, 32)
    assert {b.grid for b in before} < {b.grid for b in after}


def test_cut__one_block_where_it_fits() -> None:
    (block,) = cut(GRID, 50.0)
    assert block.grid == GRID and block.core == (slice(0, GRID.height), slice(0, GRID.width))


def test_for_blocks__written_cores_make_up_the_raster(tmp_path: Path) -> None:
    source, target = (new_raster(tmp_path / name, GRID, np.float32) for name in "ab")
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    source.write(0, 0, values)
    for_blocks(lambda b: b.write(target, cv2.blur(b.read(source), (9, 9))), cut(GRID, 4.0, 100), 2)
    np.testing.assert_allclose(target.read(0, 0, *GRID.shape), cv2.blur(values, (9, 9)), atol=1e-6)


@pytest.mark.parametrize("size", [32, 100, 1536])
def test_label__components_are_those_of_the_whole(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(size=GRID.shape), (0, 0), 3.0)
    mask = noise > 0.0
    stored = new_raster(tmp_path / "mask", GRID, np.uint8)
    stored.write(0, 0, mask)
    found = label(lambda b: b.read(stored) > 0, GRID, tmp_path / "labels", 2, margin_m=8.0)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    assert len(found) == n - 1
    own = np.concatenate([found.read(b) for b in cut(GRID, 0.0, 10_000)])
    pairs = np.unique(np.column_stack([labels.ravel(), own.ravel()]), axis=0)
    assert len(pairs) == n and pairs[0].tolist() == [0, 0]
    order = pairs[1:]
    np.testing.assert_array_equal(found.area[order[:, 1]], stats[order[:, 0], cv2.CC_STAT_AREA])
    left, top, width, height = stats[order[:, 0], :4].T
    np.testing.assert_array_equal(found.bounds[order[:, 1]], np.column_stack([top, left, top + height, left + width]))


def test_counts__quantiles() -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.2, 20_001)
    counts = Counts(10.0, 100_000)
    for part in np.array_split(values, 7):
        counts.add(part)
    for share in (0.1, 0.5, 0.9):
        assert counts.quantile(share) == pytest.approx(np.quantile(values, share), abs=2e-4)
    assert Counts(1.0, 10).quantile(0.5) is None


def test_overview__means_without_the_voids(tmp_path: Path) -> None:
    raster = new_raster(tmp_path / "a", GRID, np.float32)
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    values[:4, :4], values[4, 0] = np.nan, np.nan
    raster.write(0, 0, values)
    small = overview(raster, 4)
    assert np.isnan(small.values[0, 0])
    assert small.values[1, 0] == pytest.approx(np.nanmean(values[4:8, :4]), abs=1e-6)
    assert small.values[-1, -1] == pytest.approx(values[-4:, -4:].mean(), abs=1e-6)
    assert small.grid.resolution == 2.0 and small.grid.west == GRID.west


def test_overview__blocks_lie_on_multiples_of_the_reference(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    raster = new_raster(tmp_path / "a", GRID, np.float32)
    raster.write(0, 0, values)
    whole, part = overview(raster, 7), overview(raster.window(13, 29, 201, 300), 7)
    assert whole.grid.origin[0] == GRID.origin[0] // 7 and part.grid.origin[1] == (GRID.origin[1] + 29) // 7
    row, column = (a - b for a, b in zip(part.grid.origin, whole.grid.origin, strict=True))
    h, w = part.grid.shape
    here = whole.values[row : row + h, column : column + w]
    np.testing.assert_allclose(part.values[1:-1, 1:-1], here[1:-1, 1:-1], atol=1e-6)
    np.testing.assert_array_equal(laid_over(part, whole).values[row : row + h, column : column + w], part.values)
