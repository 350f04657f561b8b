"""Noise taken out of an image before its pixels are compared, where it drowns the texture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]

DETAIL_PX = 0.8  # deviation of the Gaussian that parts fine detail from the rest
NOISE_IN_DETAIL = 0.63  # share of the power of white noise that is detail: 1 - 2 G(0) + sum of G^2
# The quietest windows have 0.6 of the noise by chance, and splines leave 1.3 times as much of its detail as of what is
# finest: 2.1 would be all of it, less spares texture that is taken for noise.
MARGIN = 1.3
WINDOW_PX = 7
POWER_PX = 21  # for the power of detail: crowns stand amid rich texture
STAYS_PX = 27  # so wide around a pixel without a value or without noise is what a pixel takes into account
EQUAL = np.float32(4e-6)  # relative difference that resampling makes of equal values by rounding
QUIET_PERCENT = 10  # of the windows: what noise is measured in
SAMPLE = 3  # every third row and column is enough for it
# Product of the second differences of both directions, of unit power: optics let nothing of a scene pass so fine.
_FINEST = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def denoised(image: Singles) -> tuple[Singles, float]:
    """Image (h, w; NaN for no value, which stays) with its fine detail shrunk where noise drowns it, and a cautious
    variance of that noise.

    Detail loses the square of the noise's share of its local power, which spares rich texture more than a Wiener filter
    does (the share itself; Lee 1980). Noise is measured where the image is quiet, by what is too fine for the sensor's
    optics (Immerkaer 1996). Faint texture is then compared by more than single noisy pixels. Around pixels without a
    value, and where the sensor is saturated, all stays as it is: what is made even there would look alike in two
    images, wherever their ground is.
    """
    empty = np.isnan(image)
    filled = np.where(empty, np.float32(0), image)
    stays = _around(empty | _flat(filled), STAYS_PX)
    finest = _mean_square(cv2.filter2D(filled, -1, _FINEST), WINDOW_PX)[::SAMPLE, ::SAMPLE][~stays[::SAMPLE, ::SAMPLE]]
    if finest.size == 0:
        return image, 0.0
    noise = MARGIN * float(np.percentile(finest, QUIET_PERCENT))
    coarse = cv2.GaussianBlur(filled, (0, 0), DETAIL_PX)
    detail = filled - coarse
    share = np.float32(NOISE_IN_DETAIL * noise) / np.maximum(_mean_square(detail, POWER_PX), np.float32(1e-6))
    return np.where(stays, image, filled - np.minimum(share * share, np.float32(1)) * detail), noise


def _flat(image: Singles) -> NDArray[np.bool_]:
    """Pixels that equal all of their neighbours: at the limit of the sensor, where there is no noise."""
    kernel = np.ones((3, 3), np.uint8)
    high = cv2.dilate(image, kernel)
    return np.asarray(high - cv2.erode(image, kernel) <= EQUAL * np.abs(high))


def _around(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(mask.view(np.uint8), np.ones((width, width), np.uint8)).view(bool))


def _mean_square(values: Singles, width: int) -> Singles:
    return np.asarray(cv2.blur(values * values, (width, width)), np.float32)
