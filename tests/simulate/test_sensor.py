"""The pushbroom camera, its pointing error and the RPC that is delivered for it."""

from __future__ import annotations

from math import radians, tan

import numpy as np
import pytest

from terrain3d.camera.rpc import project
from terrain3d.crs import Reference, to_lonlat
from terrain3d.raster import Grid
from terrain3d.simulate.sensor import Sensor, View, camera_over, make_sensor

CRS = "EPSG:32632"
HEIGHTS = (520.0, 640.0)


def grid(size: float = 400.0) -> Grid:
    return Grid.from_bounds(Reference(CRS), 680_000, 5_230_000, 680_000 + size, 5_230_000 + size, 0.25)


def sensor(along: float = 12.0, across: float = 3.0, size: float = 400.0) -> Sensor:
    return make_sensor(grid(size), HEIGHTS, View(along, across), 0.5, np.random.default_rng(5))


@pytest.mark.parametrize("along", [12.0, 0.0, -14.0])
def test_camera__locate_inverts_project(along: float) -> None:
    camera = sensor(along).camera
    rng = np.random.default_rng(1)
    line, sample, height = (rng.uniform(0, n, 500) for n in (camera.lines, camera.samples, 700.0))
    x, y = camera.locate(line, sample, height)
    back = camera.project(x, y, height)
    np.testing.assert_allclose(back, (line, sample), atol=1e-7)


def test_camera__a_ray_is_straight_and_leaves_the_sensor() -> None:
    camera = sensor().camera
    height = np.array([500.0, 600.0, 700.0])
    x, y = camera.locate(300.0, 200.0, height)
    assert abs(x[0] - 2 * x[1] + x[2]) < 1e-8 and abs(y[0] - 2 * y[1] + y[2]) < 1e-8
    x_top, y_top = camera.locate(300.0, 200.0, camera.origin[2])
    np.testing.assert_allclose((x_top, y_top), (camera.origin + 300.0 * camera.advance)[:2], atol=1e-6)


def test_camera__north_is_up_and_east_is_right() -> None:
    camera = camera_over(grid(), 580.0, View(0.0), 0.5)
    line, sample = camera.project(680_200.0, [5_230_300.0, 5_230_100.0], 580.0)
    assert line[0] < line[1]
    line, sample = camera.project([680_100.0, 680_300.0], 5_230_200.0, 580.0)
    assert sample[0] < sample[1]


def test_camera__ground_sampling_distance_in_both_directions() -> None:
    camera = camera_over(grid(), 580.0, View(0.0), 0.5)
    x, y = camera.locate([400.0, 401.0, 400.0], [400.0, 400.0, 401.0], 580.0)
    assert np.hypot(x[1] - x[0], y[1] - y[0]) == pytest.approx(0.5, abs=1e-4)
    assert np.hypot(x[2] - x[0], y[2] - y[0]) == pytest.approx(0.5, abs=1e-3)


def test_camera__taller_points_lean_away_from_the_sensor() -> None:
    x, y = 680_200.0, 5_230_200.0
    for along, across in ((12.0, 0.0), (-14.0, 0.0), (0.0, 8.0)):
        camera = camera_over(grid(), 580.0, View(along, across), 0.5)
        low, high = camera.project(x, y, 580.0), camera.project(x, y, 590.0)
        # looking ahead (to larger lines), the sensor stands behind, so the top is imaged ahead of the foot
        assert high[0] - low[0] == pytest.approx(10 * tan(radians(along)) / 0.5, abs=0.02)
        assert high[1] - low[1] == pytest.approx(10 * tan(radians(across)) / 0.5, abs=0.2)


def test_camera__image_holds_the_whole_ground() -> None:
    camera = sensor().camera
    west, south, east, north = grid().bounds
    line, sample = camera.project([west, east, east, west], [south, south, north, north], 580.0)
    assert line.min() >= 0 and sample.min() >= 0
    assert line.max() <= camera.lines - 1 and sample.max() <= camera.samples - 1


@pytest.mark.parametrize("size", [400.0, 4000.0])
def test_rpc__equals_camera_plus_pointing_error(size: float) -> None:
    made = sensor(size=size)
    rng = np.random.default_rng(2)
    line, sample = rng.uniform(0, made.camera.lines, 2000), rng.uniform(0, made.camera.samples, 2000)
    height = rng.uniform(*HEIGHTS, 2000)
    lon, lat = to_lonlat(CRS, *made.camera.locate(line, sample, height))
    d_line, d_sample = made.pointing.error(line)
    found = project(made.rpc, lon, lat, height)
    np.testing.assert_allclose(found, (line + d_line, sample + d_sample), atol=1e-4)
    assert 0.3 < np.hypot(d_line, d_sample).mean() < 15
    assert 0.01 < np.ptp(d_line) < 2.0


def test_pointing__differs_from_image_to_image_and_repeats_by_seed() -> None:
    rng = np.random.default_rng(5)
    first = make_sensor(grid(), HEIGHTS, View(0.0), 0.5, rng)
    second = make_sensor(grid(), HEIGHTS, View(0.0), 0.5, rng)
    again = make_sensor(grid(), HEIGHTS, View(0.0), 0.5, np.random.default_rng(5))
    assert abs(first.pointing.line[0] - second.pointing.line[0]) > 0.05
    assert first.pointing == again.pointing and first.rpc == again.rpc
