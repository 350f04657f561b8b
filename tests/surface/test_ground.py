from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.ground import Ground, coarse_ground, fine_ground, fit_plane


def raster(values: np.ndarray, resolution: float) -> Raster:
    return Raster(values.astype(np.float32), Grid(Reference("EPSG:32654"), 3e5, 4e6, resolution, *values.shape))


def ground_cells(heights: Raster) -> Ground:
    """Ground of a whole surface model, as blocks of it are worked."""
    plane, evidence = fit_plane(heights), np.isfinite(heights.values)
    assert plane is not None
    return fine_ground(heights, evidence, coarse_ground(heights, evidence, plane), plane)


def hills(shape: tuple[int, int], resolution: float, slope: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] * resolution
    return 300 + 3 * np.sin(x / 45) + 2 * np.cos(y / 60) + slope * x


def test_ground_cells__buildings_of_all_sizes_are_no_ground() -> None:
    terrain = hills((500, 600), 0.5)
    z = terrain + np.random.default_rng(2).normal(0, 0.15, terrain.shape)
    houses = np.zeros(z.shape, bool)
    for row, column, height, width, storeys in ((30, 30, 20, 24, 5), (60, 300, 120, 120, 20), (300, 60, 110, 160, 33)):
        where = np.s_[row : row + height, column : column + width]
        houses[where] = True
        z[where] = terrain[where].mean() + storeys
    ground = ground_cells(raster(z, 0.5))
    assert not (ground.mask & houses).any()
    assert ground.mask[~houses].mean() > 0.9
    error = ground.surface - terrain
    assert np.sqrt((error[~houses] ** 2).mean()) < 0.15
    assert np.sqrt((error[houses] ** 2).mean()) < 1.0


def test_ground_cells__steep_slope_and_embankment_are_ground() -> None:
    terrain = hills((400, 400), 0.5, slope=0.7)
    assert ground_cells(raster(terrain, 0.5)).mask[20:-20, 20:-20].mean() > 0.97
    y = np.mgrid[0:400, 0:400][0] * 0.5
    dam = hills((400, 400), 0.5) + np.clip((22 - np.abs(y - 100)) / 2, 0, 5)  # 5 m high, sides 1 : 2
    ground = ground_cells(raster(dam, 0.5))
    assert np.abs(ground.surface - dam).max() < 0.5


def test_ground_cells__floor_of_forest_gaps() -> None:
    rng = np.random.default_rng(3)
    terrain = hills((500, 500), 0.5, slope=0.3)
    z = terrain.copy()
    y, x = np.mgrid[0:500, 0:500] * 0.5
    for cx, cy in rng.uniform(0, 250, (1500, 2)):
        part = np.s_[int(max(cy - 4, 0) * 2) : int(cy + 4) * 2, int(max(cx - 4, 0) * 2) : int(cx + 4) * 2]
        r = np.hypot(x[part] - cx, y[part] - cy)
        z[part] = np.maximum(z[part], terrain[part] + rng.uniform(9, 18) * np.sqrt(np.maximum(1 - (r / 3.5) ** 2, 0)))
    error = ground_cells(raster(z, 0.5)).surface - terrain
    assert abs(np.median(error)) < 0.3
    assert np.sqrt((error**2).mean()) < 1.0


def test_ground_cells__nothing_and_tiny() -> None:
    assert fit_plane(raster(np.full((20, 20), np.nan, np.float32), 0.5)) is None
    assert ground_cells(raster(np.full((3, 4), 7.0, np.float32), 1.0)).surface == pytest.approx(7.0)


def test_ground_cells__height_of_the_frame_does_not_matter() -> None:
    z = (hills((150, 150), 1.0) + np.random.default_rng(0).normal(0, 0.1, (150, 150))).astype(np.float32)
    z[40:60, 40:60] += 8
    assert np.mean(ground_cells(raster(z, 1.0)).mask == ground_cells(raster(z + 2000, 1.0)).mask) > 0.999


