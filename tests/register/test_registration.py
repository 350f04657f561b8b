from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from scipy import ndimage

from terrain3d.adjust.pointing import Pointing
from terrain3d.crs import Reference, Vertical, from_lonlat, to_lonlat
from terrain3d.errors import FrameError, LidarError, OverlapError
from terrain3d.lidar.read import read_lidar
from terrain3d.points import LidarReturns, join_returns
from terrain3d.raster import Grid, Raster
from terrain3d.register.coverage import uncontrolled_parts
from terrain3d.register.footprint import place_footprints, sample_footprints
from terrain3d.register.objects import coarsen, object_map
from terrain3d.register.registration import register_dsm
from terrain3d.register.scene import prepare
from terrain3d.register.shift import SHIFT, most_common, residual_scale
from terrain3d.register.validate import make_folds
from terrain3d.register.weights import heard_by_product, weighed_by_product
from terrain3d.stats import nmad

CRS = "EPSG:32654"
WEST, NORTH, SIZE = 300_000.0, 3_900_000.0, 600.0
Terrain = Callable[[np.ndarray, np.ndarray], np.ndarray]


def hills(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = (x - WEST) / 100, (NORTH - y) / 100
    return (
        200
        + 15 * np.sin(1.7 * u + 0.3) * np.cos(1.3 * v)
        + 9 * np.sin(2.9 * v + 0.5 * u)
        + 4 * np.cos(4.1 * u - 2.3 * v)
    )


def plain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 50 + 0.0 * x + 0.001 * (y - NORTH)


def surface(terrain: Terrain, shift: tuple[float, float, float] = (0, 0, 0), resolution: float = 1.0) -> Raster:
    """Model of the terrain that lies ``shift`` away from where it belongs."""
    n = int(SIZE / resolution)
    grid = Grid(Reference(CRS), WEST, NORTH, resolution, n, n)
    x, y = grid.centres()
    values = terrain(x[None, :] - shift[0], y[:, None] - shift[1]) + shift[2]
    return Raster(values.astype(np.float32), grid)


def track(
    terrain: Terrain, x0: float, name: str, seed: int, product: str = "ATL08", noise: float = 0.15, lean: float = 0.12
) -> LidarReturns:
    rng = np.random.default_rng(seed)
    gedi = product != "ATL08"
    y = np.arange(NORTH - SIZE + 20, NORTH - 20, 60.0 if gedi else 20.0)
    x = WEST + x0 + lean * (y - (NORTH - SIZE))
    ax, ay = np.array([lean, 1]) / np.hypot(lean, 1)
    a, b = (g.ravel() for g in np.meshgrid(np.linspace(-9.5, 9.5, 20), np.linspace(-5, 5, 11)))
    height = np.median(terrain(x[:, None] + a * ax + b * ay, y[:, None] + a * ay - b * ax), axis=1)
    lon, lat = to_lonlat(CRS, x, y)
    n, ones = len(y), np.ones(len(y))
    size = (25.0, 25.0) if gedi else (20.0, 11.0)
    return LidarReturns(
        lon, lat, height + rng.normal(0, noise, n), ones * 0.3, ones * size[0], ones * size[1], ones * np.nan,
        np.arange(n, dtype=float), np.zeros(n, np.int32), (name,), (product,),
    )  # fmt: skip


def lidar(terrain: Terrain, seed: int = 0, n_tracks: int = 6, noise: float = 0.15) -> LidarReturns:
    lean = (0.12, -0.12)
    starts = np.linspace(60, SIZE - 130, n_tracks)
    return join_returns(
        [
            track(terrain, x + (70 if k % 2 else 0), f"g.h5/t{k}", 100 * seed + k, noise=noise, lean=lean[k % 2])
            for k, x in enumerate(starts)
        ]
    )


def test_register__a_model_with_hardly_any_heights_is_to_blame_itself() -> None:
    full, returns = surface(hills), lidar(hills)
    row = full.grid.column_row(*from_lonlat(CRS, returns.lon_deg, returns.lat_deg))[1]
    values = np.full_like(full.values, np.nan)
    values[:20] = full.values[:20]
    assert row.min() > 35  # south of all heights
    with pytest.raises(
        OverlapError, match=r"only .* % of the surface model has heights, and none of .* without texture"
    ):
        register_dsm(replace(full, values=values), returns)
    far = replace(returns, lat_deg=returns.lat_deg + 1)
    with pytest.raises(OverlapError, match="meets the surface model; give granules that cross"):
        register_dsm(full, far)


# signs and half pixels


def test_register__moves_the_model_back() -> None:
    displaced = (3.4, -2.1, 5.3)
    result = register_dsm(surface(hills, displaced), lidar(hills, noise=0.02))
    assert result.applied and result.horizontal_constrained
    assert (result.dx, result.dy, result.dz) == pytest.approx((-3.4, 2.1, -5.3), abs=0.03)
    x, y = np.array([WEST + 200.0]), np.array([NORTH - 300.0])
    point = np.column_stack([x + 3.4, y - 2.1, hills(x, y) + 5.3])  # the terrain at (x, y) as the model shows it
    assert result.apply(point)[0] == pytest.approx([x[0], y[0], hills(x, y)[0]], abs=0.05)
    assert point[0, 0] == x[0] + 3.4  # the input stays


def test_register__far_displacement_is_found() -> None:
    result = register_dsm(surface(hills, (-13.0, 9.0, -42.0)), lidar(hills, noise=0.02))
    assert (result.dx, result.dy, result.dz) == pytest.approx((13.0, -9.0, 42.0), abs=0.1)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_register__no_half_pixel(resolution: float) -> None:
    result = register_dsm(surface(hills, (2.0, 2.0, 0.0), resolution), lidar(hills, noise=0.0))
    assert (result.dx, result.dy) == pytest.approx((-2.0, -2.0), abs=0.05)


def test_residual__is_return_minus_corrected_surface() -> None:
    result = register_dsm(surface(plain, (0, 0, 1.0)), lidar(plain, noise=0.05))
    assert result.dz == pytest.approx(-1.0, abs=0.03)
    assert np.median(result.residual) == pytest.approx(0.0, abs=0.02)
    assert result.before is not None and result.after is not None
    assert result.before.bias == pytest.approx(1.0, abs=0.03)  # the model is too high: surface minus return
    assert abs(result.after.bias) < 0.03


# what is accepted


def test_register__flat_ground_does_not_constrain() -> None:
    result = register_dsm(surface(plain, (3.0, 2.0, 1.5)), lidar(plain))
    assert not result.horizontal_constrained and (result.dx, result.dy) == (0.0, 0.0)
    assert "only to" in result.horizontal_reason
    assert result.dz == pytest.approx(-1.5, abs=0.05)


def test_register__model_in_place_stays() -> None:
    result = register_dsm(surface(hills), lidar(hills))
    assert result.horizontal_constrained
    assert np.hypot(result.dx, result.dy) < 3 * np.sqrt(result.covariance[0, 0] + result.covariance[1, 1])
    assert np.hypot(result.dx, result.dy) < 0.15 and abs(result.dz) < 0.04


def test_register__badly_located_returns_do_not_shift() -> None:
    returns = lidar(hills)
    gedi = replace(returns, product=("GEDI_L2A",) * len(returns.product))
    result = register_dsm(surface(hills, (6.0, 0.0, 1.0)), gedi)
    assert (result.dx, result.dy) == (0.0, 0.0)  # each track is some ten metres off as a whole
    assert "geolocation" in result.horizontal_reason


def test_register__shift_fades_where_relief_is_faint() -> None:
    def faint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.12 * hills(x, y)

    result = register_dsm(surface(faint, (4.0, 0.0, 0.0)), lidar(faint))
    sharp = register_dsm(surface(hills, (4.0, 0.0, 0.0)), lidar(hills))
    assert sharp.dx == pytest.approx(-4.0, abs=0.15)
    assert -4.0 < result.dx <= 0.0 and abs(result.dz) < 0.1


def test_register__tilt_is_taken_off_only_where_it_is() -> None:
    def tilted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return hills(x, y) + 0.002 * (x - WEST - SIZE / 2) - 0.001 * (y - NORTH + SIZE / 2)

    result = register_dsm(surface(tilted), lidar(hills))
    assert (result.tilt_e, result.tilt_n) == pytest.approx((-0.002, 0.001), abs=2e-4)
    assert result.vertical_at(np.array([WEST]), np.array([NORTH - SIZE / 2]))[0] == pytest.approx(0.6, abs=0.1)
    assert any("tilt" in n for n in result.notes)
    level = register_dsm(surface(hills), lidar(hills))
    assert np.hypot(level.tilt_e, level.tilt_n) < 1e-4


def test_sigma_at__grows_away_from_the_middle_with_a_tilt() -> None:
    def tilted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return hills(x, y) + 0.004 * (x - WEST)

    result = register_dsm(surface(tilted), lidar(hills))
    x, y = WEST + np.array([300.0, 0.0]), NORTH - np.array([300.0, 0.0])
    middle, corner = result.sigma_at(x, y)
    assert 0.005 < middle < 0.1 and corner > 1.5 * middle
    level = register_dsm(surface(hills), lidar(hills))
    middle, corner = level.sigma_at(x, y)  # a tilt that is not seen may still be there
    assert 0.02 < middle < 0.06 and 1.2 * middle < corner < 0.15


@pytest.mark.slow
def test_covariance__matches_the_scatter_of_draws() -> None:
    model = surface(hills, (4.0, -4.0, 1.0), 2.0)
    normalized = []
    for seed in range(12):
        r = register_dsm(model, lidar(hills, seed, noise=0.4))
        error = np.array([r.dx + 4.0, r.dy - 4.0, r.dz + 1.0])
        normalized.append(error / np.sqrt(np.diag(r.covariance)[:3]))
    rms = np.sqrt(np.mean(np.square(normalized)))
    assert 0.5 < rms < 1.5


def banks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Plain with a river between banks, all that could tell a shift."""
    u, v = x - WEST, NORTH - y
    across = (v - 250 - 90 * np.sin(u / 70)) / 30
    return 50 - 5 * np.exp(-(across**4)) + 0.002 * u


@pytest.mark.slow
def test_shift__is_as_good_as_it_says_where_a_few_banks_decide() -> None:
    normalized = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        model = surface(banks, (1.0, -1.0, 0.0), 1.0)
        noise = cv2.GaussianBlur(rng.normal(0, 1, model.grid.shape), (0, 0), 3.0)
        model = replace(model, values=(model.values + 0.3 * noise / noise.std()).astype(np.float32))
        r = register_dsm(model, lidar(banks, seed, noise=0.2))
        if np.hypot(r.dx, r.dy) > 0:
            normalized.append(np.array([r.dx + 1.0, r.dy - 1.0]) / np.sqrt(np.diag(r.covariance)[:2]))
    assert len(normalized) > 5
    assert np.sqrt(np.mean(np.square(normalized))) < 1.5


@pytest.mark.slow
def test_shift__of_few_returns_is_not_led_astray_by_one_bank() -> None:
    normalized = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        model = surface(banks, (1.0, -1.0, 0.0), 1.0)
        noise = cv2.GaussianBlur(rng.normal(0, 1, model.grid.shape), (0, 0), 3.0)
        model = replace(model, values=(model.values + 0.3 * noise / noise.std()).astype(np.float32))
        returns = lidar(banks, seed, noise=0.2)
        returns = returns.select(np.sort(rng.choice(len(returns), 30, replace=False)))
        height = returns.height + np.where(rng.random(len(returns)) < 0.1, rng.uniform(1.0, 3.0, len(returns)), 0.0)
        r = register_dsm(model, replace(returns, height=height))
        normalized.append(np.array([r.dx + 1.0, r.dy - 1.0]) / np.sqrt(np.diag(r.covariance)[:2]))
    assert np.sqrt(np.mean(np.square(normalized))) < 1.5 and np.abs(normalized).max() < 3.0


def test_shift__few_returns_are_followed_where_the_images_point_wrong() -> None:
    """Some 16 returns agree with a wrong shift by chance, but where pointing is off by metres they know better."""
    model = surface(hills, (6.0, -5.0, 0.5))
    returns = lidar(hills)
    returns = returns.select(np.sort(np.random.default_rng(1).choice(len(returns), 16, replace=False)))
    usual = Pointing(np.diag([2.8, 2.8, 12.0]) ** 2)
    wrong = replace(usual, squares=10.0, count=1.0)
    stays, follows = (register_dsm(model, returns, pointing=p) for p in (usual, wrong))
    assert stays.dx == stays.dy == 0 and "do not determine" in stays.horizontal_reason
    error = np.array([follows.dx + 6.0, follows.dy - 5.0])
    assert np.hypot(*error) < 1.5 and np.abs(error / np.sqrt(np.diag(follows.covariance)[:2])).max() < 2.5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_residual_scale__gross_errors_do_not_grow_it(share: float) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = rng.normal(0, 0.8, 120) + np.where(rng.random(120) < share, rng.uniform(6, 25, 120), 0.0)
        found.append(residual_scale(size) / 0.8)
    assert np.mean(found) == pytest.approx(1.0, abs=0.12) and max(found) < 1.4
    assert residual_scale(np.array([0.5, -0.5, 0.5])) == pytest.approx(0.7413, abs=0.2)


def test_register__a_bend_is_taken_off_the_same_for_points_and_cells() -> None:
    def bent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return hills(x, y) + 0.5 * np.sin((y - NORTH) / 70) + 0.0 * x

    model = surface(bent, (1.0, -1.0, 2.0))
    result = register_dsm(model, lidar(hills))
    assert any("smooth" in n for n in result.notes)
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(80, 520, 12) + WEST, NORTH - np.linspace(60, 540, 25)))
    error = hills(x, y) - result.apply(np.column_stack([x + 1.0, y - 1.0, bent(x, y) + 2.0]))[:, 2]
    assert np.sqrt(np.mean(error**2)) < 0.1  # of 0.35
    assert np.sqrt(np.mean((error / result.sigma_at(x, y)) ** 2)) < 1.5
    moved = result.apply(np.column_stack([x, y, np.zeros_like(x)]))
    assert np.array_equal(moved[:, 2], result.vertical_at(moved[:, 0], moved[:, 1]))
    assert result.sigma_at(x[None, :3], y[:4, None]).shape == (4, 3)
    outside = result.vertical_at(np.array([WEST - 5e4]), np.array([NORTH]))
    assert np.isfinite(outside).all()
    before, after = result.before, result.after
    assert before is not None and after is not None and after.nmad < 0.3 < before.nmad
    level = register_dsm(surface(hills), lidar(hills))
    assert level.smooth is not None and level.smooth.height is None


# robustness


@pytest.mark.parametrize("seed", [0, 1])
def test_register__gross_errors(seed: int) -> None:
    returns = lidar(hills, seed)
    rng = np.random.default_rng(seed)
    bad = rng.random(len(returns)) < 0.1
    height = returns.height + bad * rng.uniform(15, 250, len(returns)) * rng.choice([-1, 1], len(returns))
    result = register_dsm(surface(hills, (1.7, -0.9, 2.3)), replace(returns, height=height))
    assert (result.dx, result.dy) == pytest.approx((-1.7, 0.9), abs=0.3)  # 0.2 m of it without gross errors, too
    assert result.dz == pytest.approx(-2.3, abs=0.05)
    assert not result.used[bad].any() and result.report.n_gross == pytest.approx(bad.sum(), abs=1)


def test_register__returns_on_roofs() -> None:
    returns = lidar(plain)
    rng = np.random.default_rng(5)
    model = surface(plain, (0, 0, 2.0), 1.0)
    x, y = from_lonlat(CRS, returns.lon_deg, returns.lat_deg)
    column, row = (a.round().astype(int) for a in model.grid.column_row(x, y))
    roofs = np.flatnonzero(rng.random(len(returns)) < 0.3)
    for k in roofs:  # houses under the footprints, which the lidar took for ground in half of the cases
        model.values[max(row[k] - 13, 0) : row[k] + 14, max(column[k] - 9, 0) : column[k] + 10] = 2.0 + 50 + 7
    height = returns.height.copy()
    height[roofs[::2]] += 7
    result = register_dsm(model, replace(returns, height=height))
    assert result.dz == pytest.approx(-2.0, abs=0.1)
    assert dict(result.report.rejected)["on a building or trees"] > 0.8 * len(roofs)


@pytest.mark.parametrize("given", ["roofs", "ground"])
def test_register__returns_of_roofs_given_as_ground_warn(given: str) -> None:
    # Halls of 30 m and 8 m high, one every 60 m; a tenth of the returns stand beside them.
    def town(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        inside = ((x - WEST) % 60 < 30) & ((NORTH - y) % 60 < 30)
        return plain(x, y) + 8.0 * inside

    rng = np.random.default_rng(1)
    column, row = rng.integers(0, 10, (2, 200))
    beside = np.arange(200) >= (180 if given == "roofs" else 100)
    x, y = WEST + 60.0 * column + np.where(beside, 45, 15), NORTH - 60.0 * row - np.where(beside, 45, 15)
    height = plain(x, y) + (8.0 if given == "roofs" else 0.0) + rng.normal(0, 0.05, 200)
    lon, lat = to_lonlat(CRS, x, y)
    ones = np.ones(200)
    returns = LidarReturns(
        lon, lat, height, 0.1 * ones, ones, ones, np.nan * ones, np.arange(200.0), np.zeros(200, np.int32), ("t",),
        ("TABLE",),
    )  # fmt: skip
    result = register_dsm(surface(town), returns)
    told = [w for w in result.warnings if "buildings or trees" in w]
    if given == "ground":
        assert told == [] and result.dz == pytest.approx(0.0, abs=0.1)
    else:
        assert result.dz == pytest.approx(8.0, abs=0.1)  # wrong, and so said
        assert told[0].startswith("180 of 200 returns") and "8.0 m below" in told[0]


def test_register__twelve_returns_in_a_corner_warn() -> None:
    returns = lidar(hills)
    x, y = from_lonlat(CRS, returns.lon_deg, returns.lat_deg)
    nearest = np.argsort(np.hypot(x - WEST, y - NORTH + SIZE))[:12]
    result = register_dsm(surface(hills, (0, 0, 3.0)), returns.select(np.sort(nearest)))
    assert result.dz == pytest.approx(-3.0, abs=0.4) and (result.dx, result.dy) == (0.0, 0.0)
    assert (result.tilt_e, result.tilt_n) == (0.0, 0.0)
    x, y = WEST + np.array([60.0, SIZE - 60]), NORTH - np.array([SIZE - 60, 60.0])
    near, far = result.sigma_at(x, y)
    assert far > 1.5 * near  # what no return controls is less certain
    assert any("north-east" in n and "extrapolated" in n for n in result.warnings)
    assert result.report.coverage is None and result.report.groups == ()
    assert result.before is None and result.after is None and "no accuracy is stated" in result.report.note


def test_register__all_on_trees_applies_nothing() -> None:
    returns = lidar(hills)
    result = register_dsm(surface(hills, (0, 0, 3.0)), replace(returns, canopy=np.full(len(returns), 60.0)))
    assert not result.applied and result.dz == 0.0 and not result.used.any()
    assert "not corrected" in result.warnings[0]
    assert np.isnan(result.sigma_at(np.zeros(2), np.zeros(2))).all()
    xyz = np.array([[1.0, 2.0, 3.0]])
    assert np.array_equal(result.apply(xyz), xyz)


def test_register__gedi_geolocation_does_not_pull() -> None:
    returns = lidar(hills)
    wrong = [replace(track(hills, 100.0 * k + 20, f"gedi/{k}", k, "GEDI_L2A")) for k in range(4)]
    lon_step = 10.0 / (111_320 * np.cos(np.radians(35.2)))
    moved = [replace(t, lon_deg=t.lon_deg + lon_step) for t in wrong]
    result = register_dsm(surface(hills, (2.0, 1.0, 1.0)), join_returns([returns, *moved]))
    assert (result.dx, result.dy, result.dz) == pytest.approx((-2.0, -1.0, -1.0), abs=0.15)
    assert [g.name for g in result.report.groups if g.by == "product"] == ["ATL08", "GEDI_L2A"]
    assert result.after is not None and result.after.nmad < 0.3


def test_register__voids_and_noise() -> None:
    rng = np.random.default_rng(0)
    model = surface(hills, (1.5, 1.0, -2.0))
    values = model.values + rng.normal(0, 0.4, model.values.shape).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    values[:, 250:330] = np.nan
    result = register_dsm(replace(model, values=values), lidar(hills))
    assert (result.dx, result.dy, result.dz) == pytest.approx((-1.5, -1.0, 2.0), abs=0.15)
    assert dict(result.report.rejected)["outside the surface"] > 0


@pytest.mark.slow
def test_register__deterministic() -> None:
    model, returns = surface(hills, (1.0, 2.0, 3.0), 2.0), lidar(hills)
    first, second = register_dsm(model, returns), register_dsm(model, returns)
    assert np.array_equal(first.covariance, second.covariance) and first.report == second.report


# errors of the user


def test_register__refuses_what_cannot_be_compared() -> None:
    model, returns = surface(hills, resolution=2.0), lidar(hills)
    with pytest.raises(LidarError, match="no lidar returns"):
        register_dsm(model, returns.select(np.zeros(len(returns), bool)))
    with pytest.raises(OverlapError, match="meets the surface"):
        register_dsm(model, replace(returns, lat_deg=returns.lat_deg + 1))
    geoid = replace(model, grid=replace(model.grid, reference=Reference(CRS, Vertical("egm96", "x.gtx"))))
    with pytest.raises(FrameError, match="egm96"):
        register_dsm(geoid, returns)
    degrees = replace(model, grid=replace(model.grid, reference=Reference("EPSG:4326")))
    with pytest.raises(FrameError, match="projected"):
        register_dsm(degrees, returns)


# validation


def test_make_folds__whole_tracks_and_each_once() -> None:
    rng = np.random.default_rng(0)
    tracks = rng.integers(0, 9, 200).astype(np.int32)
    folds = make_folds(tracks, np.ones(200, bool))
    assert len(folds) == 5 and sorted(np.concatenate(folds).tolist()) == list(range(9))
    assert make_folds(tracks, tracks < 2) == []
    assert make_folds(tracks[:9], np.ones(9, bool)) == []


def test_report__holds_tracks_out_and_adds_up() -> None:
    returns = lidar(hills, noise=0.3)
    result = register_dsm(surface(hills, (2.0, 2.0, 2.0)), returns)
    report = result.report
    assert report.after is not None and report.note == ""
    assert report.n_read == len(returns) == report.n_used + sum(n for _, n in report.rejected)
    assert sum(f.after.n for f in report.folds) == report.after.n
    names = [n for f in report.folds for n in f.tracks]
    assert sorted(names) == sorted(returns.track_names)
    assert len({f.parameters for f in report.folds}) == len(report.folds)
    assert report.after.nmad == pytest.approx(0.3, abs=0.07)
    for by in ("product", "slope", "canopy"):
        assert sum(g.n for g in report.groups if g.by == by) == report.after.n
        assert all(g.after.n == g.n if g.n >= 5 else g.after is None for g in report.groups)
    assert report.coverage is not None
    assert 0.5 < report.coverage[0] < report.coverage[1] <= report.coverage[2] <= 1.0


# parts


def test_footprint__plane_is_exact() -> None:
    grid = Grid(Reference(CRS), WEST, NORTH, 0.5, 200, 200)
    x, y = grid.centres()
    p, q = 0.37, -0.21
    dsm = Raster((p * (x[None, :] - WEST) + q * (y[:, None] - NORTH)).astype(np.float32), grid)
    lon, lat = to_lonlat(CRS, WEST + np.array([50.3, 40.0]), NORTH - np.array([48.9, 60.0]))
    for size in ((20.0, 11.0), (25.0, 25.0)):
        returns = replace(
            lidar(plain).select(np.array([0, 1])),
            lon_deg=lon, lat_deg=lat, length=np.full(2, size[0]), width=np.full(2, size[1]),
        )  # fmt: skip
        s = sample_footprints(dsm, object_map(dsm), place_footprints(returns, CRS))
        assert s.height == pytest.approx(p * np.array([50.3, 40.0]) - q * np.array([48.9, 60.0]), abs=0.02)
        assert s.slope_x == pytest.approx(p, abs=1e-3) and s.slope_y == pytest.approx(q, abs=1e-3)
        assert np.all(s.spread < 0.01) and np.all(s.valid == 1) and np.all(s.raised == 0)


def test_footprint__lies_along_the_track() -> None:
    # ground rises east: a footprint along a track to the east sees more of it than one along a track to the north
    spread = []
    for heading in (0.0, 90.0):
        x = WEST + 300 + np.arange(5) * 20 * np.sin(np.radians(heading))
        y = NORTH - 300 + np.arange(5) * 20 * np.cos(np.radians(heading))
        lon, lat = to_lonlat(CRS, x, y)
        returns = replace(lidar(plain).select(np.arange(5)), lon_deg=lon, lat_deg=lat)
        f = place_footprints(returns, CRS)
        assert f.along_x == pytest.approx(np.sin(np.radians(heading)), abs=1e-3)
        assert f.along_y == pytest.approx(np.cos(np.radians(heading)), abs=1e-3)
        wave = surface(lambda x, y: 100 + 3 * np.cos(2 * np.pi * (x - WEST - 300) / 40) + 0 * y)
        spread.append(sample_footprints(wave, object_map(wave), f).spread[0])
    assert spread[1] > 2 * spread[0]


def test_footprint__a_car_does_not_lift_it_and_voids_count() -> None:
    model = surface(plain)
    returns = lidar(plain, n_tracks=1, noise=0.0)
    x, y = from_lonlat(CRS, returns.lon_deg, returns.lat_deg)
    column, row = (int(a[5].round()) for a in model.grid.column_row(x, y))
    model.values[row - 2 : row + 3, column - 1 : column + 2] += 1.6
    column, row = (int(a[15].round()) for a in model.grid.column_row(x, y))
    model.values[row - 30 : row, column - 30 : column + 30] = np.nan
    s = sample_footprints(model, object_map(model), place_footprints(returns, CRS), min_valid=0.0)
    assert s.height[5] == pytest.approx(returns.height[5], abs=0.02)
    assert s.valid[15] == pytest.approx(0.5, abs=0.12) and s.valid[5] == 1


def test_footprint__the_flank_of_a_roof_beside_it_is_no_slope() -> None:
    model = surface(plain)
    returns = lidar(plain, n_tracks=1, noise=0.0).select(np.arange(10, 21))
    places = place_footprints(returns, CRS)
    column, row = (int(a[5].round()) for a in model.grid.column_row(places.x, places.y))
    model.values[row - 12 : row + 12, column + 5 : column + 30] += 6
    model = replace(model, values=ndimage.gaussian_filter(model.values, 0.7))
    s = sample_footprints(model, object_map(model), places)
    assert 0.05 < s.objects[5] < 0.3
    assert abs(s.slope_x[5]) < 0.02 and s.height[5] == pytest.approx(returns.height[5], abs=0.05)


def test_footprint__what_a_void_hides_is_unclear() -> None:
    """A bank that ends in water, which has no heights: the mean of the footprint is that of bank and water."""
    model = surface(lambda x, y: 50 - 0.5 * (x - WEST - 300) + 0 * y)
    shore = model.grid.centres()[0] > WEST + 302.0
    model.values[:, shore] = np.nan
    x, y = np.full(3, WEST + 300.0), NORTH - 300 - 20 * np.arange(3.0)
    lon, lat = to_lonlat(CRS, x, y)
    returns = replace(lidar(plain).select(np.arange(3)), lon_deg=lon, lat_deg=lat)
    scene = prepare(model, returns, None).hearing(np.tile([1.0, 0.0, 0.0], (3, 1)))
    s = sample_footprints(model, scene.objects, scene.footprints)
    true_mean = np.maximum(50 - 0.5 * np.linspace(-5.5, 5.5, 111), 49.0).mean()
    assert 0.6 < s.valid[1] < 0.8
    assert 0.2 < abs(s.height[1] - true_mean) < 2 * s.unclear[1]


def test_object_map__houses_on_a_slope_but_not_the_hill() -> None:
    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return plain(x, y) + 0.3 * (x - WEST)

    for terrain, house in ((hills, (14, 22)), (slope, (14, 22)), (slope, (45, 70))):
        model = surface(terrain)
        houses = np.zeros(model.values.shape, bool)
        for r, c in ((100, 100), (300, 420), (480, 250)):
            houses[r : r + house[0], c : c + house[1]] = True
        model.values[houses] += 6
        found = object_map(model)
        share = coarsen(Raster(houses.astype(np.float32), model.grid), 2).values
        assert found.values[share == 1].mean() > 0.9
        assert found.values[share == 0].mean() < 0.02


def test_object_map__void_only() -> None:
    model = surface(plain, resolution=2.0)
    assert not object_map(replace(model, values=np.full_like(model.values, np.nan))).values.any()


def test_most_common__survives_a_majority_of_outliers() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(4, 0.3, 40), rng.uniform(-60, 60, 60)])
    assert most_common(values) == pytest.approx(4.0, abs=0.2)
    assert most_common(np.array([np.nan])) == 0.0


def test_uncontrolled_parts__names_the_empty_ninths() -> None:
    model = surface(plain, resolution=2.0)
    north_west = uncontrolled_parts(model, np.array([WEST + 30]), np.array([NORTH - 30]))
    assert north_west == ("north", "north-east", "west", "centre", "east", "south-west", "south", "south-east")
    x, y = np.meshgrid(np.linspace(WEST, WEST + SIZE, 4), np.linspace(NORTH - SIZE, NORTH, 4))
    assert uncontrolled_parts(model, x.ravel(), y.ravel()) == ()


# scenes of another simulator


@pytest.mark.parametrize(
    ("scene", "crs", "horizontal", "vertical"),
    [("town", "EPSG:32654", 1.0, 0.05), ("mountain", "EPSG:32653", 0.4, 0.15)],
)
def test_scene__known_displacement_is_recovered(
    shared_data: Path, scene: str, crs: str, horizontal: float, vertical: float
) -> None:
    root = shared_data / "scenes" / scene
    with rasterio.open(root / "truth1" / "dsm.tif") as file:
        values, t = file.read(1, masked=True).filled(np.nan).astype(np.float32), file.transform
    grid = Grid(Reference(crs), t.c, t.f, t.a, *values.shape)
    displaced = (1.7, -0.9, 2.3)
    model = Raster(values + np.float32(displaced[2]), replace(grid, west=t.c + displaced[0], north=t.f + displaced[1]))
    result = register_dsm(model, read_lidar(sorted((root / "lidar").glob("*.h5"))).returns)
    error = np.array([result.dx, result.dy, result.dz]) + displaced
    assert np.hypot(*error[:2]) < horizontal and abs(error[2]) < vertical
    assert np.all(np.abs(error) < 4 * np.sqrt(np.diag(result.covariance)[:3]) + 0.02)
    assert result.before is not None and result.after is not None
    assert abs(result.after.bias) < 0.15 and result.after.nmad < 0.5
    assert nmad(result.residual[result.used]) < 1.0


@pytest.mark.parametrize("seed", [0, pytest.param(6, marks=pytest.mark.slow)])
def test_scene__tilt_of_a_real_surface_is_recovered(shared_data: Path, seed: int) -> None:
    """Returns sampled from a real surface that is 7.3 m higher and tilted by 2 m/km."""
    crs, up, tilt = "EPSG:32740", 7.3, (0.0012, 0.0016)
    with rasterio.open(shared_data / "real" / "s2p_pair" / "dsm.tif") as file:
        values, t = file.read(1, masked=True).filled(np.nan).astype(np.float32), file.transform
    model = Raster(values, Grid(Reference(crs), t.c, t.f, t.a, *values.shape))
    west, south, east, north = model.grid.bounds
    middle = (west + east) / 2, (south + north) / 2
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(south + 15, north - 15, 10.0), 12)
    number = np.repeat(np.arange(12, dtype=np.int32), len(y) // 12)
    lean = np.where(number % 2, 0.1, -0.1)
    x = west + 30 + (east - west - 60) * (number + 0.5) / 12 + lean * (y - middle[1])
    ones = np.ones(len(x))
    returns = LidarReturns(
        *to_lonlat(crs, x, y), 0 * ones, 0.3 * ones, 20 * ones, 11 * ones, np.nan * ones, y, number,
        tuple(f"g/{k}" for k in range(12)), ("ATL08",) * 12,
    )  # fmt: skip
    seen = sample_footprints(model, object_map(model), place_footprints(returns, crs)).heights[:, 0]
    height = seen + up + tilt[0] * (x - middle[0]) + tilt[1] * (y - middle[1]) + rng.normal(0, 0.05, len(x))
    result = register_dsm(model, replace(returns, height=height).select(np.isfinite(height)))
    at = result.vertical_at(*(np.array([c]) for c in middle))
    assert at[0] == pytest.approx(up, abs=0.05)
    assert (result.tilt_e, result.tilt_n) == pytest.approx(tilt, abs=1e-4)


@pytest.mark.slow
def test_report__held_out_rmse_is_the_true_one() -> None:
    ratio = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = surface(hills, (1.0, 0.5, -1.0), 2.0)
        rough = cv2.GaussianBlur(rng.normal(0, 1, model.grid.shape), (0, 0), 2.0)
        model = replace(model, values=(model.values + 0.25 * rough / rough.std()).astype(np.float32))
        result = register_dsm(model, lidar(hills, seed, noise=0.15))
        other = place_footprints(lidar(hills, seed + 50, n_tracks=5, noise=0.15), CRS)
        seen = sample_footprints(model, object_map(model), other, (result.dx, result.dy)).height
        error = lidar(hills, seed + 50, n_tracks=5, noise=0.15).height - seen - result.vertical_at(other.x, other.y)
        assert result.after is not None
        ratio.append(result.after.rmse / np.sqrt(np.nanmean(error**2)))
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.2)


def test_heard_by_product__median_of_a_bent_footprint_is_told_from_its_mean() -> None:
    returns, bent = lidar(hills, noise=0.0), surface(hills)
    for k in (0, 2):
        scene = prepare(bent, returns, None)
        height = sample_footprints(bent, scene.objects, scene.footprints).heights[:, k]
        noise = np.random.default_rng(0).normal(0, 0.02, len(height))
        scene = replace(scene, returns=replace(returns, height=height + noise))
        scene = heard_by_product(scene, scene.linearize((0.0, 0.0)))
        assert scene.footprints.says[0, k] > 0.5 and scene.footprints.says[0, 2 - k] < 0.001


def test_weighed_by_product__one_that_states_too_little_counts_less() -> None:
    """Noise of 1.2 m stated as 0.2 m, on every other track, beside honest returns."""
    truth = lidar(hills, noise=0.2)
    loud = truth.track % 2 == 1
    noise = np.where(loud, np.random.default_rng(0).normal(0, 1.2, len(truth)), 0.0)
    product = tuple("LOUD" if t % 2 else "ATL08" for t in range(len(truth.track_names)))
    returns = replace(truth, height=truth.height + noise, sigma=np.full(len(truth), 0.2), product=product)
    scene = prepare(surface(hills), returns, None)
    weighed = weighed_by_product(scene, *scene.fit(SHIFT, (0.0, 0.0))).returns
    assert 4.0 < np.median(weighed.sigma[loud]) / np.median(weighed.sigma[~loud]) < 9.0
    alone = replace(returns, product=("ATL08",) * len(product))
    scene = prepare(surface(hills), alone, None)
    assert np.array_equal(weighed_by_product(scene, *scene.fit(SHIFT, (0.0, 0.0))).returns.sigma, returns.sigma)
