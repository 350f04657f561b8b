from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from terrain3d.change.evidence import Evidence, Standing
from terrain3d.change.kinds import Kind, decide
from terrain3d.change.likelihood import features, weigh
from terrain3d.change.regions import Patch, groups, merged, solidity, split_by_ground
from terrain3d.change.significance import SignificanceOptions
from terrain3d.pipeline.detect import detect
from terrain3d.raster import Raster
from terrain3d.surface.mask import MaskCode


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


def seen(wall=0.6, texture=0.1, above=0.0, **more):  # type: ignore[no-untyped-def]
    """Something 5 m high with a wall (m/m), an even top and nothing in the other epoch."""
    place = Standing(wall, texture, above, 2.0, more.pop("contrast", float("nan")))
    rest = {
        "other": Standing(0.0, 0.05, 0.0, 2.0), "height": 5.0, "fall": min(0.4 * wall, 1.0), "relief": 0.15,
        "solidity": 0.9, "wooded": False, "water_share": 0.0, "tone": 1.0, "ground_change": 0.0, "area": 200.0,
        "ground": 100.0,
    }  # fmt: skip
    return Evidence(object=place, wall=wall, **{**rest, **more}, row=0.0, column=0.0)


HOUSE = Standing(2.0, 0.05, 5.0, 0.5)


@pytest.mark.parametrize(
    ("sign", "evidence", "kind"),
    [
        (1, seen(2.0, above=np.nan), Kind.NEW_BUILDING),
        (1, seen(1.2, above=2.9, height=3.0, fall=0.8), Kind.NEW_BUILDING),  # a low one
        (-1, seen(1.2, above=2.9, height=3.3, fall=0.8), Kind.DEMOLISHED_BUILDING),
        (-1, seen(2.0, above=6.0, solidity=0.75), Kind.DEMOLISHED_BUILDING),
        (1, seen(2.0, above=9.0, other=HOUSE), Kind.RAISED_BUILDING),
        (-1, seen(2.0, above=9.0, other=HOUSE), Kind.LOWERED_BUILDING),
        (-1, seen(2.0, 0.5, above=8.0, solidity=0.6, relief=0.7), Kind.FELLING),  # steep but rough and ragged
        (1, seen(2.0, 0.13, above=7.0, contrast=0.2), Kind.VEGETATION_GROWTH),  # a young grove, smooth but mottled
        (1, seen(2.0, 0.03, above=7.0, contrast=0.06), Kind.NEW_BUILDING),  # a roof
        (1, seen(above=0.3), Kind.FILL),
        (1, seen(0.75, above=4.0, height=4.0, fall=0.5, relief=0.6), Kind.FILL),  # a heap the DTM passes under
        (-1, seen(1.3, above=0.0, fall=0.7), Kind.EXCAVATION),  # a pit with steep sides
        (-1, seen(water_share=0.4), Kind.EROSION),
        (1, seen(water_share=0.4), Kind.ACCRETION),
    ],
)
def test_decide__kinds(sign, evidence, kind):
    verdict = decide(sign, evidence, 0.35)
    assert verdict.kind is kind
    assert 0.3 <= verdict.margin <= 1


def test_decide__nothing_without_a_fall_across_its_rim_is_a_building():
    assert decide(1, seen(0.0, above=9.0, fall=0.0), 0.35).kind is Kind.FILL


def test_weigh__probabilities_sum_to_one_and_grow_with_the_wall():
    low, high = (weigh(seen(wall, 0.05, 5.0), 0.35) for wall in (1.0, 2.0))
    assert low.building < high.building
    assert low.building + low.vegetation + low.earth == pytest.approx(1.0)


def test_weigh__what_is_not_known_speaks_for_nothing():
    known = features(seen(1.5, above=3.5), 0.35)
    unknown = features(seen(np.nan, above=np.nan, fall=np.nan), 0.35)
    assert unknown.wall == 0.0
    assert 0 < unknown.share_above < 1
    assert unknown.solidity == known.solidity


