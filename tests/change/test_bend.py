"""Bends of one surface against another: found, taken out, and not made up."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from terrain3d.change.align import align, moved
from terrain3d.change.bend import Bend, fit_bend

CELL, SIZE = 2.0, 300  # 600 m a side


def place() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Metres from the middle to east and north, and errors of 0.1 m that are alike over some metres."""
    t = (np.arange(SIZE) + 0.5) * CELL - SIZE * CELL / 2
    east, north = np.meshgrid(t, -t)
    noise = np.random.default_rng(3).normal(0, 0.1, (SIZE // 3, SIZE // 3)).repeat(3, 0).repeat(3, 1)
    return east, north, noise


def bowl(east, north):  # type: ignore[no-untyped-def]
    return 0.8 * (east / 300) ** 2 - 0.5 * (east / 300) * (north / 300)


def jitter(east, north):  # type: ignore[no-untyped-def]
    along = east * np.sin(np.radians(12)) + north * np.cos(np.radians(12))
    return 0.4 * np.sin(2 * np.pi * along / 260)


@pytest.mark.parametrize("bend", [bowl, jitter, lambda e, n: bowl(e, n) + jitter(e, n)])
def test_fit_bend__taken_out_to_a_few_centimetres(bend):
    east, north, noise = place()
    d = bend(east, north) + noise
    d[60:130, 80:160] += 3.0  # a change of a twelfth of the scene that was not kept out
    found = fit_bend(d.astype(np.float32), np.ones(d.shape, bool), CELL)
    assert found is not None
    left = bend(east, north) - found.height_at(east[:1], north[:, :1])
    assert np.std(left[15:-15, 15:-15]) < 0.06 < 0.2 < np.std(bend(east, north))


@pytest.mark.parametrize("waves", [0.0, 0.15])
def test_fit_bend__none_where_places_left_out_do_not_confirm_it(waves):
    east, north, noise = place()
    d = noise + waves * np.sin(east / 11) * np.sin(north / 13) + 0.02
    d[:, 200:] += np.random.default_rng(1).normal(0, 0.1, (10, 100)).repeat(30, 0)
    assert fit_bend(d.astype(np.float32), np.ones(d.shape, bool), CELL) is None


def test_fit_bend__too_little_ground():
    assert fit_bend(np.zeros((60, 60), np.float32), np.ones((60, 60), bool), CELL) is None


def test_bend__from_its_figures():
    bend = Bend(300.0, ((0.1, 0.2), (0.3, 0.0)), 90.0, (0.0, 0.1, 0.2, 0.1))
    again = Bend(**asdict(bend))
    x, y = np.array([[-100.0, 500.0]]), np.array([[20.0], [-20.0]])
    assert again.height_at(x, y).shape == (2, 2)
    assert again.height_at(x, y) == pytest.approx(bend.height_at(x, y))
    plain = Bend(300.0, ((0.1, 0.2), (0.3, 0.0)))
    assert plain.height_at(np.array(150.0), np.array(-60.0)) == pytest.approx(0.1 + 0.3 * 0.5 - 0.2 * 0.2)


@pytest.mark.slow
def test_align__bent_surface_with_a_change(build, box):
    def bent(z, x, y):  # type: ignore[no-untyped-def]
        return box(6.0, east=150, north=200, width=60, depth=80)(z, x, y) + 1.0 * ((y - 200) / 200) ** 2

    before = build(1, cells=400, resolution=1.0, offset=(0.0, 200.0), sigma=0.1).dsm
    after = build(2, change=bent, shift=(1.2, -0.8, 0.5), cells=400, resolution=1.0, offset=(0.0, 200.0), sigma=0.1).dsm
    found = align(before, after)
    assert found.bend is not None
    d = moved(after, before.grid, found).values - before.values
    quiet = d[20:120, 20:380]  # north of the change
    assert abs(np.nanmedian(quiet)) < 0.05
    assert (found.east, found.north) == pytest.approx((1.2, -0.8), abs=0.15)
