"""Tracks that lie off all others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.register.offsets import with_offsets
from terrain3d.register.registration import register_dsm
from terrain3d.register.smooth import TRACK_SIGMA, Candidate, estimate
from tests.register.test_registration import hills, lidar, surface
from tests.register.test_smooth import NORTH, along_tracks

EXTENT = 700.0
LEVEL = [Candidate(0.05, 0.5, 100.0, NORTH, 1.0)]
CORNERS = np.array([(-300.0, -300.0), (300.0, 300.0)])


@pytest.mark.parametrize("height", [0.5, -1.0])
def test_with_offsets__one_track_off_does_not_tilt_the_rest(height: float) -> None:
    before, after = [], []
    for seed in range(4):
        observed = along_tracks(np.random.default_rng(seed), 2.0)
        off = 5 * (seed % 2)  # at either end
        wrong = replace(observed, height=observed.height + np.where(observed.track == off, height, 0.0))
        weighed, named = with_offsets(wrong, EXTENT, NORTH)
        assert [n.track for n in named] == [off]
        assert named[0].height == pytest.approx(height, abs=3 * named[0].sigma) and named[0].sigma < 0.2
        before.append(estimate(wrong, LEVEL, CORNERS).total - 2.0)
        found = estimate(weighed, LEVEL, CORNERS)
        after.append(found.total - 2.0)
        assert np.all(np.abs(after[-1]) < 4 * np.sqrt(found.variance))
    assert np.sqrt(np.mean(np.square(after))) < 0.4 * np.sqrt(np.mean(np.square(before)))


def test_with_offsets__usual_tracks_stay_as_they_are() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        observed = along_tracks(rng)
        tilt = rng.normal(0, (0.12e-3, 0.45e-3))
        height = observed.height + tilt[0] * observed.east + tilt[1] * observed.north
        height = height + rng.normal(0, TRACK_SIGMA, 6)[observed.track]
        weighed, named = with_offsets(replace(observed, height=height), EXTENT, NORTH)
        assert not named and np.all(weighed.offset < 2.5 * TRACK_SIGMA)


def test_with_offsets__of_two_tracks_none_is_known_to_be_off() -> None:
    observed = along_tracks(np.random.default_rng(0))
    rows = observed.track < 2
    two = replace(observed, **{n: getattr(observed, n)[rows] for n in observed.__dataclass_fields__})
    weighed, named = with_offsets(replace(two, height=two.height + two.track), EXTENT, NORTH)
    assert not named and np.array_equal(weighed.offset, two.offset)


def test_with_offsets__a_displaced_beam_is_not_named() -> None:
    """On a slope a track may lie off for its place alone."""
    observed = along_tracks(np.random.default_rng(1))
    last = observed.track == 5
    slope = np.where(last, 0.3 * 5.0, 0.0)[:, None] * (1.0, 0.0)
    wrong = replace(observed, height=observed.height + 1.5 * last, slope=slope)
    assert not with_offsets(wrong, EXTENT, NORTH)[1]
    assert [o.track for o in with_offsets(replace(wrong, slope=0 * slope), EXTENT, NORTH)[1]] == [5]


def test_register__a_track_that_is_off_is_named_and_counts_little() -> None:
    returns = lidar(hills)
    wrong = replace(returns, height=returns.height + np.where(returns.track == 5, 0.5, 0.0))
    model = surface(hills, (0.5, 0.3, 2.0), 2.0)
    good, result = register_dsm(model, returns), register_dsm(model, wrong)
    assert not any("counts little" in n for n in good.notes)
    assert [n for n in result.notes if n.startswith("g.h5/t5 lies 0.") and "above the other tracks" in n]
    west, south, east, north = model.grid.bounds
    at = np.array([west, west, east, east]), np.array([south, north, south, north])
    assert np.abs(result.vertical_at(*at) - good.vertical_at(*at)).max() < 0.06
