from __future__ import annotations

import numpy as np
import pytest

from terrain3d.landform.volumes import ErrorModel, PartialVolume, partial_volume, volume

ALL = np.s_[0:60, 0:60]


def test_volume__of_a_box_and_a_pit() -> None:
    rise = np.zeros((60, 60), np.float32)
    rise[10:20, 10:30], rise[40:50, 40:44] = 2.0, -1.5
    rise[0, :10] = np.nan
    one = np.ones_like(rise)
    found = volume(partial_volume(rise, 0.1 * one, one, ALL, 0.5, ErrorModel()), ErrorModel())
    assert found.fill == pytest.approx(10 * 20 * 0.25 * 2) and found.cut == pytest.approx(10 * 4 * 0.25 * 1.5)
    assert found.net == pytest.approx(found.fill - found.cut)
    assert found.area == pytest.approx(900 - 2.5) and found.without == pytest.approx(2.5)


def test_sigma__is_that_of_correlated_errors() -> None:
    """Against the scatter of the volume over many draws of a field with the model's correlation."""
    model, n, resolution = ErrorModel(long_range=8.0, long_share=0.3), 256, 0.5
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:n, 0:n]
    d = np.hypot(np.minimum(x, n - x), np.minimum(y, n - y)) * resolution
    spectrum = np.fft.fft2(0.7 * np.exp(-d / model.short_range) + 0.3 * np.exp(-d / model.long_range)).real
    amplitude = np.sqrt(np.maximum(spectrum, 0))
    sigma = (0.2 + 0.2 * (x[:60, :60] > 30)).astype(np.float32)
    sums = []
    for _ in range(200):
        field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * amplitude).real
        sums += [(field[i : i + 60, j : j + 60] * sigma).sum() * resolution**2 for i in (0, 128) for j in (0, 128)]
    one = np.ones((60, 60), np.float32)
    found = volume(partial_volume(0 * one + 1, sigma, one, ALL, resolution, model), model)
    assert found.net_sigma == pytest.approx(np.std(sums), rel=0.1)
    independent = float(np.sqrt((sigma**2).sum()) * resolution**2)
    assert found.net_sigma > 5 * independent  # what a division by the root of the number of cells would claim


def test_sigma__does_not_depend_on_the_parts() -> None:
    rng = np.random.default_rng(1)
    rise, sigma = rng.normal(0, 1, (60, 60)).astype(np.float32), rng.uniform(0.1, 0.5, (60, 60)).astype(np.float32)
    weight, model = (rng.random((60, 60)) > 0.2).astype(np.float32), ErrorModel(common=0.05, long_range=5.0)
    whole = volume(partial_volume(rise, sigma, weight, ALL, 0.5, model), model)
    total = PartialVolume()
    for rows in (slice(0, 25), slice(25, 60)):
        total += partial_volume(rise, sigma, weight, (rows, slice(0, 60)), 0.5, model)
    for name in ("net", "net_sigma", "cut_sigma", "fill_sigma", "area"):
        assert getattr(volume(total, model), name) == pytest.approx(getattr(whole, name), rel=1e-4), name


def test_sigma__what_is_common_grows_with_the_area() -> None:
    one, model = np.ones((60, 60), np.float32), ErrorModel(common=0.1)
    found = volume(partial_volume(one, 0.1 * one, one, ALL, 0.5, model), model)
    assert found.net_sigma == pytest.approx(0.1 * 900, rel=1e-5)


def test_sigma__unknown_stays_unknown() -> None:
    one = np.ones((60, 60), np.float32)
    found = volume(partial_volume(one, None, one, ALL, 0.5, ErrorModel()), ErrorModel())
    assert np.isnan(found.net_sigma) and found.fill == pytest.approx(900)
