"""Water of a scene, found and levelled over several blocks as in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from terrain3d.crs import Reference, to_lonlat, vertical_from_name
from terrain3d.io.geoid import undulation
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline import blocks
from terrain3d.pipeline.picture import Grey
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.running import Counts
from terrain3d.pipeline.water_bodies import Evidence, GivenWater
from terrain3d.pipeline.waters import WaterBody, level_water, shorelines
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.water import banks_above, without_land
from terrain3d.surface.water_level import BodyShape, WaterKind, water_level

N = 400
GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, N, N)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(radius: float = 40.0) -> Arrays:
    """Surface, image and lake: flat shores at 20 m rising away, invented heights on the water."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:N, 0:N] * 0.5
    distance = np.hypot(x - 100, y - 90) - radius
    lake = distance < 0
    z = 20 + 0.1 * np.maximum(distance, 0) + rng.normal(0, 0.1, (N, N))
    z[lake] = np.where(rng.random(lake.sum()) < 0.6, np.nan, 20 + rng.normal(0, 4, lake.sum()))
    image = rng.normal(600, 120, (N, N))
    image[lake] = rng.normal(180, 9, lake.sum())
    return z.astype(np.float32), np.clip(image, 1, None).astype(np.uint16), lake


def levelled(folder: Path, z: np.ndarray, image: np.ndarray, given: GivenWater | None = None) -> Arrays:
    """Water, surface and sigma."""
    return worked(folder, z, image, given or GivenWater())[0]


def worked(
    folder: Path, z: np.ndarray, image: np.ndarray, given: GivenWater, grid: Grid = GRID
) -> tuple[Arrays, list[WaterBody]]:
    """The same, and the bodies of water."""
    layers, bodies, _ = spanned(folder, z, image, given, grid)
    return layers, bodies


def spanned(
    folder: Path, z: np.ndarray, image: np.ndarray, given: GivenWater, grid: Grid = GRID
) -> tuple[Arrays, list[WaterBody], np.ndarray]:
    """The same, and the level under bridges."""

    def stored(name: str, values: np.ndarray) -> StoredRaster:
        raster = new_raster(folder / name, grid, values.dtype)
        raster.write(0, 0, values)
        return raster

    counts = Counts(65536, 65536)
    counts.add(image[image > 0])
    clean, dsm = stored("clean", z), stored("dsm", z)
    sigma = stored("sigma", np.where(np.isfinite(z), np.float32(0.3), np.float32(np.nan)))
    mask = stored("mask", np.where(np.isfinite(z), MaskCode.MEASURED, MaskCode.NODATA).astype(np.uint8))
    picture = Grey(stored("image", image), counts)
    evidence = Evidence(clean, stored("confidence", np.full_like(z, 0.4)), picture)
    bodies, bridges = level_water(evidence, dsm, sigma, mask, given, folder, 2, Silent())
    codes, heights, spread = (r.read(0, 0, N, N) for r in (mask, dsm, sigma))
    under = np.full((N, N), np.nan, np.float32)
    if bridges is not None:
        for block in blocks.cut(grid):
            under[block.row : block.row + block.grid.height, block.column : block.column + block.grid.width] = (
                bridges.under(block)[0]
            )
    return (codes == MaskCode.WATER, heights, spread), bodies, under


