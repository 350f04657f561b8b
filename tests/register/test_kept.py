"""A registration that stays while new lidar agrees with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.register.heights import SmoothCorrection
from terrain3d.register.kept import Registered, difference, kept
from terrain3d.register.registration import Registration
from terrain3d.register.validate import RegistrationReport

GRID = Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 1.0, 1000, 1000)
NODES = Grid(GRID.reference, 300_000.0, 4_000_000.0, 500.0, 2, 2)
REPORT = RegistrationReport(
    0, 0, 0, (), (0.0,) * 3, (0.0,) * 3, (0.0, 0.0), (), None, None, 1.0, None, (), ""
)  # fmt: skip


def returns(*heights: float, name: str = "a.h5/gt1l") -> LidarReturns:
    n = len(heights)
    z, nan = np.array(heights), np.full(n, np.nan)
    return LidarReturns(
        z / 1e3, z / 1e3, z, nan + 0.1, nan + 12, nan + 12, nan, nan, np.zeros(n, np.int32), (name,), ("ATL08",)
    )


def registered(rows: LidarReturns, dx: float = 0.0, dz: float = 0.0, sigma: float = 0.1, applied: bool = True,
               east: float = 0.0) -> Registered:  # fmt: skip
    """Horizontal sigma ten times the vertical one; places at ``east``."""
    covariance = np.diag([100.0, 100.0, 1.0, 1e-9, 1e-9]) * sigma**2
    smooth = SmoothCorrection(None, Raster(np.full((2, 2), sigma), NODES)) if applied else None
    n = len(rows)
    registration = Registration(
        dx, 0.0, dz, 0.0, 0.0, (300_500.0, 3_999_500.0), covariance, smooth, applied, np.full((n, 2), east),
        np.full(n, 1.0), np.ones(n, bool), np.zeros(n), True, "", REPORT, (), (),
    )  # fmt: skip
    return Registered.of(registration, rows, ("points",), GRID)


def held(old: Registered, new: Registered) -> tuple[Registered | None, str]:
    told: list[str] = []
    return kept(old, new, told.append), " ".join(told)


def test_difference__is_largest_over_the_grid() -> None:
    old, new = registered(returns(1.0)).registration, registered(returns(1.0), dx=0.5, dz=0.02).registration
    tilted = replace(new, tilt_e=1e-4)
    found = difference(old, tilted, GRID)
    assert found.up == pytest.approx(0.02 + 500 * 1e-4) and found.sideways == 0.5
    assert found.share == pytest.approx(0.7) and found.sigma_ratio == pytest.approx(1.0)


def test_kept__new_returns_get_places_and_old_ones_keep_theirs() -> None:
    old = registered(returns(1.0, 2.0), east=7.0)
    both, text = held(old, registered(returns(5.0, 2.0, 1.0), dx=0.3, dz=0.1, east=8.0))
    assert both is not None and both.registration.move == old.registration.move
    assert both.registration.places[:, 0].tolist() == [8.0, 7.0, 7.0]
    assert both.fitted.tolist() == [False, True, True] and both.files == ("a.h5",)
    assert both.registration.used.tolist() == [False, True, True]
    assert "kept: with all lidar of now it would move by up to 0.100 m in height and 0.300 m sideways (1.00" in text
    # what came later may go again; nothing is told where nothing is new
    again, text = held(both, registered(returns(1.0, 2.0), dx=0.3, east=9.0))
    assert again is not None and again.registration.places[:, 0].tolist() == [7.0, 7.0] and not text


def test_kept__a_return_that_lies_elsewhere_is_another_one() -> None:
    rows = returns(1.0, 2.0)
    moved = replace(rows, lon_deg=rows.lon_deg + 1e-7)
    assert "lidar that it came from has changed" in held(registered(rows), registered(moved))[1]


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (registered(returns(1.0, 2.0, 3.0), dz=0.21), "it moves by up to 0.210 m in height"),
        (registered(returns(1.0, 2.0, 3.0), dx=2.1), "2.100 m sideways (2.10 of its sigma)"),
        (registered(returns(1.0, 2.0, 3.0), sigma=0.04), "sigma falls to 0.40"),
        (registered(returns(1.0, 3.0)), "lidar that it came from has changed"),
        (replace(registered(returns(1.0, 2.0)), model=("other",)), "the model that it came from has changed"),
        (registered(returns(1.0, 2.0), applied=False), "lidar no longer suffices"),
    ],
)
def test_kept__not_where_it_holds_no_more(new: Registered, why: str) -> None:
    found, text = held(registered(returns(1.0, 2.0)), new)
    assert found is None and why in text


def test_kept__one_that_was_not_applied_stays_until_lidar_suffices() -> None:
    old = registered(returns(1.0), applied=False)
    assert held(old, registered(returns(1.0, 2.0), applied=False))[0] is not None
    assert held(old, registered(returns(1.0, 2.0)))[1] == "registration anew: lidar now suffices"


def test_kept__sigma_grows_beyond_the_model_and_new_ground_may_be_better_known() -> None:
    wide = replace(GRID, width=3000)
    old = registered(returns(1.0))
    tilt = np.diag([100.0, 100.0, 1.0, 0.0, 0.0]) * 0.1**2 + np.diag([0.0, 0.0, 0.0, 0.4e-3**2, 0.0])
    old = replace(old, registration=replace(old.registration, covariance=tilt))
    nodes = NODES.bounds
    inside, outside = (
        old.registration.sigma_at(np.array([x]), np.array([3_999_500.0])) for x in (nodes[0], nodes[2] + 1000)
    )
    assert inside[0] == 0.1 and outside[0] == pytest.approx(np.hypot(0.1, 1000 * 0.4e-3))
    new = replace(registered(returns(1.0)), grid=wide)
    off = replace(
        new, registration=replace(new.registration, tilt_e=0.3e-3)
    )  # 0.6 m at the far end, 0.15 m on old ground
    assert held(old, off)[0] is not None  # although the new one is much more certain there
    steep = replace(new, registration=replace(new.registration, tilt_e=1.5e-3))
    assert held(old, steep)[0] is None