def test_ground_cells__a_low_house_with_blurred_walls_is_no_ground() -> None:
    terrain = hills((400, 400), 0.5)
    y, x = np.mgrid[0:400, 0:400] * 0.5
    inside = 10 - np.maximum(np.abs(x - 100), np.abs(y - 100))
    ground = ground_cells(raster(terrain + np.clip(inside + 2, 0, 3.5), 0.5))  # 3.5 m high, walls over 3.5 m
    roof = inside > 3
    assert not (ground.mask & roof).any()
    assert np.median((ground.surface - terrain)[roof]) < 2.0  # the feet of such walls look like ground


def matched(z: np.ndarray) -> np.ndarray:
    """A surface as matching shows it: walls blurred, noise with the correlation of its windows."""
    noise = cv2.GaussianBlur(np.random.default_rng(4).normal(0, 1, z.shape), (0, 0), 1.5)
    return cv2.GaussianBlur(z, (0, 0), 2.4) + 0.15 * noise / noise.std()


def test_ground_cells__embankments_are_ground_and_long_sheds_are_not() -> None:
    y, x = np.mgrid[0:500, 0:600] * 0.5
    plain = hills((500, 600), 0.5)
    road = np.clip((5 + 7 * 1.6 - np.abs(x - 60 - 0.15 * y)) / 1.6, 0, 7)  # 7 m high, crest 10 m, sides 1 : 1.6
    levee = np.clip((2 + 4 * 1.5 - np.abs(y - 60 - 10 * np.sin(x / 40))) / 1.5, 0, 4)
    terrain = plain + np.maximum(road, levee)
    z = terrain.copy()
    sheds = np.zeros(z.shape, bool)
    for row in (250, 330, 410):
        sheds[row : row + 24, 300:500] = True  # 100 m by 12 m, 3 to 4.8 m high
        z[row : row + 24, 300:500] += 3 + 0.3 * (6 - np.abs(np.arange(24)[:, None] * 0.5 - 6))
    found = ground_cells(raster(matched(z), 0.5))
    crest = (road > 6.9) | (levee > 3.9)
    assert found.mask[crest].mean() > 0.99
    assert np.percentile(np.abs(found.surface - terrain)[crest], 99) < 1.0  # the blur of a crest of 4 m is half of it
    assert found.mask[sheds].mean() < 0.1
    assert np.median((found.surface - terrain)[sheds]) < 1.5


def test_ground_cells__false_matches_deep_in_narrow_streets_are_no_ground() -> None:
    terrain = hills((400, 400), 0.5)
    z = terrain.copy()
    for row in range(60, 300, 56):
        for column in range(60, 300, 56):  # blocks of 24 m, streets of 4 m
            z[row : row + 48, column : column + 48] = terrain[row + 24, column + 24] + 11
    z = matched(z)
    z[108:116, 130:142] = terrain[112, 136] - 7  # 4 m by 6 m
    error = ground_cells(raster(z, 0.5)).surface - terrain
    assert np.abs(error).max() < 2.0


def test_ground_cells__benches_of_a_quarry_are_ground() -> None:
    y, x = np.mgrid[0:500, 0:500] * 0.5
    pit = 300 + 10 * np.clip(np.floor(np.hypot(x - 300, y - 120) / 16), 3, 12)  # 10 m high, 16 m wide
    error = ground_cells(raster(matched(pit), 0.5)).surface - pit
    assert np.sqrt((error**2).mean()) < 1.4  # the blur of the walls alone is 1.0
    wall = np.hypot(*np.gradient(cv2.GaussianBlur(pit, (0, 0), 5.0), 0.5)) > 0.5
    assert np.percentile(np.abs(error[~wall]), 98) < 0.6


