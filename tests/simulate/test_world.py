"""Worlds and what happens to them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from shapely import contains_xy, unary_union
from shapely.geometry import Polygon

from terrain3d.simulate.events import evolve
from terrain3d.simulate.further import evolve_further
from terrain3d.simulate.noise import fractal
from terrain3d.simulate.world import World, coast, mountain, town, waterland


@pytest.fixture(scope="module")
def small_town() -> World:
    return town(3, 240)


@pytest.fixture(scope="module")
def valley() -> World:
    return mountain(2, 240)


def test_fractal__power_falls_with_frequency_as_asked() -> None:
    field = fractal(np.random.default_rng(0), (512, 512), 0.25, 64.0, 0.3, 3.0)
    assert abs(field.mean()) < 1e-3 and field.std() == pytest.approx(1.0, abs=1e-3)
    power = (np.abs(np.fft.rfft(field * np.hanning(512), axis=1)) ** 2).mean(0)
    # along a line the power falls by one exponent less than in the plane
    slope = np.polyfit(np.log(np.arange(8, 64)), np.log(power[8:64]), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.4)


def test_town__has_everything_and_is_consistent(small_town: World) -> None:
    world = small_town
    assert {int(c) for c in np.unique(world.classes)} == {2, 5, 6, 9}
    assert len(world.buildings) >= 10
    assert (world.surface >= world.ground - 1e-3).all()
    bare = (world.classes == 2) | (world.classes == 9)
    assert np.array_equal(world.surface[bare], world.ground[bare])
    assert (world.surface - world.ground)[world.classes == 6].min() > 2.5
    assert (world.surface - world.ground)[world.classes == 6].max() < 35
    assert np.array_equal(world.classes == 6, world.building > 0)
    assert np.ptp(world.ground[world.classes == 9]) == 0
    assert world.ground[world.classes != 9].min() >= world.ground[world.classes == 9].max()
    assert world.albedo.min() > 0.01 and world.albedo.max() < 0.95


def test_mountain__is_steep_and_wooded(valley: World) -> None:
    gy, gx = np.gradient(valley.ground[::8, ::8], 2.0)
    assert np.degrees(np.arctan(np.hypot(gx, gy))).mean() > 15
    assert 0.3 < (valley.classes == 5).mean() < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("make", [waterland, coast])
def test_waters__lie_in_their_banks(make: Callable[[int, float], World]) -> None:
    """Each body of water is level or falls gently, and no land beside it, bridges apart, lies under it."""
    world = make(5, 220)
    wet = world.classes == 9
    n, _, stats, _ = cv2.connectedComponentsWithStats(wet.astype(np.uint8))
    assert n > 2 and (stats[1:, cv2.CC_STAT_AREA].max() * world.grid.resolution**2) > 1500
    gy, gx = np.gradient(world.ground, world.grid.resolution)
    inner = cv2.erode(wet.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.hypot(gx, gy)[inner].max() < 0.2
    beside = cv2.dilate(np.where(wet, world.ground, 0).astype(np.float32), np.ones((3, 3)))
    bank = (beside > 0) & ~wet & (world.classes != 17)
    assert (world.ground - beside)[bank].min() > -0.1
    assert (make is coast) == (np.ptp(world.ground[wet & (world.ground < np.median(world.ground[wet]) + 1)]) < 0.1)


@pytest.mark.slow
def test_waterland__bridges_hang_over_water_on_ramps() -> None:
    world = waterland(5, 220)
    deck = world.classes == 17
    assert deck.sum() * world.grid.resolution**2 > 200
    assert np.percentile((world.surface - world.ground)[deck], 10) > 2
    rows = np.flatnonzero(deck.any(axis=1))
    ends = world.surface[[rows[0] - 2, rows[-1] + 2]][:, deck.any(axis=0)]
    assert np.abs(ends[:, :8] - world.surface[deck][0]).max() < 1.5  # the road goes on


def test_world__repeats_by_seed(small_town: World) -> None:
    again, other = town(3, 240), town(4, 240)
    assert np.array_equal(again.surface, small_town.surface) and np.array_equal(again.albedo, small_town.albedo)
    assert again.buildings == small_town.buildings
    assert np.abs(other.surface - again.surface).mean() > 0.5


def test_truth__is_the_mean_of_the_cells(small_town: World) -> None:
    surface, ground, classes = small_town.truth(0.5)
    assert surface.grid.bounds == small_town.grid.bounds and surface.grid.resolution == 0.5
    assert surface.values[10, 20] == pytest.approx(float(small_town.surface[20:22, 40:42].mean()), abs=1e-4)
    assert ground.values[10, 20] == pytest.approx(float(small_town.ground[20:22, 40:42].mean()), abs=1e-4)
    assert (classes.values == small_town.classes[::2, ::2]).mean() > 0.95


@pytest.mark.parametrize("name", ["small_town", "valley"])
def test_evolve__changes_the_surface_where_it_says(name: str, request: pytest.FixtureRequest) -> None:
    before: World = request.getfixturevalue(name)
    after, events = evolve(before, 5)
    assert len(events) >= 3
    change = after.surface.astype(float) - before.surface
    x, y = np.meshgrid(*before.grid.centres())
    everything = unary_union([Polygon(p) for e in events for p in e.outline])
    outside = ~contains_xy(everything.buffer(7.0), x, y)
    assert np.abs(change[outside]).max() < 1e-3
    for event in events:
        inside = contains_xy(unary_union([Polygon(p) for p in event.outline]), x, y)
        if "building" in event.kind:
            assert inside.sum() / 16 == pytest.approx(event.area_m2, rel=0.05)
            assert change[inside].sum() / 16 == pytest.approx(event.volume_m3, rel=0.05)
        sign = {"new_building": 1, "demolished_building": -1, "felled": -1, "landslide_source": -1}.get(event.kind, 0)
        assert sign == 0 or np.sign(event.mean_dz) == sign
        assert event.mean_dz * event.area_m2 == pytest.approx(event.volume_m3, rel=1e-6)
    kinds = [e.kind for e in events]
    assert "felled" in kinds and any("building" in k for k in kinds)


def test_evolve__landslide_keeps_its_volume(valley: World) -> None:
    after, events = evolve(valley, 5)
    slide = {e.kind: e for e in events if e.kind.startswith("landslide")}
    assert slide["landslide_source"].ground_volume_m3 < -100
    assert slide["landslide_source"].ground_volume_m3 == pytest.approx(
        -slide["landslide_deposit"].ground_volume_m3, rel=0.05
    )
    (upper,), (lower,) = slide["landslide_source"].outline, slide["landslide_deposit"].outline
    heights = []
    for outline in (upper, lower):
        column, row = valley.grid.column_row(*np.mean(outline, axis=0))
        heights.append(valley.ground[round(float(row)), round(float(column))])
    assert heights[0] > heights[1]
    assert (after.surface >= after.ground - 1e-3).all()


def test_evolve__what_was_demolished_is_bare(small_town: World) -> None:
    after, events = evolve(small_town, 5)
    gone = [e for e in events if e.kind == "demolished_building"]
    assert gone
    lost = (small_town.building > 0) & (after.building == 0)
    assert lost.sum() / 16 == pytest.approx(sum(e.area_m2 for e in gone), rel=1e-6)
    assert np.array_equal(after.surface[lost], after.ground[lost]) and (after.classes[lost] == 2).all()
    assert (small_town.classes[lost] == 6).all()


@pytest.mark.slow
def test_evolve_further__changes_what_it_says(small_town: World) -> None:
    changed, usual = evolve(small_town, 5)
    after, events = evolve_further(changed, small_town, usual, 5)
    kinds = {e.kind for e in events}
    assert "raised_building" in kinds and len(kinds) >= 3
    for e in events:
        rise = e.kind in ("raised_building", "vegetation_growth", "fill", "accretion", "water_to_land")
        assert (e.area_m2 > 10 and (e.mean_dz > 0) == rise) or e.kind == "construction_site"
    assert (after.surface >= after.ground - 0.01).all()
