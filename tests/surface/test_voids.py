from __future__ import annotations

import cv2
import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.voids import fill_voids, footprint, remove_spikes, sunken_islands


def raster(values: np.ndarray, resolution: float = 0.5) -> Raster:
    return Raster(values.astype(np.float32), Grid(Reference("EPSG:32654"), 3e5, 4e6, resolution, *values.shape))


def sigma_of(dsm: Raster) -> Raster:
    return Raster(np.where(np.isfinite(dsm.values), 0.2, np.nan).astype(np.float32), dsm.grid)


def test_fill_voids__occlusion_is_filled_from_the_low_side() -> None:
    z = np.full((120, 120), 50.0)
    z[30:80, 30:70] = 62.0
    z[30:80, 70:80] = np.nan  # 5 m of occlusion beside a 12 m wall
    which = np.isnan(z)
    filled, sigma = fill_voids(raster(z), sigma_of(raster(z)), which)
    assert which.sum() == 50 * 10
    assert np.abs(filled.values[30:80, 70:80] - 50.0).max() < 0.3
    assert (sigma.values[which] > 0.2).all()


def test_fill_voids__slope_is_continued() -> None:
    y, x = np.mgrid[0:100, 0:100]
    z = 0.3 * x + 0.1 * y
    hole = np.hypot(x - 50, y - 50) < 12
    dsm = raster(np.where(hole, np.nan, z))
    filled, sigma = fill_voids(dsm, sigma_of(dsm), hole)
    assert np.abs(filled.values - z)[hole].max() < 0.2
    assert sigma.values[50, 50] > sigma.values[50, 39]  # farther from what was measured


def test_fill_voids__no_data_at_all() -> None:
    z = raster(np.full((10, 12), np.nan))
    filled, _ = fill_voids(z, sigma_of(z), np.ones((10, 12), bool))
    assert np.isnan(filled.values).all()


def test_sunken_islands__what_water_invents_goes_and_a_crown_stays() -> None:
    x = np.arange(300.0)[None, :] + np.zeros((300, 1))
    slope = 50.0 + 0.05 * x
    z = slope.copy()
    z[120:160, 40:260] = np.nan  # a reach of 110 m x 20 m without matches
    z[136:144, 80:88] = slope[136:144, 80:88] - 15.0
    z[136:144, 200:208] = slope[136:144, 200:208] + 12.0
    z[136:140, 140:144] = slope[136:140, 140:144] - 1.0
    z[20:28, 20:28] -= 15.0  # with measured ground around it: ``remove_spikes`` judges that
    dsm = raster(z)
    sunken = sunken_islands(dsm, np.isnan(z))
    expected = np.zeros_like(sunken)
    expected[136:144, 80:88] = True
    assert (sunken == expected).all()
    freed = raster(np.where(sunken, np.nan, z))
    filled, _ = fill_voids(freed, sigma_of(freed), np.isnan(freed.values))
    assert np.abs(filled.values - slope)[125:155, 50:120].max() < 1.0


def test_footprint__is_the_convex_hull() -> None:
    m = np.zeros((30, 30), bool)
    m[5, 5] = m[5, 25] = m[25, 5] = True
    hull = footprint(m)
    assert hull[5:10, 5:10].all()
    assert not hull[24, 24]


def test_footprint__is_that_of_the_polygon() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        m = np.zeros((60, 80), bool)
        m[rng.integers(5, 55, 12), rng.integers(5, 75, 12)] = True
        hull = np.zeros(m.shape, np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(np.argwhere(m)[:, ::-1].astype(np.int32)), 1)
        assert (footprint(m) != hull.astype(bool)).sum() <= 0.02 * hull.sum()
        assert footprint(m)[m].all()


def test_remove_spikes__flying_patches_go_and_houses_stay() -> None:
    z = np.random.default_rng(1).normal(0, 0.2, (100, 100))
    z[20:23, 20:23] += 25
    z[60:62, 60:64] -= 18
    z[40:60, 10:30] += 9
    got = remove_spikes(raster(z)).values
    assert np.isnan(got).sum() == 9 + 8
    assert np.isnan(got[20:23, 20:23]).all()
    assert np.isnan(got[60:62, 60:64]).all()


def test_remove_spikes__too_deep_or_slim_for_their_width_go() -> None:
    z = np.random.default_rng(2).normal(0, 0.2, (100, 100))
    z[20:30, 0:60] = np.nan  # beside a void
    z[30:34, 20:32] -= 150  # false matches at the rim of an image
    z[60:70, 60:70] -= 8  # a shaft 5 m wide
    z[60:70, 20:30] += 40  # a tower
    z[80:88, 40:48] += 90  # nothing stands like this
    got = np.isnan(remove_spikes(raster(z)).values)
    assert got[30:34, 20:32].all() and got[80:88, 40:48].all()
    assert got.sum() == 600 + 48 + 64


def test_remove_spikes__what_two_pairs_agree_upon_stands() -> None:
    z = np.random.default_rng(4).normal(0, 0.2, (80, 80))
    z[20:25, 20:25] += 18  # a tall tree, agreed upon in its middle
    z[20:25, 50:55] += 18  # one pair alone
    z[50:55, 20:25] += 18  # agreed upon in one cell
    z[50:55, 50:55] -= 18  # a pit, which no two views see
    agreed = np.zeros(z.shape, bool)
    agreed[21:24, 21:24] = agreed[52, 22] = agreed[50:55, 50:55] = True
    agreed[0:10] = True
    got = np.isnan(remove_spikes(raster(z), agreed).values)
    assert not got[20:25, 20:25].any()
    assert got[20:25, 50:55].all() and got[50:55, 20:25].all() and got[50:55, 50:55].all()
    assert got.sum() == 75


def test_remove_spikes__errors_do_not_hide_each_other() -> None:
    z = np.random.default_rng(3).normal(0, 0.2, (100, 100))
    z[20:30, 0:60] = np.nan
    z[30:34, 10:25] -= 150  # false matches side by side at the rim of an image,
    z[30:34, 25:40] -= 154
    z[31, 12:20] += 6  # with a step inside,
    z[34, 8:42] = np.nan  # and a gap to the ground
    z[30:34, 8:10] = z[30:34, 40:42] = np.nan
    z[60:70, 60:67] -= 12  # ground in a gap between trees,
    z[60:70, 67:74] -= 3.5  # with a bush
    got = np.isnan(remove_spikes(raster(z)).values)
    assert got[30:34, 8:42].all()
    assert got[60:70, 60:67].all()
    assert got.sum() == 600 + 4 * 34 + 34 + 70


def test_remove_spikes__scraps_that_lie_across_a_corner_go_too() -> None:
    z = np.random.default_rng(4).normal(0, 0.2, (100, 100))
    z[:50, :50] = np.nan
    z[38:48, 38:48] = -120.0  # two voids away from the ground at its corner alone
    z[48:50, :] = z[:, 48:50] = np.nan
    z[:48, 48:] = z[48:, :48] = np.nan
    got = np.isnan(remove_spikes(raster(z)).values)
    assert got[38:48, 38:48].all() and not got[50:, 50:].any()


def test_mask_codes__documented() -> None:
    names = ("NODATA", "MEASURED", "FILLED", "WATER", "REFERENCE")
    assert [(c.name, int(c)) for c in MaskCode] == [(n, i) for i, n in enumerate(names)]
