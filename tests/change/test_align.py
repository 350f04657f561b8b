from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.change.align import align, moved
from terrain3d.change.resample import common_grid, resample
from terrain3d.crs import Reference, transform_xy
from terrain3d.errors import OverlapError
from terrain3d.raster import Grid, Raster


@pytest.mark.parametrize(
    "shift",
    [(1.7, 0.0, 0.0), (-1.7, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, -0.9, 0.0), (0.0, 0.0, 2.3), (-6.2, 4.1, -31.0)],
)
def test_align__signs(build, shift):
    found = align(build(1).dsm, build(2, shift=shift).dsm)
    assert found.converged
    assert (found.east, found.north, found.up) == pytest.approx(shift, abs=0.08)
    assert not found.tilted and found.tilt_east == found.tilt_north == 0


@pytest.mark.parametrize("tilt", [(1e-3, 0.0), (0.0, 1e-3), (-2e-3, 1e-3)])
def test_align__tilt(build, tilt):
    # Errors of 0.05 m: in 200 m they leave 0.02 m/km, and the task is to tell 1 m/km.
    found = align(build(1, sigma=0.05).dsm, build(2, shift=(1.7, 0.9, 2.3), tilt=tilt, sigma=0.05).dsm)
    assert found.tilted
    assert (found.tilt_east, found.tilt_north) == pytest.approx(tilt, abs=5e-5)
    assert (found.east, found.north, found.up) == pytest.approx((1.7, 0.9, 2.3), abs=0.05)


def test_align__unmoved_by_change(build, box):
    # A fifth of the scene rises by 6 m.
    big = box(6.0, east=110, north=100, width=100, depth=80)
    found = align(build(1).dsm, build(2, change=big, shift=(1.2, -0.8, 0.5)).dsm)
    assert (found.east, found.north, found.up) == pytest.approx((1.2, -0.8, 0.5), abs=0.1)


def test_moved__residual_is_noise(build):
    before, after = build(1).dsm, build(2, shift=(1.7, 0.9, 2.3), tilt=(1e-3, 0)).dsm
    d = moved(after, before.grid, align(before, after)).values - before.values
    flat = d[60:340, 60:340]
    assert abs(np.nanmedian(flat)) < 0.02
    assert np.nanpercentile(np.abs(flat), 68) < 0.32  # 0.2 m in each


def test_align__voids_only(build):
    before = build(1).dsm
    empty = Raster(np.full_like(before.values, np.nan), before.grid)
    with pytest.raises(OverlapError, match="in common"):
        align(before, empty)


def test_common_grid__window_of_before():
    utm = Reference("EPSG:32654")
    before = Grid(utm, 1000.0, 2000.0, 0.5, 200, 300)
    grid = common_grid(before, Grid(utm, 1020.3, 1980.2, 0.5, 400, 400))
    assert (grid.west % 0.5, grid.north % 0.5, grid.resolution) == (0, 0, 0.5)
    assert grid.west == pytest.approx(1020.3, abs=0.3) and grid.north == pytest.approx(1980.2, abs=0.3)
    assert grid.bounds[2] == 1150.0 and grid.bounds[1] == 1900.0


def test_common_grid__coarser_after_rules():
    utm = Reference("EPSG:32654")
    grid = common_grid(Grid(utm, 1000.0, 2000.0, 0.5, 200, 300), Grid(utm, 990.0, 2010.0, 2.0, 100, 100))
    assert grid.resolution == 2.0


def test_common_grid__geographic_becomes_metric():
    degrees = Grid(Reference("EPSG:4326"), 141.0, 36.0, 1 / 3600, 100, 100)
    grid = common_grid(degrees, degrees)
    assert grid.reference.horizontal == "EPSG:32654"
    assert 25 < grid.resolution < 31


def test_common_grid__apart():
    utm = Reference("EPSG:32654")
    with pytest.raises(OverlapError, match="do not overlap"):
        common_grid(Grid(utm, 500_000, 3_900_000, 0.5, 100, 100), Grid(utm, 510_000, 3_900_000, 0.5, 100, 100))


def test_resample__other_crs_against_exact_transform():
    source = Grid(Reference("EPSG:32654"), 200_000.0, 3_900_000.0, 1.0, 300, 300)
    x, y = source.centres()
    raster = Raster((x[None, :] * 0.01 + y[:, None] * 0.02 - 79_000).astype(np.float64), source)
    u, v = transform_xy("EPSG:32654", "EPSG:32653", np.array([200_150.0]), np.array([3_899_850.0]))
    grid = Grid(Reference("EPSG:32653"), float(u[0]) - 50, float(v[0]) + 50, 1.0, 100, 100)
    out = resample(raster, grid)
    tx, ty = transform_xy("EPSG:32653", "EPSG:32654", *np.meshgrid(*grid.centres()))
    assert np.abs(out.values - (tx * 0.01 + ty * 0.02 - 79_000)).max() < 1e-3


def test_resample__shift_reads_towards_east_and_north():
    grid = Grid(Reference("EPSG:32654"), 0.0, 50.0, 1.0, 50, 50)
    x, y = grid.centres()
    raster = Raster((x[None, :] + 100 * y[:, None]).astype(np.float32), grid)
    moved_by = resample(raster, grid, 2.0, 3.0).values - raster.values
    assert np.nanmedian(moved_by) == pytest.approx(302.0)
    codes = Raster(np.full((50, 50), 1, np.uint8), grid)
    assert resample(codes, replace(grid, west=-25.0)).values[:, :24].max() == 0
