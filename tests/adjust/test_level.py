"""Lidar heights in the network: datum and tilt from returns, gross errors without weight, inner geometry untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.bundle import intersect
from terrain3d.adjust.heights import pick_returns, rough_offset, see_footprints
from terrain3d.adjust.level import HeightTies, level
from terrain3d.adjust.network import Network, build_network, with_lidar
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.crs import to_lonlat
from terrain3d.image.view import View
from terrain3d.io.images import open_image
from terrain3d.io.rasters import read_raster
from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.simulate.scene import SceneFiles, write_scene
from terrain3d.stats import nmad

UTM = "EPSG:32632"
LIMITS = (460.0, 660.0)
CENTRE = 680_000.0, 5_230_000.0
NOISE = 0.15


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    return write_scene(tmp_path_factory.mktemp("level"), "town", 260, seed=9, views=3)


@pytest.fixture(scope="module")
def views(scene: SceneFiles) -> list[View]:
    return [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in scene.epochs[0].images]


@pytest.fixture(scope="module")
def free(views: list[View]) -> Network:
    return build_network(views, UTM, LIMITS)


@pytest.fixture(scope="module")
def dtm(scene: SceneFiles) -> Raster:
    return read_raster(scene.epochs[0].truth["dtm"])


def returns_on(dtm: Raster, n: int = 150, *, wrong: Callable[[int], NDArray[np.float64]] | None = None) -> LidarReturns:
    """Returns on the true terrain all over the scene, in ten tracks; ``wrong`` is added to their heights."""
    rng = np.random.default_rng(1)
    x, y = (c + rng.uniform(-110, 110, n) for c in CENTRE)
    height = dtm.sample(x, y) + rng.normal(0, NOISE, n) + (0.0 if wrong is None else wrong(n))
    lon, lat = to_lonlat(UTM, x, y)
    track = np.sort(np.arange(n) % 10).astype(np.int32)
    return LidarReturns(
        lon, lat, height, np.full(n, 0.2), np.full(n, 20.0), np.full(n, 11.0), np.full(n, np.nan),
        np.arange(n, dtype=float), track, tuple(f"t{i}" for i in range(10)), ("ATL08",) * 10,
    )  # fmt: skip


def levelled(free: Network, returns: LidarReturns) -> tuple[Network, HeightTies]:
    adjustment, found = level(free.adjustment, free.views, free.ties, returns, UTM)
    return replace(free, adjustment=adjustment), found


def through_exact_rays(network: Network, scene: SceneFiles) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Easting and northing (N, 2) of points, error of their height by the network's cameras, and how far the rays miss
    each other in the images, px."""
    rng = np.random.default_rng(2)
    x, y = (c + rng.uniform(-110, 110, 300) for c in CENTRE)
    seen = [s.camera.project(x, y, 545.0) for s in scene.epochs[0].sensors]
    line, sample = (np.concatenate([p[k] for p in seen]) for k in (0, 1))
    ties = Ties(np.repeat(np.arange(3), 300), np.tile(np.arange(300), 3), line, sample)
    cameras = list(network.adjustment.cameras)
    points = intersect(cameras, ties, 545.0)
    again = np.array([cameras[i].project(*points[t]) for i, t in zip(ties.view, ties.track, strict=True)])
    miss = float(np.sqrt(np.mean((again - np.column_stack([line, sample])) ** 2)))
    return np.column_stack([x, y]) - CENTRE, points[:, 2] - 545.0, miss


def test_level__takes_the_height_of_the_lidar(free: Network, scene: SceneFiles, dtm: Raster) -> None:
    after, found = levelled(free, returns_on(dtm))
    _, error, miss = through_exact_rays(after, scene)
    _, error_before, miss_before = through_exact_rays(free, scene)
    assert abs(np.median(error_before)) > 0.5
    assert abs(np.median(error)) < 0.1
    assert miss < miss_before + 0.003  # relative orientation stays
    assert found.applied and found.used > 30
    assert abs(found.median_before + np.median(error_before)) < 0.3 and abs(found.median_after) < 0.1
    assert found.nmad_after <= found.nmad_before * 1.1 and found.nmad_held_out < found.nmad_before
    np.testing.assert_allclose(after.adjustment.rms_after_px, free.adjustment.rms_after_px, atol=0.005)
    assert np.linalg.eigvalsh(after.adjustment.covariance).min() > 0


