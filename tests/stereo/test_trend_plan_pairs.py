"""Coarse surfaces, tiles that cover the ground once, and which images are matched with which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely import contains_xy

from terrain3d.crs import Reference
from terrain3d.errors import OverlapError
from terrain3d.image.view import View, footprint
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.world import CENTRE
from terrain3d.stereo.pairs import PARTNERS, Pair, choose_pairs
from terrain3d.stereo.plan import MatchTask, plan_matching, rectified_pixel
from terrain3d.stereo.trend import coarse_surface, flat_surface

CRS = "EPSG:32632"
H0 = 520.0
Make = Callable[..., View]
Area = Callable[..., Grid]


# surfaces


def test_coarse_surface__follows_slopes_and_bounds_what_stands_on_them() -> None:
    grid = Grid(Reference(CRS), 0.0, 400.0, 4.0, 100, 100)
    x, y = grid.centres()
    slope = (500 + 0.1 * x[None, :] + 0 * y[:, None]).astype(np.float32)
    heights = slope.copy()
    heights[40:44, 40:44] += 25  # a tower
    heights[60:90, 10:40] = np.nan
    surface = coarse_surface(Raster(heights, grid))
    inner = (slice(20, -20), slice(20, -20))
    far = np.abs(surface.trend.values - slope)[inner]
    assert np.isfinite(surface.trend.values).all() and np.median(far) < 1.0
    east, north = np.array([x[41], x[60]]), np.array([y[41], y[60]])
    low, high = surface.relief_around(east, north)
    assert surface.trend_at(east[:1], north[:1])[0] + high > slope[41, 41] + 24  # the tower is inside the limits
    assert low < 0 < high
    # beyond the grid the nearest values hold
    assert surface.trend_at(np.array([-1e4]), np.array([200.0]))[0] == pytest.approx(
        surface.trend.values[49:51, 0].mean(), abs=0.1
    )


def test_coarse_surface__one_wild_cell_is_clipped() -> None:
    grid = Grid(Reference(CRS), 0.0, 100.0, 4.0, 25, 25)
    heights = np.full(grid.shape, 500, np.float32)
    heights[12, 12] = 900
    surface = coarse_surface(Raster(heights, grid))
    assert surface.high.values.max() == 500
    np.testing.assert_allclose(surface.trend.values, 500)
    with pytest.raises(ValueError, match="at least one"):
        coarse_surface(Raster(np.full(grid.shape, np.nan, np.float32), grid))


def test_coarse_surface__scraps_beyond_what_was_matched_do_not_bend_the_trend() -> None:
    grid = Grid(Reference(CRS), 0.0, 400.0, 4.0, 100, 100)
    heights = np.full(grid.shape, np.nan, np.float32)
    heights[50:] = 500
    heights[40:42, 10:14] = heights[30:33, 60:65] = 380  # rims matched with each other
    heights[44:47, 80:84] = 515  # an island of a slope that is plausible
    surface = coarse_surface(Raster(heights, grid))
    assert surface.low.values.min() == pytest.approx(500)
    assert surface.high.values[45, 82] == pytest.approx(515)
    assert surface.trend.values.min() > 499.9


def test_coarse_surface__scraps_are_all_there_is() -> None:
    grid = Grid(Reference(CRS), 0.0, 400.0, 4.0, 100, 100)
    heights = np.full(grid.shape, np.nan, np.float32)
    heights[10:14, 10:14], heights[80:84, 80:84] = 500, 700
    surface = coarse_surface(Raster(heights, grid))
    assert (surface.low.values.min(), surface.high.values.max()) == (500, 700)


def test_flat_surface__knows_only_limits() -> None:
    surface = flat_surface(Reference(CRS), (0.0, 0.0, 1000.0, 500.0), 480.0, 560.0)
    east, north = np.array([0.0, 700.0]), np.array([0.0, 400.0])
    np.testing.assert_allclose(surface.trend_at(east, north), 520.0)
    assert surface.relief_around(east, north) == (-40.0, 40.0)


# tiles


def plan(views: list[View], core_px: int = 300) -> list[MatchTask]:
    pair = choose_pairs(views, CRS, H0)[0]
    surface = flat_surface(Reference(CRS), pair.area.bounds, 500.0, 540.0)
    return plan_matching(views, pair, CRS, surface, 0.5, core_px)


def core_square(task: MatchTask) -> tuple[int, int, int, int]:
    """First and last column and row of the core in the frame."""
    column, row, width, height = task.core
    c, r = task.tile.column + column, task.tile.row + row
    return c, c + width, r, r + height


def inside(tasks: list[MatchTask], east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.int64]:
    """In how many cores each place lies."""
    count = np.zeros(len(east), int)
    for task in tasks:
        x, y = task.tile.frame.from_ground(east, north)
        c0, c1, r0, r1 = core_square(task)
        count += (x >= c0) & (x < c1) & (y >= r0) & (y < r1)
    return count


def test_plan__cores_cover_the_common_ground_once(view_of: Make, area: Area) -> None:
    views = [view_of(area(400), 12.0, 1.0), view_of(area(400, 60, -40), -10.0, 0.0)]
    tasks = plan(views)
    assert len(tasks) >= 4
    x, y = np.meshgrid(np.arange(-260.0, 320.0, 4.5), np.arange(-300.0, 260.0, 4.5))
    east, north = x.ravel() + CENTRE[0], y.ravel() + CENTRE[1]
    count = inside(tasks, east, north)
    common = contains_xy(tasks[0].pair.area, east, north)
    assert common.sum() > 3000
    assert (count[common] == 1).all()
    assert count.max() == 1


@pytest.mark.slow
@pytest.mark.parametrize("height", [460.0, 580.0])
def test_plan__cores_cover_what_both_views_show_at_any_height(view_of: Make, area: Area, height: float) -> None:
    views = [view_of(area(400), 12.0, 1.0), view_of(area(400, 60, -40), -10.0, 0.0)]
    pair = choose_pairs(views, CRS, H0)[0]
    tasks = plan_matching(views, pair, CRS, flat_surface(Reference(CRS), pair.area.bounds, 460.0, 580.0), 0.5, 300)
    x, y = np.meshgrid(np.arange(-260.0, 320.0, 4.5), np.arange(-300.0, 260.0, 4.5))
    east, north = x.ravel() + CENTRE[0], y.ravel() + CENTRE[1]
    seen = np.logical_and.reduce([contains_xy(footprint(v, CRS, height), east, north) for v in views])
    left = views[pair.left]
    plane = left.locate(CRS, *left.project(CRS, east, north, height), tasks[0].tile.height0)
    assert seen.sum() > 3000
    if height < H0:
        assert not contains_xy(pair.area, *plane)[seen].all()
    assert (inside(tasks, *plane)[seen] == 1).all()


def test_plan__no_ray_between_tiles_on_different_planes_is_left_out(view_of: Make, area: Area) -> None:
    views = [view_of(area(400), 12.0, 1.0), view_of(area(400), -10.0, 0.0)]
    pair, left = choose_pairs(views, CRS, H0)[0], views[0]
    grid = area(500)
    grid = replace(grid, resolution=4.0, width=125, height=125)
    slope = (H0 + 0.4 * (grid.centres()[1] - CENTRE[1]))[:, None].repeat(125, 1).astype(np.float32)
    tasks = plan_matching(views, pair, CRS, coarse_surface(Raster(slope, grid)), 0.5, 300)
    assert len({t.tile.height0 for t in tasks}) > 2 and len({t.square for t in tasks}) == len(tasks)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-120.0, 120.0, 1.5), np.arange(-120.0, 120.0, 0.25)))
    ray = left.project(CRS, x + CENTRE[0], y + CENTRE[1], H0 + 0.4 * y)
    count = sum(inside([t], *left.locate(CRS, *ray, t.tile.height0)) for t in tasks)
    assert count.min() == 1 and (count > 1).mean() < 0.01


@pytest.mark.slow
def test_plan__hardly_more_than_the_common_ground_is_matched(view_of: Make, area: Area) -> None:
    views = [view_of(area(400), 12.0), view_of(area(400), -10.0)]
    tasks = plan(views)
    cores = sum(t.core[2] * t.core[3] for t in tasks) * 0.5**2
    assert cores < 1.25 * tasks[0].pair.area.area


def test_plan__same_place_same_tiles_when_the_scene_grows(view_of: Make, area: Area) -> None:
    """Cores of a larger scene are cut by the same lines, so that runs of neighbouring areas fit together."""
    small = plan([view_of(area(300), 12.0), view_of(area(300), -10.0)])
    large = plan([view_of(area(900), 12.0), view_of(area(900), -10.0)])
    assert len(large) > len(small)
    for task in (*small, *large):
        c0, c1, r0, r1 = core_square(task)
        assert c0 // 300 == (c1 - 1) // 300 and r0 // 300 == (r1 - 1) // 300
    lines = {(core_square(t)[0], core_square(t)[2]) for t in large}
    assert any(c % 300 == 0 and r % 300 == 0 for c, r in lines)


def test_plan__margins_around_cores(view_of: Make, area: Area) -> None:
    for task in plan([view_of(area(300), 12.0), view_of(area(300), -10.0)]):
        column, row, width, height = task.core
        assert column == row == 64
        assert (task.tile.width, task.tile.height) == (width + 128, height + 128)
        assert task.tile.height0 == 520.0


def test_rectified_pixel__is_the_finer_one(view_of: Make, area: Area) -> None:
    views = [view_of(area(300), 3.0, gsd=0.7), view_of(area(300), -12.0, gsd=0.5)]
    pair = choose_pairs(views, CRS, H0)[0]
    assert rectified_pixel(views, pair, CRS, H0) == pytest.approx(0.505, abs=0.011)


# pairs


def test_pairs__base_convergence_and_overlap(view_of: Make, area: Area) -> None:
    views = [view_of(area(400), 10.0), view_of(area(400, east=200), -10.0)]
    (pair,) = choose_pairs(views, CRS, H0)
    assert pair.chosen and (pair.left, pair.right) == (0, 1)
    assert pair.base_to_height == pytest.approx(2 * np.tan(np.radians(10)), rel=1e-3)
    assert pair.convergence_deg == pytest.approx(20.0, abs=0.05)
    assert pair.overlap == pytest.approx(0.58, abs=0.1)  # half, and the corners of turned images
    assert "convergence 20.0 deg" in pair.reason


@pytest.mark.parametrize(
    ("along", "east", "reason"),
    [
        ((0.0, 1.0), 0.0, "base to height 0.017 is too small"),
        ((40.0, -30.0), 0.0, "too large to match"),
        ((10.0, -10.0), 4000.0, "overlap 0% is below 5%"),
    ],
)
def test_pairs__unusable_ones_say_why(
    view_of: Make, area: Area, along: tuple[float, float], east: float, reason: str
) -> None:
    views = [view_of(area(400), along[0], name="a"), view_of(area(400, east=east), along[1], name="b")]
    with pytest.raises(
        OverlapError, match=r"no pair of images can be matched \(a \+ b: .*" + reason.replace(".", r"\.")
    ):
        choose_pairs(views, CRS, H0)
    good = view_of(area(400), along[0] - 18.0, name="c")
    decided = choose_pairs([*views, good], CRS, H0)
    assert decided[0].chosen
    left_out = [p for p in decided if (p.left, p.right) == (0, 1)]
    assert not left_out[0].chosen and reason in left_out[0].reason


def test_pairs__three_views_all_of_many_the_best(view_of: Make, area: Area) -> None:
    angles = (20.0, 12.0, 4.0, -4.0, -12.0, -20.0)
    views = [view_of(area(300), a, name=f"v{a}") for a in angles]
    assert sum(p.chosen for p in choose_pairs(views[:3], CRS, H0)) == 3
    decided = choose_pairs(views, CRS, H0)
    assert len(decided) == 15
    chosen = [p for p in decided if p.chosen]
    assert decided[: len(chosen)] == chosen
    each = np.bincount([i for p in chosen for i in (p.left, p.right)], minlength=6)
    assert each.min() >= 2 and len(chosen) <= 6 * (PARTNERS + 1) / 2
    assert all("better partners" in p.reason for p in decided[len(chosen) :])


def test_pair__is_a_value(view_of: Make, area: Area) -> None:
    (pair,) = choose_pairs([view_of(area(300), 9.0), view_of(area(300), -9.0)], CRS, H0)
    assert isinstance(replace(pair, chosen=False), Pair)
