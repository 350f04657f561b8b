from __future__ import annotations

import numpy as np
import pytest

from terrain3d.change.detect import detect
from terrain3d.change.kinds import Evidence, Kind, decide
from terrain3d.change.regions import Patch, groups, merged, solidity
from terrain3d.change.significance import SignificanceOptions


def crowns(z, x, y, inside):  # type: ignore[no-untyped-def]
    """Round crowns 5 m apart, 12 m high, some of them lower, within ``inside``."""
    top = np.full(z.shape, -np.inf)
    rng = np.random.default_rng(4)
    for east in np.arange(52, 150, 5.0):
        for north in np.arange(52, 150, 5.0):
            e, n, h = east + rng.uniform(-1, 1), north + rng.uniform(-1, 1), rng.uniform(7, 13)
            row, column = np.searchsorted(-y[:, 0], -n), np.searchsorted(x[0], e)
            near = np.s_[row - 6 : row + 7, column - 6 : column + 7]
            d2 = (x[near] - e) ** 2 + (y[near] - n) ** 2
            top[near] = np.maximum(top[near], np.where(d2 < 8, h - 0.5 * d2, -np.inf))
    return np.where(inside & np.isfinite(top), z + top, z)


def wood(east_to: float):  # type: ignore[no-untyped-def]
    return lambda z, x, y: crowns(z, x, y, (x > 60) & (x < east_to) & (y > 60) & (y < 140))


@pytest.fixture(scope="module")
def felled(build):
    return detect(build(1, change=wood(140)), build(2, change=wood(100)))


def test_kind__felling(felled):
    (region,) = felled.regions
    assert region.kind is Kind.FELLING
    assert region.measures.mean_dz < -5
    assert region.polygon.centroid.x == pytest.approx(500_120, abs=5)


def test_kind__vegetation_growth(build):
    (region,) = detect(build(1, change=wood(100)), build(2, change=wood(140))).regions
    assert region.kind is Kind.VEGETATION_GROWTH


def mound(dz, east, north, radius):  # type: ignore[no-untyped-def]
    def change(z, x, y):  # type: ignore[no-untyped-def]
        return z + dz * np.clip(1 - ((x - east) ** 2 + (y - north) ** 2) / radius**2, 0, None)

    return change


@pytest.mark.parametrize(("dz", "kind"), [(4.0, Kind.FILL), (-4.0, Kind.EXCAVATION)])
def test_kind__earth(build, dz, kind):
    (region,) = detect(build(1), build(2, change=mound(dz, 100, 100, 18))).regions
    assert region.kind is kind
    assert abs(region.measures.volume - dz * np.pi * 18**2 / 2) < 0.15 * abs(region.measures.volume)


def slide(z, x, y):  # type: ignore[no-untyped-def]
    return mound(3.5, 100, 80, 17)(mound(-4.0, 100, 120, 17)(z, x, y), x, y)


def hillside(z, x, y):  # type: ignore[no-untyped-def]
    return z + 0.25 * y


def test_kind__landslide(build):
    result = detect(build(1, change=hillside), build(2, change=lambda z, x, y: slide(hillside(z, x, y), x, y)))
    assert [r.kind for r in result.regions] == [Kind.LANDSLIDE, Kind.LANDSLIDE]
    source, deposit = sorted(result.regions, key=lambda r: r.measures.mean_dz)
    assert source.measures.volume < 0 < deposit.measures.volume
    assert source.polygon.centroid.y > deposit.polygon.centroid.y


def test_kind__earth_moved_uphill_is_no_landslide(build):
    def uphill(z, x, y):  # type: ignore[no-untyped-def]
        return slide(hillside(z, x, 200 - y), x, 200 - y)

    def moved(z, x, y):  # type: ignore[no-untyped-def]
        return mound(3.5, 100, 120, 17)(mound(-4.0, 100, 80, 17)(hillside(z, x, y), x, y), x, y)

    result = detect(build(1, change=hillside), build(2, change=moved))
    assert {r.kind for r in result.regions} == {Kind.FILL, Kind.EXCAVATION}


@pytest.mark.parametrize(
    ("sign", "step_share", "texture", "solidity_", "above", "kind"),
    [
        (1, 0.9, 0.1, 0.95, np.nan, Kind.NEW_BUILDING),
        (-1, 0.9, 0.1, 0.75, 6.0, Kind.DEMOLISHED_BUILDING),
        (-1, 0.9, 0.9, 0.95, np.nan, Kind.FELLING),  # a lone tree: steep but rough
        (1, 0.2, 0.2, 0.95, 5.0, Kind.VEGETATION_GROWTH),  # a closed canopy, above the DTM
        (1, 0.1, 0.1, 0.95, 0.3, Kind.FILL),
        (-1, 0.9, 0.1, 0.3, np.nan, Kind.EXCAVATION),  # ragged
    ],
)
def test_decide__rules(sign, step_share, texture, solidity_, above, kind):
    seen = Evidence(step_share, texture, solidity_, above, False, 200.0, 100.0, 0.0, 0.0)
    verdict = decide(sign, seen, 0.35)
    assert verdict.kind is kind
    assert 0.3 <= verdict.margin <= 1


def test_decide__margin_falls_towards_the_border():
    near, far = (decide(1, Evidence(s, 0.05, 0.95, np.nan, False, 200, 0, 0, 0), 0.35).margin for s in (0.55, 0.95))
    assert near < far


def test_solidity__shapes():
    full = np.ones((20, 30), bool)
    corner = full.copy()
    corner[:10, :15] = False
    assert solidity(full) == pytest.approx(1.0)
    assert solidity(corner) == pytest.approx(450 / (600 - 75))


def test_groups__by_gap():
    block = np.ones((4, 4), bool)
    patches = [Patch(1, 0, 0, block), Patch(1, 0, 7, block), Patch(1, 0, 40, block)]
    assert groups(patches, 2.5, 0.5) == [[0, 1], [2]]
    both = merged(patches[:2])
    assert both.cells.shape == (4, 11) and both.cells.sum() == 32


def test_options__least_height(build):
    low = mound(2.2, 100, 100, 18)
    assert len(detect(build(1), build(2, change=low)).regions) == 1
    from terrain3d.change.detect import ChangeOptions

    options = ChangeOptions(test=SignificanceOptions(min_height=3.0))
    assert detect(build(1), build(2, change=low), options).regions == ()
