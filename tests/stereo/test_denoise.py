"""Noise is taken out where it drowns the texture, and nothing else is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.stereo import denoise

NOISE = 12.0


def denoised(image: np.ndarray) -> np.ndarray:
    return denoise.denoised(image)[0]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Radiance through optics: faint texture (5) on the left, rich (150) on the right, a step of 600 in the middle."""
    rng = np.random.default_rng(5)
    texture = cv2.GaussianBlur(rng.standard_normal((160, 320)).astype(np.float32), (0, 0), 1.2)
    texture /= texture.std()
    out = 1000 + np.where(np.arange(320) < 160, 5, 150) * texture + np.where(np.arange(320) < 160, 0, 600)
    return np.asarray(cv2.GaussianBlur(out.astype(np.float32), (0, 0), 0.7), np.float32)


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def test_denoised__faint_texture_gains_and_rich_texture_and_edges_stay(scene: np.ndarray) -> None:
    noise = NOISE * np.random.default_rng(6).standard_normal(scene.shape).astype(np.float32)
    error = denoised(scene + noise) - scene
    assert rms(error[8:-8, 8:140]) < 0.6 * NOISE
    assert rms(error[8:-8, 180:-8]) < 1.005 * NOISE
    assert abs(np.mean(error[8:-8, 158:162])) < 0.1 * NOISE


def test_denoised__image_without_noise_stays(scene: np.ndarray) -> None:
    change = denoised(scene) - scene
    assert rms(change[8:-8, 8:140]) < 0.001 * 5
    assert rms(change[8:-8, 180:-8]) < 0.0001 * 150


def test_denoised__gain_and_offset_do_not_matter(scene: np.ndarray) -> None:
    noisy = scene + NOISE * np.random.default_rng(7).standard_normal(scene.shape).astype(np.float32)
    assert np.allclose(denoised(3 * noisy + 50), 3 * denoised(noisy) + 50, atol=0.01)


def test_denoised__noise_is_told_from_texture(scene: np.ndarray) -> None:
    noisy = scene + NOISE * np.random.default_rng(8).standard_normal(scene.shape).astype(np.float32)
    assert denoise.denoised(noisy)[1] == pytest.approx(0.8 * NOISE**2, rel=0.1)
    assert denoise.denoised(scene)[1] < 0.01 * NOISE**2


def test_denoised__around_no_value_and_saturation_all_stays(scene: np.ndarray) -> None:
    holed = scene + NOISE * np.random.default_rng(9).standard_normal(scene.shape).astype(np.float32)
    whole = denoised(holed)
    holed[40:60, 30:90] = np.nan
    holed[100:120, 200:240] = 4095
    near = np.zeros(holed.shape, bool)
    near[27:73, 17:103] = near[88:132, 188:252] = True
    out, noise = denoise.denoised(holed)
    assert np.array_equal(out[near], holed[near], equal_nan=True)
    assert rms((out - whole)[~near]) < 0.1 * NOISE
    assert np.isfinite(out[~near]).all() and noise == pytest.approx(0.8 * NOISE**2, rel=0.1)


def test_denoised__nothing_to_do() -> None:
    for value in (np.nan, 7.0):
        even = np.full((20, 20), value, np.float32)
        out, noise = denoise.denoised(even)
        assert np.array_equal(out, even, equal_nan=True) and noise == 0
