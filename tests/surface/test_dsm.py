"""Points to a surface model: places, edges, outliers, sigma, and blocks that equal the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.points import PointCloud
from terrain3d.raster import Grid
from terrain3d.surface.dsm import AGREE_M, SurfaceModel, rasterize

REFERENCE = Reference("EPSG:32632")
GRID = Grid(REFERENCE, 1000.0, 2050.0, 0.5, 100, 120)
Floats = NDArray[np.float64]


def cloud(xyz: Floats, sigma: float | Floats = 0.2, pair: int | NDArray[np.int64] = 0) -> PointCloud:
    n = len(xyz)
    full = lambda value, kind: np.broadcast_to(value, n).astype(kind)  # noqa: E731
    return PointCloud(
        REFERENCE, np.asarray(xyz, float), full(sigma, np.float32), full(0.8, np.float32), full(pair, np.uint8),
        full(700, np.uint16),
    )  # fmt: skip


def scattered(n: int, seed: int = 1, margin: float = 2.0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    west, south, east, north = GRID.bounds
    return rng.uniform(west - margin, east + margin, n), rng.uniform(south - margin, north + margin, n)


def test_rasterize__a_point_falls_into_its_cell() -> None:
    """The cell whose centre is nearest has it, and by its reach the four beside it."""
    column, row = 40, 30
    x, y = (a[i] for a, i in zip(GRID.centres(), (column, row), strict=True))
    model = rasterize(cloud(np.array([[x, y, 512.5]])), GRID)
    rows, columns = np.nonzero(np.isfinite(model.height.values))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(30, 40), (29, 40), (31, 40), (30, 39), (30, 41)}
    assert model.height.values[30, 40] == 512.5
    np.testing.assert_array_equal(model.pairs.values > 0, np.isfinite(model.height.values))


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.3, -0.2), (1.0, 0.5)])
def test_rasterize__a_plane_comes_out_at_the_cell_centres(slope: tuple[float, float]) -> None:
    """Half a pixel of shift on a slope of 1 would be a bias of 0.25 m."""
    x, y = scattered(100_000)
    plane = 500 + slope[0] * (x - 1000) + slope[1] * (y - 2000)
    found = rasterize(cloud(np.column_stack([x, y, plane])), GRID).height.values
    cx, cy = GRID.centres()
    error = found - (500 + slope[0] * (cx[None, :] - 1000) + slope[1] * (cy[:, None] - 2000))
    steep = max(abs(slope[0]), abs(slope[1]))
    assert np.isfinite(error).all()
    assert abs(error.mean()) < 0.002 + 0.002 * steep and error.std() < 1e-3 + 0.1 * steep


def test_rasterize__an_edge_stays_an_edge() -> None:
    x, y = scattered(60_000)
    rng = np.random.default_rng(2)
    roof = x > 1030.1
    z = np.where(roof, 512.0, 500.0) + rng.normal(0, 0.2, len(x))
    found = rasterize(cloud(np.column_stack([x, y, z])), GRID).height.values
    on_roof = np.abs(found - 512) < 0.9
    assert (on_roof | (np.abs(found - 500) < 0.9)).all()  # never between
    cx = GRID.centres()[0]
    assert on_roof[:, cx > 1030.1 + 0.5].all() and not on_roof[:, cx < 1030.1 - 0.5].any()
    for cells, height in ((cx > 1031, 512.0), (cx < 1029.5, 500.0)):
        assert abs(found[:, cells].mean() - height) < 0.01
        assert found[:, cells].std() < 0.12


@pytest.mark.parametrize("points_a_cell", [10, 150])
def test_rasterize__edges_stand_where_they_are_however_many_points_there_are(points_a_cell: int) -> None:
    """As of twenty pairs, or in cells of several pixels: a cell that is roof by its own points is roof."""
    grid = GRID.window(0, 0, 24, 30)
    rng = np.random.default_rng(4)
    west, south, east, north = grid.bounds
    n = points_a_cell * 26 * 32
    x, y = rng.uniform(west - 0.5, east + 0.5, n), rng.uniform(south - 0.5, north + 0.5, n)
    ridge = north - 6.0  # between two rows of cells
    z = np.where(y > ridge, 512.0, 500.0) + rng.normal(0, 0.1, n)
    found = rasterize(cloud(np.column_stack([x, y, z]), 0.2, np.arange(n) % 20), grid)
    truth = np.where(grid.centres()[1] > ridge, 512.0, 500.0)[:, None]
    assert np.abs(found.height.values - truth).max() < 0.6
    if points_a_cell > 100:
        assert np.abs(found.height.values - truth).max() < 0.1 and (found.pairs.values == 20).all()


def test_rasterize__a_fifth_of_outliers_changes_little() -> None:
    x, y = scattered(120_000)
    rng = np.random.default_rng(3)
    z = 500 + rng.normal(0, 0.2, len(x))
    wrong = rng.random(len(x)) < 0.2
    z[wrong] += rng.uniform(-40, 40, wrong.sum())
    error = rasterize(cloud(np.column_stack([x, y, z])), GRID).height.values - 500
    assert (np.abs(error) < 0.5).mean() > 0.995
    assert abs(np.median(error)) < 0.01 and error.std() < 1.0


def test_rasterize__precise_points_count_for_more() -> None:
    """Two pairs that differ by less than what counts as one surface."""
    x, y = scattered(120_000)
    precise = np.random.default_rng(4).random(len(x)) < 0.5
    z = np.where(precise, 500.0, 500.5)
    sigma = np.where(precise, 0.1, 0.6)
    assert AGREE_M > 0.5
    found = rasterize(cloud(np.column_stack([x, y, z]), sigma), GRID).height.values
    assert 500.0 <= np.median(found) < 500.1


def test_sigma__positive_and_smaller_with_more_pairs() -> None:
    x, y = scattered(120_000)
    rng = np.random.default_rng(5)
    z = 500 + rng.normal(0, 0.3, len(x))
    xyz = np.column_stack([x, y, z])
    one, two = (rasterize(cloud(xyz, 0.3, rng.integers(0, n, len(x))), GRID) for n in (1, 2))
    assert set(np.unique(one.pairs.values)) == {1} and two.pairs.values.max() == 2
    for model in (one, two):
        assert (model.sigma.values > 0).all()
    assert np.median(one.sigma.values) == pytest.approx(0.3, rel=0.2)  # more points of one pair tell nothing new
    assert np.median(two.sigma.values) == pytest.approx(np.median(one.sigma.values) / 2**0.5, rel=0.1)


def test_sigma__tells_of_scatter_that_the_points_do_not_admit() -> None:
    x, y = scattered(120_000)
    z = 500 + np.random.default_rng(6).uniform(-0.6, 0.6, len(x))
    model = rasterize(cloud(np.column_stack([x, y, z]), 0.05), GRID)
    assert np.median(model.sigma.values) > 0.2


def test_rasterize__empty_where_no_point_fell() -> None:
    x, y = scattered(60_000)
    keep = np.hypot(x - 1030, y - 2025) > 6
    model = rasterize(cloud(np.column_stack([x, y, 500 + 0 * x])[keep]), GRID)
    cx, cy = GRID.centres()
    away = np.hypot(cx[None, :] - 1030, cy[:, None] - 2025)
    assert np.isnan(model.height.values[away < 5.4]).all() and np.isfinite(model.height.values[away > 7]).all()
    np.testing.assert_array_equal(np.isnan(model.height.values), np.isnan(model.sigma.values))
    np.testing.assert_array_equal(np.isnan(model.height.values), model.pairs.values == 0)
    np.testing.assert_array_equal(np.isnan(model.height.values), np.isnan(model.looks[0].values))


def test_rasterize__no_points_at_all() -> None:
    model = rasterize(cloud(np.empty((0, 3))), GRID)
    assert np.isnan(model.height.values).all() and model.height.values.dtype == np.float32
    elsewhere = rasterize(cloud(np.array([[0.0, 0.0, 1.0]])), GRID)
    assert np.isnan(elsewhere.height.values).all()


def within(points: PointCloud, grid: Grid, margin: float) -> PointCloud:
    west, south, east, north = grid.bounds
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    return points.select((x > west - margin) & (x < east + margin) & (y > south - margin) & (y < north + margin))


def layers(model: SurfaceModel) -> list[NDArray[np.generic]]:
    return [
        r.values for r in (model.height, model.sigma, model.pairs, model.confidence, model.below, *model.looks)
    ]  # fmt: skip


def test_rasterize__share_of_points_below_and_confidence_of_the_surface() -> None:
    """Half of the points on a roof, a quarter each on the ground below and in the air."""
    x, y = scattered(120_000)
    rng = np.random.default_rng(8)
    level = rng.choice([0.0, 9.0, 9.0, 20.0], len(x))
    points = cloud(np.column_stack([x, y, 500 + level]))
    points = replace(points, confidence=np.where(level == 9, 0.6, 0.9).astype(np.float32))
    model = rasterize(points, GRID)
    roof = np.abs(model.height.values - 509) < 0.1
    assert roof.mean() > 0.8
    assert model.confidence.values[roof] == pytest.approx(0.6, abs=1e-4)
    assert model.below.values[roof].mean() == pytest.approx(0.29, abs=0.03)  # points that are sure weigh more
    lone = rasterize(cloud(np.array([[1020.0, 2020.0, 5.0]])), GRID)
    assert (lone.below.values == 0).all() and lone.confidence.values.max() == pytest.approx(0.8)


def test_looks__say_by_how_much_pairs_differ() -> None:
    """Two pairs 0.3 m apart on a slope; a third has no points, a fourth is of the same look as the first."""
    x, y = scattered(120_000)
    pair = np.random.default_rng(9).choice([0, 1, 3], len(x))
    z = 500 + 0.2 * (x - 1000) + 0.3 * (pair == 1)
    model = rasterize(cloud(np.column_stack([x, y, z]), pair=pair), GRID)
    first, second, third = (look.values[2:-2, 2:-2] for look in model.looks)
    assert np.nanmedian(second - first) == pytest.approx(0.3, abs=0.02)
    assert np.nanstd(second - first) < 0.05 and np.isnan(third).all()


def test_rasterize__blocks_with_margins_equal_the_whole() -> None:
    x, y = scattered(50_000)
    rng = np.random.default_rng(7)
    z = 500 + 0.3 * (x - 1000) + 8.0 * (np.hypot(x - 1030, y - 2025) < 10) + rng.normal(0, 0.4, len(x))
    points = cloud(np.column_stack([x, y, z]), rng.uniform(0.1, 0.5, len(x)), rng.integers(0, 3, len(x)))
    whole = rasterize(points, GRID)
    for row in range(0, GRID.height, 37):
        for column in range(0, GRID.width, 41):
            part = GRID.window(row, column, min(37, GRID.height - row), min(41, GRID.width - column))
            block = rasterize(within(points, part, 2 * GRID.resolution), part)
            here = (slice(row, row + part.height), slice(column, column + part.width))
            for ours, theirs in zip(layers(block), layers(whole), strict=True):
                np.testing.assert_array_equal(ours, theirs[here], err_msg=f"at {row}, {column}")


@pytest.mark.parametrize(
    ("resolution", "west", "north"), [(0.3, 680_000.1, 5_230_000.2), (0.7, 680_000.13, 5_230_000.77)]
)
def test_rasterize__grids_of_any_cell_and_corner(resolution: float, west: float, north: float) -> None:
    """Also where corners are no multiples of the cell: the plane is hit at the centres of windows and of the whole."""
    grid = Grid(REFERENCE, west, north, resolution, 40, 50)
    rng = np.random.default_rng(8)
    x, y = (
        rng.uniform(west - 2, west + 50 * resolution + 2, 40_000),
        rng.uniform(north - 40 * resolution - 2, north + 2, 40_000),
    )
    points = cloud(np.column_stack([x, y, 500 + (x - west)]))
    whole = rasterize(points, grid)
    np.testing.assert_allclose(
        whole.height.values - 500, np.tile(grid.centres()[0] - west, (40, 1)), atol=0.2 * resolution
    )
    assert abs((whole.height.values - 500 - (grid.centres()[0] - west)).mean()) < 0.01 * resolution
    part = grid.window(11, 17, 20, 25)
    ours, theirs = rasterize(points, part).height.values, whole.height.values[11:31, 17:42]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
