"""Robust statistics against their formulas and against a normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.stats import nmad, summarize, tukey_weights


def test_nmad__formula_and_normal_distribution() -> None:
    assert nmad([1, 2, 3, 4, 100]) == pytest.approx(1.4826 * 1.0)  # deviations from 3: 2 1 0 1 97
    sample = np.random.default_rng(1).normal(5, 2, 200_000)
    assert nmad(sample) == pytest.approx(2.0, rel=0.01)
    sample[::10] += 1000
    assert nmad(sample) < 2.5


def test_nmad__skips_what_is_not_finite() -> None:
    assert nmad([1, np.nan, 3, np.inf]) == pytest.approx(1.4826)
    assert np.isnan(nmad([])) and np.isnan(nmad([np.nan]))


def test_summarize__every_figure_by_its_formula() -> None:
    e = np.array([-2.0, -1.0, 0.0, 1.0, 7.0, np.nan])
    s = summarize(e.reshape(2, 3))
    assert (s.n, s.bias, s.mean) == (5, 0.0, 1.0)
    assert s.nmad == pytest.approx(1.4826)
    assert s.rmse == pytest.approx(np.sqrt(11.0))
    assert s.mae == pytest.approx(2.2)
    assert s.le90 == pytest.approx(np.percentile([2, 1, 0, 1, 7], 90)) == 5.0
    assert s.le95 == pytest.approx(6.0)


def test_summarize__normal_errors_have_the_ratios_of_the_standards() -> None:
    s = summarize(np.random.default_rng(2).normal(0, 1, 400_000))
    assert s.le90 == pytest.approx(1.645, rel=0.01) and s.le95 == pytest.approx(1.96, rel=0.01)
    assert s.nmad == pytest.approx(s.rmse, rel=0.01)


def test_summarize__nothing() -> None:
    s = summarize([np.nan])
    assert s.n == 0 and np.isnan([s.bias, s.mean, s.nmad, s.rmse, s.mae, s.le90, s.le95]).all()


def test_weights__full_inside_and_falling_outside() -> None:
    r = np.array([0.0, 1.0, -2.0, 4.0, 100.0])
    w = tukey_weights(r, 1.0, c=4.0)
    np.testing.assert_allclose(w, [1, (1 - 1 / 16) ** 2, (1 - 1 / 4) ** 2, 0, 0])
