from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.change.evidence import Evidence, Standing
from terrain3d.change.kinds import Kind, decide
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


def seen(step=0.1, texture=0.1, above=0.0, solidity_=0.95, other=None, **more):  # type: ignore[no-untyped-def]
    place = Standing(step, texture, above, 2.0)
    rest = {"wooded": False, "water_share": 0.0, "tone": 1.0, "ground_change": 0.0, "area": 200.0, "ground": 100.0}
    bare = Standing(0.0, 0.05, 0.0, 2.0)
    return Evidence(place, other or bare, solidity_, **{**rest, **more}, row=0.0, column=0.0)


def mottled(*place, **more):  # type: ignore[no-untyped-def]
    e = seen(*place, **more)
    return replace(e, object=replace(e.object, contrast=0.2))


HOUSE = Standing(0.9, 0.05, 5.0, 0.5)


@pytest.mark.parametrize(
    ("sign", "evidence", "kind"),
    [
        (1, seen(0.9, above=np.nan), Kind.NEW_BUILDING),
        (-1, seen(0.9, above=6.0, solidity_=0.75), Kind.DEMOLISHED_BUILDING),
        (1, seen(0.9, above=9.0, other=HOUSE), Kind.RAISED_BUILDING),
        (-1, seen(0.9, above=9.0, other=HOUSE), Kind.LOWERED_BUILDING),
        (-1, seen(0.9, 0.9, above=np.nan), Kind.FELLING),  # a lone tree: steep but rough
        (1, seen(0.2, 0.2, above=5.0), Kind.VEGETATION_GROWTH),  # a closed canopy, above the DTM
        (1, mottled(0.9, 0.13, above=7.0), Kind.VEGETATION_GROWTH),  # a young grove, smooth and steep, but mottled
        (1, mottled(0.9, 0.03, above=7.0), Kind.NEW_BUILDING),  # the same mottled picture on a plane roof
        (1, seen(0.1, above=0.3), Kind.FILL),
        (-1, seen(0.9, above=np.nan, solidity_=0.3), Kind.EXCAVATION),  # ragged
        (-1, seen(water_share=0.4), Kind.EROSION),
        (1, seen(water_share=0.4), Kind.ACCRETION),
    ],
)
def test_decide__rules(sign, evidence, kind):
    verdict = decide(sign, evidence, 0.35)
    assert verdict.kind is kind
    assert 0.3 <= verdict.margin <= 1


@pytest.mark.parametrize(
    ("ground", "kind"),
    [(0.2, Kind.NEW_BUILDING), (3.0, Kind.FILL), (float("nan"), Kind.FILL)],
    ids=["ground stayed", "ground rose", "ground unknown"],
)
def test_decide__wall_hidden_in_part(ground, kind):
    assert decide(1, replace(seen(0.4, 0.05, 5.0), ground_change=ground), 0.35).kind is kind


def test_decide__margin_falls_towards_the_border():
    near, far = (decide(1, seen(s, 0.05), 0.35).margin for s in (0.55, 0.95))
    assert near < far


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
