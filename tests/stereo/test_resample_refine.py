"""Resampling through a lattice, and least-squares matching to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.rpc import RpcModel
from terrain3d.image.cubic import keys
from terrain3d.image.spline import row_coefficients
from terrain3d.image.view import View
from terrain3d.io.images import open_image
from terrain3d.io.saturation import Saturation
from terrain3d.stereo.epipolar import NODE_PX
from terrain3d.stereo.refine import refine, smooth_between_edges, warp_row
from terrain3d.stereo.resample import resample

ONES = (1.0, *(0.0,) * 19)
RPC = RpcModel(ONES, ONES, ONES, ONES, *(0.0, 1.0) * 5)
Singles = NDArray[np.float32]


def view_of(path: Path, image: NDArray[np.float64]) -> View:
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": image.shape[0], "width": image.shape[1]}
    with rasterio.open(path, "w", **profile) as file:
        file.write(image.astype(np.float32), 1)
    return View(path.stem, replace(open_image(path), gain=1.0), Camera(RPC))


def lattice(line: float, sample: float, height: int, width: int, step: float = 1.0) -> NDArray[np.float64]:
    """Positions of nodes whose pixel (0, 0) lies at (line, sample)."""
    rows, columns = -(-height // NODE_PX) + 2, -(-width // NODE_PX) + 2
    y, x = np.mgrid[:rows, :columns] * NODE_PX * step
    return np.stack([y + line, x + sample], axis=-1)


def ramp(height: int = 120, width: int = 140) -> NDArray[np.float64]:
    y, x = np.mgrid[:height, :width].astype(float)
    return 100 + 3 * y + 7 * x


def test_resample__ramp_is_exact_between_pixels(tmp_path: Path) -> None:
    view = view_of(tmp_path / "ramp.tif", ramp())
    for line, sample in ((10.0, 20.0), (10.5, 20.5), (10.25, 20.9)):
        out = resample(view, lattice(line, sample, 50, 60), 50, 60)
        y, x = np.mgrid[:50, :60]
        np.testing.assert_allclose(out, 100 + 3 * (y + line) + 7 * (x + sample), rtol=1e-5)


def test_resample__nothing_deep_in_what_is_saturated(tmp_path: Path) -> None:
    """Nothing is read where no texture is near; glints stay, and so do rims."""
    cut = ramp()
    cut[30:60, 40:90] = cut[80:85, 20:25] = 5000
    plain = view_of(tmp_path / "cut.tif", cut)
    view = replace(plain, image=replace(plain.image, saturation=Saturation(5000.0, 0.1)))
    whole, left = (resample(v, lattice(8, 8, 96, 112), 96, 112) for v in (plain, view))
    lost = np.isnan(left)
    assert np.isfinite(whole).all() and np.array_equal(left[~lost], whole[~lost])
    sees = cv2.dilate(lost.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # census windows that are not whole
    assert sees[22 + 8 : 52 - 8, 32 + 8 : 82 - 8].all() and sees.sum() <= (30 - 8) * (50 - 8)


def test_resample__shift_reads_further_left(tmp_path: Path) -> None:
    view = view_of(tmp_path / "ramp.tif", ramp())
    shift = np.full((50, 60), 4.5, np.float32)
    out = resample(view, lattice(10, 20, 50, 60), 50, 60, shift=shift)
    y, x = np.mgrid[:50, :60]
    np.testing.assert_allclose(out, 100 + 3 * (y + 10) + 7 * (x + 20 - 4.5), rtol=1e-5)


def test_resample__reduction_averages_around_the_same_place(tmp_path: Path) -> None:
    view = view_of(tmp_path / "ramp.tif", ramp(400, 400))
    out = resample(view, lattice(80, 120, 40, 40, step=4.0), 40, 40, reduction=4)
    y, x = np.mgrid[:40, :40] * 4
    expected = 100 + 3 * (y + 80) + 7 * (x + 120)
    np.testing.assert_allclose(out[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-5)


def test_resample__nothing_from_outside_or_from_nan(tmp_path: Path) -> None:
    image = ramp()
    image[60, 70] = np.nan
    view = view_of(tmp_path / "hole.tif", image)
    out = resample(view, lattice(-10, -10, 150, 170), 150, 170)
    assert np.isnan(out[:10]).all() and np.isnan(out[:, :10]).all()
    assert np.isnan(out[70, 80]) and np.isfinite(out[20:60, 20:60]).all()
    hole = np.argwhere(np.isnan(out[15:125, 15:145])) + 15
    assert np.abs(hole - [70, 80]).max() <= 2  # the kernel's reach and no further
    assert np.isnan(resample(view, lattice(5000, 5000, 40, 40), 40, 40)).all()
    assert np.isnan(resample(view, np.full((4, 4, 2), np.nan), 40, 40)).all()


def test_keys__weights_sum_to_one_and_interpolate() -> None:
    for t in (0.0, 0.3, 0.5, 0.99):
        weights = np.array(keys(t))
        assert weights.sum() == pytest.approx(1.0)
        assert weights @ [-1, 0, 1, 2] == pytest.approx(t)
    assert keys(0.0) == (0.0, 1.0, 0.0, 0.0)


def textured(height: int, width: int, right_shift: float, seed: int = 0) -> tuple[Singles, Singles]:
    """Left and right of one texture that is moved by ``right_shift`` px to the left in the right image, exactly."""
    rng = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.2)
    spectrum = np.fft.fft(fine, axis=1)
    moved = np.fft.ifft(spectrum * np.exp(2j * np.pi * np.fft.fftfreq(width) * right_shift), axis=1).real
    return (500 + 300 * fine).astype(np.float32), (500 + 300 * moved).astype(np.float32)


@pytest.mark.parametrize("fraction", [-0.4, -0.2, 0.0, 0.25, 0.45])
def test_refine__finds_the_fraction_with_its_sign(fraction: float) -> None:
    left, right = textured(80, 200, 9 + fraction)
    found = refine(left, right, np.full(left.shape, 9.0, np.float32)).disparity[10:-10, 20:-20]
    assert abs(np.median(found) - (9 + fraction)) < 0.03
    assert np.abs(found - (9 + fraction)).std() < 0.03


def test_refine__blind_to_gain_and_offset() -> None:
    left, right = textured(80, 200, 9.3)
    found = refine(left, 2.2 * right + 400, np.full(left.shape, 9.0, np.float32)).disparity[10:-10, 20:-20]
    assert abs(np.median(found) - 9.3) < 0.03


def test_refine__sigma_grows_with_noise_and_tells_the_truth() -> None:
    rng, sigmas = np.random.default_rng(5), []
    left, right = textured(120, 240, 7.3)
    for noise in (5.0, 20.0):
        a, b = (i + rng.normal(0, noise, i.shape).astype(np.float32) for i in (left, right))
        found = refine(a, b, np.full(left.shape, 7.0, np.float32))
        inner = (slice(10, -10), slice(20, -20))
        error, sigma = found.disparity[inner].std(), np.median(found.sigma_px[inner])
        assert 0.4 < sigma / error < 3.0
        sigmas.append(sigma)
    assert sigmas[1] > 2 * sigmas[0]


def test_refine__nan_stays_and_does_not_spread() -> None:
    left, right = textured(60, 160, 5.2)
    start = np.full(left.shape, 5.0, np.float32)
    start[20:25, 60:70] = np.nan
    found = refine(left, right, start)
    np.testing.assert_array_equal(np.isnan(found.disparity[5:-5, 12:-12]), np.isnan(start[5:-5, 12:-12]))
    around = found.disparity[15:30, 50:80]
    assert np.nanmax(np.abs(around - 5.2)) < 0.15


def test_refine__flat_windows_stay_where_they_are() -> None:
    flat = np.full((40, 100), 600.0, np.float32)
    found = refine(flat, flat, np.full(flat.shape, 3.0, np.float32)).disparity[8:-8, 12:-12]
    np.testing.assert_allclose(found, 3.0, atol=1e-3)


def test_warp_row__value_and_slope_of_a_ramp() -> None:
    right = np.tile(np.arange(50, dtype=np.float32) * 2 + 1, (3, 1))
    value, slope = warp_row(row_coefficients(right), np.full((3, 50), 4.25, np.float32))
    x = np.arange(50)
    inside = (x - 4.25 >= 1) & (x - 4.25 < 48)
    far = slice(12, 46)  # from where the filter meets the border
    np.testing.assert_allclose(value[1, far], 2 * (x[far] - 4.25) + 1, rtol=1e-5)
    np.testing.assert_allclose(slope[1, far], 2.0, rtol=1e-4)
    assert np.isfinite(value[:, inside]).all()
    assert np.isnan(value[:, ~inside]).all()


def test_smooth_between_edges__edges_stay_edges() -> None:
    d = np.where(np.arange(40) < 20, 3.0, 9.0) + np.random.default_rng(1).normal(0, 0.1, (30, 40))
    d = d.astype(np.float32)
    d[5, 5] = np.nan
    out = smooth_between_edges(d)
    assert np.isnan(out[5, 5]) and np.isnan(out).sum() == 1
    left, right = out[:, :20], out[:, 20:]
    assert np.nanmax(left) < 3.3 and np.nanmin(right) > 8.7
    assert np.nanstd(left) < 0.05
