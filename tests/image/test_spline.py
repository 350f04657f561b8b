"""Spline interpolation: against another implementation, its derivatives, and pixels without a value."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from terrain3d.image.cubic import cubic
from terrain3d.image.spline import REACH_PX, coefficients, spline

IMAGE = np.random.default_rng(3).uniform(200, 900, (60, 70)).astype(np.float32)
PLACES = np.random.default_rng(4).uniform(12, 45, (200, 2))


def test_spline__as_scipy():
    inner = coefficients(IMAGE)
    ours = [spline(inner, y, x)[0] for y, x in PLACES]
    assert np.abs(ours - map_coordinates(IMAGE.astype(float), PLACES.T, order=3)).max() < 0.5  # of 700


def test_spline__passes_through_the_pixels():
    inner = coefficients(IMAGE)
    values = [[spline(inner, i, j)[0] for j in range(2, 60)] for i in range(2, 50)]
    assert np.abs(values - IMAGE[2:50, 2:60]).max() < 0.5


def test_spline__derivatives():
    inner, step = coefficients(IMAGE), 1e-4
    for y, x in PLACES[:20]:
        _, by_y, by_x = spline(inner, y, x)
        assert by_y == pytest.approx((spline(inner, y + step, x)[0] - spline(inner, y - step, x)[0]) / 2e-4, abs=0.5)
        assert by_x == pytest.approx((spline(inner, y, x + step)[0] - spline(inner, y, x - step)[0]) / 2e-4, abs=0.5)


def test_spline__keeps_finer_detail_than_convolution():
    wave = lambda x: np.cos(0.6 * np.pi * x)  # noqa: E731  a wave of 3.3 px
    image = np.tile(wave(np.arange(64.0)), (16, 1)).astype(np.float32)
    inner = coefficients(image)
    at = np.linspace(20, 40, 101)
    rms = [
        np.sqrt(np.mean([(f(i, 8.5, x)[0] - wave(x)) ** 2 for x in at])) for f, i in ((spline, inner), (cubic, image))
    ]
    assert rms[0] < 0.5 * rms[1]


def test_coefficients__same_in_any_window():
    r = REACH_PX
    part = coefficients(np.ascontiguousarray(IMAGE[10:50, 15:60]))
    assert np.array_equal(part[r:-r, r:-r], coefficients(IMAGE)[10 + r : 50 - r, 15 + r : 60 - r])


def test_coefficients__pixels_without_value_stay_alone():
    image = IMAGE.copy()
    image[20:24, 30:33] = np.nan
    inner = coefficients(image)
    assert np.array_equal(np.isnan(inner), np.isnan(image))
    level = np.where(np.isnan(image), np.float32(np.nan), np.float32(500))
    assert np.nanmax(np.abs(coefficients(level) - 500)) < 1e-2


def test_coefficients__border_goes_on():
    assert np.abs(coefficients(np.full((9, 4), 7.0, np.float32)) - 7).max() < 1e-4