@pytest.mark.parametrize("size", [1536, 96])
def test_level_water__lake_is_found_and_level(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z, image, lake = scene()
    water, heights, sigma = levelled(tmp_path, z, image)
    assert (water & lake).sum() > 0.95 * lake.sum()
    assert (water & ~lake).sum() < 0.02 * lake.sum()
    assert np.ptp(heights[water]) < 1e-3
    assert abs(heights[200, 180] - 20) < 0.15
    lower = heights[~water] != z[~water]  # of the banks, what lay under the water
    assert np.allclose(heights[~water][lower & np.isfinite(z[~water])], heights[200, 180])
    assert np.allclose(sigma[water], 0.3, atol=0.02)


@pytest.mark.parametrize(("radius", "found"), [(24.0, True), (20.0, False)])  # 1810 and 1257 m2
def test_level_water__a_lake_counts_with_the_rim_that_its_patch_lost(
    tmp_path: Path, radius: float, found: bool
) -> None:
    z, image, lake = scene(radius)
    water, surface, _ = levelled(tmp_path, z, image)
    assert (water & lake).sum() == pytest.approx(lake.sum() if found else 0, rel=0.06)
    if found:
        assert np.ptp(surface[water]) < 1e-3 and surface[water].mean() == pytest.approx(20, abs=0.3)


def test_level_water__a_lake_amid_ground_as_smooth_as_it_is(tmp_path: Path) -> None:
    """Dark water shows the noise of photons more than the bright concrete around it."""
    z, image, lake = scene()
    rng = np.random.default_rng(8)
    image = np.where(lake, rng.normal(180, 0.06 * 180, (N, N)), rng.normal(800, 0.045 * 800, (N, N))).astype(np.uint16)
    water, *_ = levelled(tmp_path, z, image)
    assert water[lake].mean() > 0.95
    assert water[~lake].mean() < 0.005


def test_level_water__does_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    z, image, _ = scene()
    whole = levelled(tmp_path, z, image)
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 100)
    for a, b in zip(whole, levelled(tmp_path, z, image), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_level_water__matched_dark_place_and_small_shadow_are_not_water(tmp_path: Path) -> None:
    z, image, lake = scene()
    matched = np.where(lake, 20 + np.random.default_rng(0).normal(0, 0.1, z.shape), z).astype(np.float32)
    assert not levelled(tmp_path, matched, image)[0].any()
    bright = np.where(lake, 700, image).astype(np.uint16)
    assert not levelled(tmp_path, z, bright)[0].any()
    small = np.zeros_like(lake)
    small[150:200, 150:180] = True  # 375 m2
    z = np.where(lake & ~small, 20, z).astype(np.float32)
    image = np.where(lake & ~small, 600, image).astype(np.uint16)
    assert not levelled(tmp_path, z, image)[0].any()


def test_level_water__cells_that_were_not_matched_get_the_sigma_of_the_water_around(tmp_path: Path) -> None:
    z, image, _ = scene()
    y, x = np.mgrid[0:N, 0:N] * 0.5
    inner = np.hypot(x - 100, y - 90) < 30
    z[inner] = np.nan
    water, heights, sigma = levelled(tmp_path, z, image)
    assert water[inner].all() and np.isfinite(heights[inner]).all()
    np.testing.assert_allclose(sigma[inner], 0.3, atol=0.02)


def test_level_water__pit_in_shadow_is_not_water(tmp_path: Path) -> None:
    z, image, _ = scene()
    y, x = np.mgrid[0:N, 0:N] * 0.5
    walls = (np.hypot(x - 100, y - 90) >= 40) & (x + y < 230)  # higher ground around two thirds of it
    z[walls] += 50
    assert not levelled(tmp_path, z, image)[0].any()


def test_level_water__no_shadow_is_as_wide_as_a_lake_amid_trees(tmp_path: Path) -> None:
    """Crowns of 18 m on three quarters of the shores."""
    z, image, lake = scene()
    y, x = np.mgrid[0:N, 0:N] * 0.5
    woods = ~lake & (np.abs(np.arctan2(y - 90, x - 100)) < 0.75 * np.pi)
    rng = np.random.default_rng(4)
    z[woods] += 14 + 4 * cv2.GaussianBlur(rng.standard_normal((N, N)), (0, 0), 4)[woods] * 10
    (water, heights, sigma), bodies = worked(tmp_path, z.astype(np.float32), image, GivenWater())
    assert water[lake].mean() > 0.95 and water[~lake].mean() < 0.01
    assert len(bodies) == 1 and bodies[0].level.kind is WaterKind.LAKE
    assert np.abs(heights[water] - 20).max() < 0.3 and sigma[water].min() > 0.5


def test_level_water__outline_and_level_of_a_lake(tmp_path: Path) -> None:
    z, image, lake = scene()
    _, bodies = worked(tmp_path, z, image, GivenWater())
    assert len(bodies) == 1 and bodies[0].level.kind is WaterKind.LAKE and not bodies[0].given
    assert bodies[0].outline.area == pytest.approx(lake.sum() * 0.25, rel=0.04)
    lines = shorelines(bodies)
    xyz = shapely.get_coordinates(lines[0][1], include_z=True)
    assert lines[0][0] == 1 and np.allclose(xyz[:, 2], 20, atol=0.15)
    assert np.abs(np.hypot(xyz[:, 0] - 3e5 - 100, xyz[:, 1] - 4e6 + 90) - 40).max() < 2


def test_level_water__dark_ground_above_the_water_is_land(tmp_path: Path) -> None:
    """Shadow of a wood on the shore, as dark and smooth as the lake, half of it matched, 2 m above the level."""
    rng = np.random.default_rng(4)
    z, image, lake = scene()
    shadow = np.zeros_like(lake)
    shadow[250:330, 120:240] = True
    shadow &= ~cv2.dilate(lake.astype(np.uint8), np.ones((5, 5))).astype(bool)
    image[shadow] = rng.normal(180, 9, shadow.sum())
    z[shadow] = np.where(rng.random(shadow.sum()) < 0.3, np.nan, 22 + rng.normal(0, 0.1, shadow.sum()))
    water, _, _ = levelled(tmp_path, z, image)
    assert (water & lake).sum() > 0.95 * lake.sum()
    assert (water & shadow).sum() < 0.1 * shadow.sum()


def river(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Surface, image, river and its level: 20 m wide, bending, falling 2 m, with cliffs along a third of a bank."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:N, 0:N] * 0.5
    off = np.abs(y - 100 - 12 * np.sin(x / 35)) - 10
    level = 51 - 0.01 * x
    z = level + 0.3 * np.clip(off, 0, 3) + 0.05 * np.maximum(off, 0) + rng.normal(0, 0.1, (N, N))
    z[(off > 0) & (x > 60) & (x < 120) & (y < 100)] += 8
    wet = off < 0
    z[wet] = np.where(rng.random(wet.sum()) < 0.6, np.nan, 50 + rng.normal(0, 4, wet.sum()))
    image = np.where(wet, rng.normal(180, 9, (N, N)), rng.normal(600, 120, (N, N)))
    return z.astype(np.float32), np.clip(image, 1, None).astype(np.uint16), wet, level.astype(np.float32)


@pytest.mark.parametrize("seed", [1, 2])
def test_level_water__river_falls_one_way_and_is_level_across(seed: int, tmp_path: Path) -> None:
    z, image, wet, level = river(seed)
    (water, heights, _), bodies = worked(tmp_path, z, image, GivenWater())
    assert bodies[0].level.kind is WaterKind.RIVER and (water & wet).sum() > 0.9 * wet.sum()
    assert np.abs(heights - level)[water & wet].max() < 0.3
    middle = np.array([np.nanmedian(np.where(water[:, j], heights[:, j], np.nan)) for j in range(N)])
    assert np.diff(middle).max() < 2e-3
    assert max(float(np.ptp(heights[water[:, j], j])) for j in range(N)) < 0.15
    banks = (cv2.dilate(water.astype(np.uint8), np.ones((3, 3))) > 0) & ~water & np.isfinite(heights)
    assert (heights - level)[banks].min() > -0.3


@pytest.mark.parametrize("size", [1536, 128])
def test_level_water__a_river_goes_on_under_bridges(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bridges; beyond each is less water than would be believed by itself."""
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z, image, wet, level = river(1)
    column = np.arange(N)[None, :] * 0.5
    decks = [wet & (np.abs(column - x) < 4) for x in (122, 165)]
    for deck in decks:
        z[deck], image[deck] = level[deck] + 4, 700
    (water, heights, _), bodies, under = spanned(tmp_path, z, image, GivenWater())
    assert len(bodies) == 3 and sorted(b.outline.area < 1000 for b in bodies) == [False, True, True]
    far = wet & (column > 171)
    assert (water & far).sum() > 0.85 * far.sum() and np.abs(heights - level)[water & far].max() < 0.3
    for deck in decks:
        known = np.isfinite(under) & deck
        assert known.sum() > 0.7 * deck.sum() and np.abs(under - level)[known].max() < 0.3
        assert not water[deck].any() and np.allclose(heights[deck], z[deck])  # the surface is the deck
    beside = cv2.dilate(np.logical_or(*decks).astype(np.uint8), np.ones((9, 9))) == 0
    assert not np.isfinite(under)[beside].any()


def test_level_water__a_dam_between_levels_and_a_causeway_are_no_bridges(tmp_path: Path) -> None:
    z, image, wet, level = river(2)
    column = np.arange(N)[None, :] * 0.5
    dam = wet & (np.abs(column - 90) < 4)
    z = np.where(column > 90, z - 3, z).astype(np.float32)
    z[dam], image[dam] = level[dam] + 2, 700
    assert np.isnan(spanned(tmp_path, z, image, GivenWater())[2]).all()
    z, image, lake = scene()
    road = lake & (np.abs(column - 100) < 4)
    z[road], image[road] = 22, 700
    (water, _, _), bodies, under = spanned(tmp_path, z, image, GivenWater())
    assert len(bodies) == 2 and not water[road].any() and np.isnan(under).all()


def test_without_land__what_is_matched_beyond_doubt_above_the_water_is_land() -> None:
    """A strip of the bank in shadow, 3 m wide and 0.6 m over the water: too narrow and low to be told by height."""
    rng = np.random.default_rng(9)
    body, strip = np.zeros((N, N), bool), np.zeros((N, N), bool)
    body[50:200, 50:350], strip[194:200, 50:350] = True, True
    z = np.where(body, np.nan, 20.6) + rng.normal(0, 0.1, (N, N))
    z[strip] = 20.6 + rng.normal(0, 0.1, strip.sum())
    z[80:90, 80:180] = 20.1  # matched at the level of the water
    level, dsm = np.full((N, N), 20, np.float32), Raster(z.astype(np.float32), GRID)
    doubtful, sure = (without_land(body, dsm, level, np.full((N, N), s)) for s in (False, True))
    assert np.array_equal(doubtful, body)
    assert (sure & strip).sum() < 20 and np.array_equal(sure & ~strip, body & ~strip)  # but for its corners


def test_banks_above__no_bank_lies_under_the_water() -> None:
    heights = np.full((20, 40), 10, np.float32)
    heights[:, :10], heights[:, 12], heights[0, 11] = 12, 14, np.nan
    water = np.zeros(heights.shape, bool)
    water[:, :10] = True
    found = banks_above(heights, water, heights, 0.5)
    assert (found[:, :12][np.isfinite(found[:, :12])] == 12).all() and np.isnan(found[0, 11])
    assert (found[:, 12] == 14).all() and (found[:, 15:] == 10).all() and (found[:, 13] == 12).all()


def test_level_water__polygons_add_water_and_land(tmp_path: Path) -> None:
    z, image, lake = scene()
    matched = np.where(lake, 20 + np.random.default_rng(0).normal(0, 0.1, z.shape), z).astype(np.float32)
    disc = shapely.Point(3e5 + 100, 4e6 - 90).buffer(38)
    (water, heights, _), bodies = worked(tmp_path, matched, image, GivenWater((disc,), ("lake",)))
    assert bodies[0].given and bodies[0].outline.area == pytest.approx(disc.area, rel=0.02)
    assert np.ptp(heights[water]) < 1e-3 and abs(heights[200, 180] - 20) < 0.15
    half = shapely.box(3e5, 4e6 - 200, 3e5 + 100, 4e6)
    (water, _, _), _ = worked(tmp_path, z, image, GivenWater((half,), ("land",)))
    assert not water[:, :200].any() and water[:, 202:].sum() > 0.9 * lake[:, 202:].sum()


def test_level_water__sea_has_one_level(tmp_path: Path) -> None:
    z, image, lake = scene()
    shapes = tuple(shapely.Point(3e5 + x, 4e6 - 90).buffer(12) for x in (85, 118))
    z = np.where(lake, z, np.where(np.arange(N) < 200, 20.0, 20.4)).astype(np.float32)
    (_, heights, _), bodies = worked(tmp_path, z, np.full_like(image, 600), GivenWater(shapes, ("sea", "sea")))
    assert len(bodies) == 2 and bodies[0].level.low == bodies[1].level.low == heights[180, 170] == heights[180, 236]


def geoid_under(grid: Grid) -> float:
    """Height of the geoid in the middle of a grid."""
    x, y = grid.centres()
    lon, lat = to_lonlat(grid.reference.horizontal, x[N // 2 : N // 2 + 1], y[N // 2 : N // 2 + 1])
    return float(undulation(vertical_from_name("egm96"), lon, lat)[0])


def test_level_water__a_coast_is_found_and_the_sea_has_one_level(tmp_path: Path) -> None:
    """A sea over two thirds of the scene, parted by a mole, at the height of the geoid; nobody says what it is."""
    rng = np.random.default_rng(5)
    grid = replace(GRID, resolution=2.0)
    geoid = geoid_under(grid)
    row, column = np.mgrid[0:N, 0:N] * 2.0
    inland = 220 + 25 * np.sin(row / 70) - column
    land = (inland > 0) | (np.abs(row - 400) < 20)
    z = geoid + 0.3 + np.where(inland > 0, 0.06 * inland, 0.3) + rng.normal(0, 0.1, (N, N))
    z[(row < 400) & (inland > 0)] += 0.2
    z[~land] = np.where(rng.random((~land).sum()) < 0.6, np.nan, geoid + rng.normal(0, 5, (~land).sum()))
    image = np.where(land, rng.normal(600, 120, (N, N)), rng.normal(150, 7, (N, N))).clip(1).astype(np.uint16)
    (water, heights, _), bodies = worked(tmp_path, z.astype(np.float32), image, GivenWater(), grid)
    assert (water & ~land).sum() > 0.97 * (~land).sum() and (water & land).sum() < 0.02 * land.sum()
    assert [b.level.kind for b in bodies] == [WaterKind.SEA] * 2
    assert np.ptp(heights[water]) < 1e-3 and abs(heights[water][0] - geoid - 0.4) < 0.4


def cliff_coast(high: float, *, open_sea: bool = True) -> tuple[Grid, float, Arrays]:
    """A sea in the west that walls of 15 to 40 m bound, some of them at both, so that shores agree on no level; the
    geoid there; heights, picture and sea. high: metres that all lies over it. open_sea: else land is all around."""
    rng = np.random.default_rng(5)
    grid = replace(GRID, resolution=1.0)
    geoid = geoid_under(grid)
    row, column = np.mgrid[0:N, 0:N] * 1.0
    land = (column > 180 + 15 * np.sin(row / 30)) | (np.hypot(row - 150, column - 70) < 25)
    if not open_sea:
        land |= (row < 30) | (row > 370) | (column < 30)
    z = geoid + high + 15 + 25 * (np.sin(row / 25) + 1) / 2 + rng.normal(0, 0.1, (N, N))
    invented = cv2.resize(rng.normal(high, 25, (40, 40)), (N, N), interpolation=cv2.INTER_NEAREST)
    blotches = cv2.resize((rng.random((40, 40)) < 0.15).astype(np.float32), (N, N), interpolation=cv2.INTER_NEAREST)
    z[~land] = np.where(blotches > 0, geoid + invented, np.nan)[~land]
    image = np.where(land, rng.normal(600, 120, (N, N)), rng.normal(150, 7, (N, N))).clip(1).astype(np.uint16)
    return grid, geoid, (z.astype(np.float32), image, ~land)


def test_level_water__under_cliffs_the_sea_lies_at_the_geoid(tmp_path: Path) -> None:
    grid, geoid, (z, image, sea) = cliff_coast(0.0)
    (water, heights, sigma), bodies = worked(tmp_path, z, image, GivenWater(), grid)
    assert [b.level.kind for b in bodies] == [WaterKind.SEA]
    assert (water & sea).sum() > 0.98 * sea.sum() and (water & ~sea).sum() < 0.01 * sea.sum()
    assert np.allclose(heights[water], geoid, atol=0.05) and 1.2 < sigma[water].min() == sigma[water].max() < 4


@pytest.mark.parametrize(("high", "open_sea"), [(60.0, True), (-45.0, True), (0.0, False)])
def test_level_water__walled_water_inland_below_the_sea_or_within_the_scene_has_no_level(
    tmp_path: Path, high: float, open_sea: bool
) -> None:
    grid, _, (z, image, _) = cliff_coast(high, open_sea=open_sea)
    (water, heights, _), bodies = worked(tmp_path, z, image, GivenWater(), grid)
    assert not bodies and not water.any() and np.array_equal(heights, z, equal_nan=True)


def test_level_water__without_flattening_heights_stay(tmp_path: Path) -> None:
    z, image, _ = scene()
    (water, heights, _), bodies = worked(tmp_path, z, image, GivenWater(flatten=False))
    assert not water.any() and np.array_equal(heights, z, equal_nan=True)
    assert len(bodies) == 1 and bodies[0].level.low == pytest.approx(20, abs=0.15)


def test_water_level__shores_of_a_canyon_that_match_nothing() -> None:
    """Half of the stretches hold cliffs, a third invented heights far below: the level follows the rest."""
    rng = np.random.default_rng(3)
    mask = np.zeros((30, 400), bool)
    mask[10:20] = True
    shape = BodyShape(mask, 4, (0, 0), 0.5)
    column = np.tile(np.arange(20, 1580), 2)
    row = np.repeat([38, 82], 1560)
    kind = rng.choice(3, 40)[column // 40] * (row > 50)
    height = 100 - 0.002 * column + rng.normal(0, 0.1, column.size)
    height += np.where(kind == 1, rng.uniform(5, 25, column.size), 0) - np.where(kind == 2, 40, 0)
    found = water_level(shape, row, column, height.astype(np.float32))
    assert found is not None and found.kind is WaterKind.RIVER
    at = np.arange(20, 1580, 40)
    assert np.abs(found.at(np.full(at.size, 60), at) - (100 - 0.002 * at)).max() < 0.25
    assert 0.3 < found.agreement < 0.9


@pytest.mark.parametrize(("fall", "kind"), [(0.0, WaterKind.LAKE), (0.003, WaterKind.RIVER)])
def test_water_level__a_river_of_which_little_is_seen_falls_and_a_long_lake_does_not(
    fall: float, kind: WaterKind
) -> None:
    """250 m of water that is 50 m wide."""
    rng = np.random.default_rng(5)
    mask = np.ones((25, 125), bool)
    column = np.tile(np.arange(500), 2)
    height = 100 - fall * column * 0.5 + rng.normal(0, 0.15, column.size)
    found = water_level(BodyShape(mask, 4, (0, 0), 0.5), np.repeat([0, 99], 500), column, height.astype(np.float32))
    assert found is not None and found.kind is kind
    at = np.arange(40, 460, 20)
    assert np.abs(found.at(np.full(at.size, 50), at) - (100 - fall * at * 0.5)).max() < 0.3


def test_water_level__the_inner_bank_of_a_bend_is_no_shorter_way() -> None:
    """A river turns back within three times its width and falls with the angle: 1.26 m, sections are level."""
    y, x = np.mgrid[-10:110, -60:60]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    wet, shore = (radius >= 30) & (radius < 50) & (y >= 0), (radius >= 29) & (radius < 51) & (y >= 0)
    shore &= ~wet
    fall = (20 - 0.4 * angle).astype(np.float32)
    found = water_level(BodyShape(wet, 1, (0, 0), 2.0), *np.nonzero(shore), fall[shore], WaterKind.RIVER)
    assert found is not None
    height, section = found.at(*np.nonzero(wet)), (angle[wet] * 10).astype(int)
    assert max(float(np.ptp(height[section == k])) for k in range(2, 29)) < 0.13
    assert np.abs(height - fall[wet]).max() < 0.2
