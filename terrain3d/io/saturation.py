"""Upper limits of images at which light is cut off: snow, cloud and bright roofs all have one value there.

The limit is seldom that of the type of the pixels: detectors of 11 bits end at 2047, and software scales it after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 0.02  # of the pixels
STANDS_OUT = 5.0  # times the pixels of the values next below
NEXT_BELOW = 8  # values
ABOVE = 0.1  # of the pixels at the limit, that resampling may have lifted over it


@dataclass(frozen=True)
class Saturation:
    """value: at which an image is cut off, in all its bands. share: of its pixels that have it or more, 0 to 1."""

    value: float
    share: float


def find_saturation(pixels: NDArray[np.float32]) -> Saturation | None:
    """The upper limit of pixels (bands, h, w; NaN for no value) at which a considerable share of them lies, if any."""
    darkest = pixels.min(axis=0)
    value, n = np.unique(darkest[np.isfinite(darkest)], return_counts=True)
    if value.size < 2:
        return None
    above = n.sum() - np.cumsum(n)
    at = int(np.where(above <= ABOVE * n, n, 0).argmax())
    below = n[max(at - NEXT_BELOW, 0) : at]
    share = float(n[at:].sum() / n.sum())
    if share < LEAST_SHARE or not below.size or n[at] < STANDS_OUT * below.mean():
        return None
    return Saturation(float(value[at]), share)