def test_ground_cells__brow_of_a_cliff_is_ground_and_a_bridge_is_not() -> None:
    y, x = np.mgrid[0:400, 0:400] * 0.5
    plain = hills((400, 400), 0.5)
    gorge = plain - 30 * np.clip((40 - np.abs(x - 100)) / 15, 0, 1)
    deck = (np.abs(y - 100) < 6) & (gorge < plain - 2)
    found = ground_cells(raster(matched(np.where(deck, plain, gorge)), 0.5))
    away = np.abs(y - 100) > 20
    assert np.sqrt(((found.surface - gorge)[away] ** 2).mean()) < 0.5
    assert not found.mask[deck & (gorge < plain - 29)].any()
    assert np.abs(found.surface - gorge)[deck & (np.abs(x - 100) < 15)].max() < 4.0


def test_ground_cells__a_hall_wider_than_the_openings_is_no_ground() -> None:
    terrain = hills((500, 500), 0.5)
    z = terrain.copy()
    z[120:380, 150:360] = terrain[120:380, 150:360].max() + 8  # 130 m by 105 m
    found = ground_cells(raster(matched(z), 0.5))
    assert not found.mask[120:380, 150:360].any()
    assert np.sqrt(((found.surface - terrain)[120:380, 150:360] ** 2).mean()) < 1.5


def test_ground_cells__towers_are_built_and_forest_is_not() -> None:
    terrain = hills((500, 600), 0.5)
    z = terrain.copy()
    rng = np.random.default_rng(6)
    towers, forest = np.zeros(z.shape, bool), np.s_[:, 400:]
    for row, column, side, height in ((40, 40, 50, 45), (60, 230, 60, 150), (260, 60, 80, 90), (320, 270, 45, 120)):
        part = np.s_[row : row + side, column : column + side]
        towers[part] = True
        z[part] = terrain[part].mean() + height + 2.5 * (rng.random((side, side)) < 0.002)  # and what stands on roofs
    y, x = np.mgrid[0:500, 0:600] * 0.5
    for cx, cy in zip(rng.uniform(204, 296, 900), rng.uniform(4, 246, 900), strict=True):
        part = np.s_[int(cy - 4) * 2 : int(cy + 4) * 2, int(cx - 4) * 2 : int(cx + 4) * 2]
        r = np.hypot(x[part] - cx, y[part] - cy)
        z[part] = np.maximum(z[part], terrain[part] + rng.uniform(12, 24) * np.sqrt(np.maximum(1 - (r / 3.5) ** 2, 0)))
    found = ground_cells(raster(matched(z), 0.5))
    assert not found.built[forest].any()
    assert found.built[towers].mean() > 0.98
    assert not found.built[cv2.dilate(towers.astype(np.uint8), np.ones((13, 13), np.uint8)) == 0].any()  # 3 m
    assert np.abs(found.surface - terrain)[towers].max() < 2.0


def test_ground_cells__rough_towers_on_coarse_cells_are_built_and_a_wooded_knoll_is_not() -> None:
    rng = np.random.default_rng(7)
    terrain = hills((200, 260), 2.0)
    y, x = np.mgrid[0:200, 0:260] * 2.0
    knoll = 60 * np.exp(-(((x - 400) / 40) ** 2 + ((y - 200) / 40) ** 2))
    z = terrain + knoll + np.where(np.hypot(x - 400, y - 200) < 90, rng.uniform(8, 20, x.shape), 0)
    towers = np.zeros(z.shape, bool)
    for row, column, side, height in ((30, 40, 12, 60), (90, 80, 18, 140), (150, 30, 14, 90)):
        towers[row : row + side, column : column + side] = True
        z[row : row + side, column : column + side] = terrain[row, column] + height + rng.normal(0, 2, (side, side))
    found = ground_cells(raster(cv2.GaussianBlur(z, (0, 0), 0.8), 2.0))
    assert found.built[towers].mean() > 0.9
    assert not found.built[:, 140:].any()
