from __future__ import annotations

import numpy as np
import pytest

from terrain3d.change.m3c2 import M3C2Options, core_points, default_options, m3c2, point_spacing
from terrain3d.errors import OverlapError


def plane(seed: int, slope: float, offset: float, noise: float = 0.05, n: int = 20_000):  # type: ignore[no-untyped-def]
    """Points of a plane that rises by ``slope`` towards east, moved by ``offset`` along its normal."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 60, (2, n))
    normal = np.array([-slope, 0, 1]) / np.hypot(slope, 1)
    away = offset + noise * rng.standard_normal(n)
    return np.column_stack([x, y, slope * x]) + away[:, None] * normal


def spacing(points):  # type: ignore[no-untyped-def]
    return point_spacing([points], points.min(axis=0), points.max(axis=0), len(points))


OPTIONS = M3C2Options(normal_radius=2.0, cylinder_radius=1.5, half_length=4.0)


@pytest.mark.parametrize("slope", [0.0, 1.0, 4.0])
def test_m3c2__along_the_normal_at_any_slope(slope):
    before, after = plane(1, slope, 0.0), plane(2, slope, 0.5)
    inner = (np.abs(before[:, 0] - 30) < 20) & (np.abs(before[:, 1] - 30) < 20)
    found = m3c2(before, after, before[inner][:200], OPTIONS)
    assert np.nanmedian(found.distance) == pytest.approx(0.5, abs=0.02)
    assert found.significant.mean() > 0.97
    assert np.nanmedian(found.normals[:, 2]) == pytest.approx(1 / np.hypot(slope, 1), abs=0.02)


def test_m3c2__no_change_is_rarely_significant():
    before, after = plane(1, 0.3, 0.0), plane(2, 0.3, 0.0)
    found = m3c2(before, after, core_points(before, 2.0), OPTIONS)
    share = found.significant[np.isfinite(found.limit)].mean()
    assert 0.01 < share < 0.12  # 5 % by the definition of the limit, a little more for the normals' own error
    held = m3c2(before, after, core_points(before, 2.0), M3C2Options(2.0, 1.5, 4.0, registration=0.1))
    assert not held.significant.any()


def test_m3c2__nothing_near_is_nan():
    before, after = plane(1, 0.0, 0.0), plane(2, 0.0, 9.0)
    found = m3c2(before, after, before[:50], OPTIONS)
    assert np.isnan(found.distance).all() and not found.significant.any() and (found.n_after == 0).all()


def test_point_spacing__of_an_even_cloud():
    x, y = np.meshgrid(np.arange(0, 100, 0.5), np.arange(0, 40, 0.5))
    points = np.column_stack([x.ravel(), y.ravel(), 0 * x.ravel()])
    assert spacing(points) == pytest.approx(0.5, rel=0.05)
    halves = points[:5000], points[5000:]
    assert point_spacing(halves, points.min(axis=0), points.max(axis=0), len(points)) == spacing(points)
    assert default_options(0.5, sigma=0.3).normal_radius == pytest.approx(6.0)
    with pytest.raises(OverlapError, match="has 2 points"):
        spacing(points[:2])


def test_lidar_epochs__agrees_with_cloudcompare(shared_data, tmp_path):
    from terrain3d.io.positions import read_cloud_positions, read_positions

    folder = shared_data / "real" / "lidar_epochs"
    first, second = (read_cloud_positions(folder / f"autzen-bmx-{y}.las") for y in (2010, 2023))
    assert first.units == pytest.approx((1.0, 0.3048006))  # metres, and US survey feet
    core = read_positions(folder / "autzen-bmx-cc.txt").xyz
    header = (folder / "autzen-bmx-cc.txt").read_text().splitlines()[0].replace('"', "").split(",")
    theirs = np.genfromtxt(folder / "autzen-bmx-cc.txt", delimiter=",", skip_header=1)
    distance, significant = theirs[:, header.index("M3C2 distance")], theirs[:, header.index("significant change")]
    for options in (default_options(spacing(first.xyz)), M3C2Options(1.4142, 2.9, 5.5)):
        found = m3c2(first.xyz, second.xyz, core, options)
        assert np.nanmedian(np.abs(found.distance - distance)) < 0.05
        assert np.mean(found.significant == (significant > 0)) >= 0.9
