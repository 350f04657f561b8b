"""Random fields with a power-law spectrum: relief, texture of ground and roofs, water."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Singles = NDArray[np.float32]


def fractal(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float,
    largest_m: float,
    smallest_m: float,
    exponent: float,
) -> Singles:
    """Gaussian field of zero mean and unit deviation whose power falls as frequency to the ``-exponent``.

    Wavelengths run from ``largest_m`` (longer ones are flat in power) to about ``smallest_m``. ``cell`` is the cell
    size in metres. The field is made as coarse as ``smallest_m`` allows and then interpolated, so relief costs little.
    """
    factor = max(1, int(smallest_m / (5.0 * cell)))
    coarse = tuple(-(-n // factor) + 4 for n in shape)
    # The spectrum is periodic: without this border the two opposite edges of the field would be alike.
    border = min(int(largest_m / (cell * factor)), max(coarse)) // 2
    padded = tuple(fft.next_fast_len(n + border, real=True) for n in coarse)
    spectrum = fft.rfft2(rng.standard_normal(padded, dtype=np.float32))
    step = cell * factor
    fy, fx = fft.fftfreq(padded[0], step), fft.rfftfreq(padded[1], step)
    squared = fy[:, None] ** 2 + fx[None, :] ** 2
    amplitude = (squared + largest_m**-2) ** (-exponent / 4) * np.exp(-0.5 * squared * smallest_m**2)
    spectrum *= amplitude.astype(np.float32)
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, padded)[: coarse[0], : coarse[1]].astype(np.float32)
    if factor > 1:
        # OpenCV's cubic kernel does not keep ramps straight, which shows as a weave on slopes; linear and a blur do.
        field = cv2.resize(field, (coarse[1] * factor, coarse[0] * factor), interpolation=cv2.INTER_LINEAR)
        field = cv2.GaussianBlur(field, (0, 0), 0.6 * factor)
        field = field[2 * factor :, 2 * factor :]
    field = field[: shape[0], : shape[1]]
    return np.ascontiguousarray((field - field.mean()) / max(float(field.std()), 1e-9), dtype=np.float32)


def hashed(*keys: NDArray[np.int64], seed: int) -> Singles:
    """Uniform numbers in [0, 1) that depend on nothing but integer keys (shapes that broadcast) and the seed."""
    mixed = np.array([(seed * 2 + 1) * 0x9E3779B97F4A7C15 % (1 << 64)], np.uint64)
    for key in keys:
        mixed = (mixed ^ key.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = mixed ^ (mixed >> np.uint64(29))
        mixed = mixed * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(32))
    return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def smoothstep(x: NDArray[np.float32], low: float, high: float) -> Singles:
    """0 below ``low``, 1 above ``high``, cubic in between."""
    t = np.clip((x - low) / max(high - low, 1e-6), 0.0, 1.0)
    return (t * t * (3.0 - 2.0 * t)).astype(np.float32)