def test_level__a_third_of_gross_errors_does_no_harm(free: Network, scene: SceneFiles, dtm: Raster) -> None:
    def roofs(n: int) -> NDArray[np.float64]:
        return np.where(np.arange(n) % 3 == 0, np.random.default_rng(3).uniform(3, 25, n), 0.0)

    after, found = levelled(free, returns_on(dtm, wrong=roofs))
    assert abs(np.median(through_exact_rays(after, scene)[1])) < 0.12
    assert found.used < 110  # the rest is wrong


@pytest.mark.parametrize("tilt", [0.0, 8.0])
def test_level__drifts_move_where_returns_prove_a_tilt(
    free: Network, scene: SceneFiles, dtm: Raster, tilt: float
) -> None:
    """The lidar is tilted instead of the cameras, by so many metres per kilometre towards north."""
    rng = np.random.default_rng(1)
    rng.uniform(-110, 110, 150)
    north = rng.uniform(-110, 110, 150)
    true, _ = levelled(free, returns_on(dtm))
    start = _started_from(free, true)
    after, found = levelled(start, returns_on(dtm, wrong=lambda n: tilt / 1000 * north))
    assert ("drifts" in found.reason) == (tilt > 0)
    place, error, miss = through_exact_rays(after, scene)
    _, before, miss_before = through_exact_rays(start, scene)
    slope = np.polyfit(place[:, 1], error - before, 1)[0] * 1000
    assert slope == pytest.approx(tilt, abs=1.0)
    assert miss < miss_before + 0.003


def _started_from(free: Network, levelled: Network) -> Network:
    """A free network that happens to have the cameras of a levelled one."""
    adjustment = replace(levelled.adjustment, covariance=free.adjustment.covariance)
    views = [v.with_camera(c) for v, c in zip(free.views, adjustment.cameras, strict=True)]
    return replace(free, adjustment=adjustment, views=views)


def test_level__too_few_or_contradictory_returns_change_nothing(free: Network, dtm: Raster) -> None:
    few, found = levelled(free, returns_on(dtm, 6))
    assert not found.applied and "too few" in found.reason and few.adjustment is free.adjustment
    for none in (replace(returns_on(dtm), lat_deg=returns_on(dtm).lat_deg + 0.1), replace(
        returns_on(dtm), canopy=np.full(150, 20.0)
    )):  # fmt: skip
        same, found = levelled(free, none)
        assert not found.applied and "two views show 0" in found.reason and same.adjustment is free.adjustment
    scattered, found = levelled(free, returns_on(dtm, wrong=lambda n: np.random.default_rng(4).uniform(-60, 60, n)))
    assert not found.applied and scattered.adjustment is free.adjustment and found.used == 0


def test_with_lidar__the_whole_network_moves(free: Network, scene: SceneFiles, dtm: Raster) -> None:
    network = with_lidar(free, returns_on(dtm), UTM)
    assert free.height_ties is None
    assert network.height_ties is not None and network.height_ties.applied
    assert abs(np.median(through_exact_rays(network, scene)[1])) < 0.1
    lifted = network.heights[0] - free.heights[0]
    assert lifted == pytest.approx(network.height_ties.median_before, abs=0.5)
    assert network.views[0].camera == network.adjustment.cameras[0]


def test_footprints__see_ground_where_it_is(free: Network, dtm: Raster) -> None:
    returns = returns_on(dtm)
    rows = pick_returns(returns)
    lift = rough_offset(free.adjustment.points, returns, UTM)
    seen = see_footprints(free.views, returns, rows, lift, UTM)
    assert len(seen.at) > 40
    assert len(np.unique(np.diff(seen.points[seen.first[0] : seen.first[0] + seen.count[0], 0]))) > 1
    # the network has a tilt of its own
    plane = np.column_stack([np.ones(len(seen.at)), returns.lon_deg[seen.at] * 1000, returns.lat_deg[seen.at] * 1000])
    plane -= [0, *plane[:, 1:].mean(axis=0)]
    near = np.abs(seen.offset - np.median(seen.offset)) < 1.5
    assert near.mean() > 0.8
    residual = seen.offset - plane @ np.linalg.lstsq(plane[near], seen.offset[near], rcond=None)[0]
    assert nmad(residual) < 2 * NOISE  # the most of it is the lidar's own noise
    assert abs(lift + np.median(seen.offset)) < 2.5


def test_pick_returns__leaves_out_canopy_and_thins(dtm: Raster) -> None:
    returns = returns_on(dtm)
    canopy = np.where(np.arange(150) < 50, 14.0, 0.5)
    assert pick_returns(replace(returns, canopy=canopy)).tolist() == list(range(50, 150))
    assert len(pick_returns(replace(returns, height=np.full(150, np.nan)))) == 0
