"""Light and rays: shadows, half pixels, visibility, water, noise."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest

from terrain3d.raster import Grid
from terrain3d.simulate import render as renderer
from terrain3d.simulate.render import Radiometry, render
from terrain3d.simulate.sensor import PushbroomCamera, View, camera_over
from terrain3d.simulate.shade import Sun, illuminate, shadow_ceiling
from terrain3d.simulate.world import REFERENCE, World

QUIET = Radiometry(gain=1000.0, offset=0.0, shot=0.0, read=0.0)
X, Y, BASE = 680_030.37, 5_230_029.61, 100.0


def flat(size: float = 60.0) -> World:
    grid = Grid.from_bounds(REFERENCE, 680_000, 5_230_000, 680_000 + size, 5_230_000 + size, 0.25)
    level = np.full(grid.shape, BASE, np.float32)
    return World(
        grid, level, level.copy(), np.full(grid.shape, 2, np.uint8), np.full(grid.shape, 0.1, np.float32),
        np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.float32), (),
    )  # fmt: skip


def distances(world: World) -> tuple[np.ndarray, np.ndarray]:
    x, y = world.grid.centres()
    return (x - X)[None, :], (y - Y)[:, None]


def centroid(image: np.ndarray) -> tuple[float, float]:
    excess = np.where(image > 0, image.astype(float) - np.median(image[image > 0]), 0.0)
    excess[excess < 0.02 * excess.max()] = 0
    line, sample = np.indices(image.shape)
    return float((excess * line).sum() / excess.sum()), float((excess * sample).sum() / excess.sum())


def camera(world: World, along: float, across: float = 3.0) -> PushbroomCamera:
    return camera_over(world.grid, BASE, View(along, across), 0.5)


@pytest.mark.parametrize("along", [12.0, 0.0, -14.0])
def test_render__bright_point_lies_where_the_camera_projects_it(along: float) -> None:
    world = flat()
    dx, dy = distances(world)
    world.albedo[:] += 1.5 * np.exp(-(dx**2 + dy**2) / (2 * 0.6**2)).astype(np.float32)
    view = camera(world, along)
    image = render(illuminate(world), view, np.random.default_rng(0), QUIET)
    np.testing.assert_allclose(centroid(image), view.project(X, Y, BASE), atol=0.02)


@pytest.mark.parametrize("along", [12.0, -14.0])
def test_render__point_on_a_tower_is_displaced_by_its_height(along: float) -> None:
    world = flat()
    dx, dy = distances(world)
    tower = np.maximum(np.abs(dx), np.abs(dy)) < 5
    world.surface[tower] += 20.0
    world.albedo[:] += 1.5 * np.exp(-(dx**2 + dy**2) / (2 * 0.6**2)).astype(np.float32)
    view = camera(world, along)
    image = render(illuminate(world), view, np.random.default_rng(0), QUIET)
    np.testing.assert_allclose(centroid(image), view.project(X, Y, BASE + 20.0), atol=0.05)


def test_render__ray_hits_a_slope_at_its_height() -> None:
    world = flat()
    dx, dy = distances(world)
    world.surface[:] = BASE + 20.0 + 0.5 * dx - 0.3 * dy
    world.albedo[:] += 1.5 * np.exp(-(dx**2 + dy**2) / (2 * 0.6**2)).astype(np.float32)
    view = camera(world, 12.0)
    image = render(illuminate(world), view, np.random.default_rng(0), QUIET)
    np.testing.assert_allclose(centroid(image), view.project(X, Y, BASE + 20.0), atol=0.05)


def test_render__pixels_that_do_not_see_the_world_are_nodata() -> None:
    world = flat()
    view = camera(world, 12.0)
    image = render(illuminate(world), view, np.random.default_rng(0))
    line, sample = np.indices(image.shape)
    x, y = view.locate(line, sample, BASE)
    west, south, east, north = world.grid.bounds
    depth = np.minimum.reduce([x - west, east - x, y - south, north - y])
    assert (image[depth < 0] == 0).all()
    assert (image[depth > 1] > 0).all()


def test_render__blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    world = flat()
    world.albedo[:] = np.random.default_rng(3).uniform(0.1, 0.5, world.albedo.shape)
    view, lit = camera(world, 0.0), illuminate(world)
    whole = render(lit, view, np.random.default_rng(0), QUIET)
    monkeypatch.setattr(renderer, "BLOCK_LINES", 37)
    assert np.array_equal(whole, render(lit, view, np.random.default_rng(0), QUIET))


def test_render__water_is_dark_and_differs_between_views() -> None:
    world = flat()
    world.classes[:] = 9
    lit, view = illuminate(world), camera(world, 0.0)
    one, two = (render(lit, view, np.random.default_rng(i), QUIET).astype(float) for i in (1, 2))
    inside = one > 0
    assert one[inside].mean() < 0.4 * render(illuminate(flat()), view, np.random.default_rng(1), QUIET)[inside].mean()
    assert abs(np.corrcoef(one[inside], two[inside])[0, 1]) < 0.2


def test_render__noise_has_the_variance_of_the_model() -> None:
    world, radiometry = flat(), Radiometry()
    view = camera(world, 0.0)
    image = render(illuminate(world), view, np.random.default_rng(7), radiometry).astype(float)
    inside = image[image > 0]
    assert inside.var() == pytest.approx(radiometry.shot * inside.mean() + radiometry.read**2, rel=0.1)


@pytest.mark.parametrize("azimuth", [30.0, 135.0, 200.0, 290.0])
def test_shadow__falls_away_from_the_sun_with_the_right_length(azimuth: float) -> None:
    world = flat()
    dx, dy = distances(world)
    world.surface[np.maximum(np.abs(dx), np.abs(dy)) < 3] += 12.0
    sun = Sun(azimuth_deg=azimuth, elevation_deg=45.0)
    ceiling = shadow_ceiling(world.surface, 0.25, sun)

    def at(distance: float) -> float:
        a = radians(azimuth)
        column, row = world.grid.column_row(X - distance * sin(a), Y - distance * cos(a))
        return float(ceiling[round(float(row)), round(float(column))]) - BASE

    # 8 m away the wall (3 to 4.3 m off the centre) throws its top down by 3.7 to 5 m at 45 degrees
    assert 12 - 5.3 < at(8.0) < 12 - 3.4
    assert at(-8.0) < 0.3 and at(18.0) < 0.3


def test_shade__slopes_to_the_sun_are_brighter() -> None:
    world = flat()
    _, dy = distances(world)
    world.surface[:] = BASE + 20 + 0.4 * dy
    lit = illuminate(world, Sun(180.0, 45.0))
    away = illuminate(world, Sun(0.0, 45.0))
    assert np.median(lit.radiance) > 1.5 * np.median(away.radiance)