@pytest.mark.parametrize(("slope", "steep"), [(0.7, False), (20.0, True)], ids=["heap", "wall"])
def test_observe__wall(build, slope, steep):
    """A flat top 4 m high, whose sides fall by ``slope``, smeared over a metre as matching does."""

    def change(z, x, y):  # type: ignore[no-untyped-def]
        inside = 12 - np.maximum(np.abs(x - 100), np.abs(y - 100))
        return z + gaussian_filter(np.clip(slope * inside, 0, 4), 1.0)

    (region,) = detect(build(1), build(2, change=change)).regions
    assert (region.kind is Kind.NEW_BUILDING) == steep


def test_observe__a_house_amid_higher_trees_was_no_pit(build):
    """Its roof lies under the crowns around it, but as high over the ground as what fell."""

    def grove(z, x, y, roof):  # type: ignore[no-untyped-def]
        away = np.maximum(np.abs(x - 100), np.abs(y - 100))
        rough = 12 + 3 * np.sin(x * 1.7) * np.cos(y * 1.9)
        return z + gaussian_filter(np.where(away < 7, roof, np.where(away < 22, rough, 0.0)), 0.8)

    before = build(1, change=lambda z, x, y: grove(z, x, y, 5.0))
    after = build(2, change=lambda z, x, y: grove(z, x, y, 0.0))
    before, after = (replace(e, dtm=build(3, sigma=0.01).dsm) for e in (before, after))
    (region,) = detect(before, after).regions
    assert region.kind is Kind.DEMOLISHED_BUILDING


def test_split_by_ground__slide_beside_a_felled_stand():
    cells = np.ones((60, 240), bool)
    change = np.zeros((60, 240), np.float32)
    change[:, :80], change[:, 80:140] = -3.0, 2.5
    parts = split_by_ground(Patch(-1, 0, 0, cells), change, np.full_like(change, 0.5), 0.5)
    assert {p.ground: int(p.cells.sum()) for p in parts} == pytest.approx({1: 3600, -1: 4800, 0: 6000}, rel=0.2)
    assert sum(p.cells.astype(int) for p in parts).max() == 1  # no cell twice
    assert split_by_ground(Patch(-1, 0, 0, cells), change, np.full_like(change, 5.0), 0.5)[0].ground == 0


def site(z, x, y):  # type: ignore[no-untyped-def]
    """A pit with a level floor and a heap beside it."""
    pit = (np.abs(x - 85) < 14) & (np.abs(y - 100) < 12)
    z = np.where(pit, z[pit].mean() - 4.0, z)
    return mound(5.0, 118, 100, 14)(z, x, y)


def test_kind__construction_site(build):
    result = detect(build(1), build(2, change=site))
    assert {r.kind for r in result.regions} == {Kind.CONSTRUCTION_SITE}
    assert len({r.event for r in result.regions}) == 1 and result.regions[0].event > 0


def test_kind__bank_erosion(build):
    def bank(z, x, y):  # type: ignore[no-untyped-def]
        return z - 4.0 * ((np.abs(x - 106) < 8) & (np.abs(y - 100) < 30))

    before, after = build(1), build(2, change=bank)
    codes = np.full(after.dsm.grid.shape, MaskCode.MEASURED, np.uint8)
    codes[:, 228:300] = MaskCode.WATER  # from x = 114
    masks = [replace(e, mask=Raster(codes, e.dsm.grid)) for e in (before, after)]
    (region,) = detect(*masks).regions
    assert region.kind is Kind.EROSION and region.cover_after == "water"


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


@pytest.mark.slow
def test_options__least_height(build):
    low = mound(2.2, 100, 100, 18)
    assert len(detect(build(1), build(2, change=low)).regions) == 1
    from terrain3d.change.result import ChangeOptions

    options = ChangeOptions(test=SignificanceOptions(min_height=3.0))
    assert detect(build(1), build(2, change=low), options).regions == ()
