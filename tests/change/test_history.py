from __future__ import annotations

import numpy as np
import pytest

from terrain3d.change.history import change_dates, rate


def test_change_dates__first_last_and_number():
    steps = np.array([[[0, 1, 1, 0]], [[0, 0, 1, 0]], [[0, 0, 1, 1]]], bool)
    found = change_dates(steps)
    assert found.first.tolist() == [[0, 2, 2, 4]]
    assert found.last.tolist() == [[0, 2, 4, 4]]
    assert found.count.tolist() == [[0, 1, 3, 1]]


def test_rate__of_a_sinking_place_and_its_sigma():
    rng = np.random.default_rng(1)
    times = np.array([0.0, 1.0, 2.5, 4.0])
    noise = 0.1 * rng.standard_normal((4, 200, 200))
    heights = (100 - 0.25 * times[:, None, None] + noise).astype(np.float32)
    sigma = np.full(heights.shape, 0.1, np.float32)
    slope, own = rate(heights, sigma, times)
    assert slope.mean() == pytest.approx(-0.25, abs=0.005)
    assert own.min() == pytest.approx(0.1 / np.sqrt(((times - times.mean()) ** 2).sum()), rel=1e-4)
    assert 0.6 < np.mean(np.abs(slope + 0.25) < own) < 0.85


def test_rate__needs_two_times():
    heights = np.full((3, 1, 2), np.nan, np.float32)
    heights[0], heights[2, 0, 1] = 5.0, 6.0
    slope, own = rate(heights, np.ones_like(heights), np.array([0.0, 1.0, 2.0]))
    assert np.isnan(slope[0, 0]) and np.isnan(own[0, 0])
    assert slope[0, 1] == pytest.approx(0.5) and own[0, 1] == pytest.approx(1 / np.sqrt(2))
