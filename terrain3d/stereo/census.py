"""Census transform (Zabih & Woodfill 1994): each pixel becomes a word of comparisons with its neighbours.

It is blind to gain and offset between dates, which is what makes it fit satellite pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Full 5 x 5 window plus eight neighbours at distance 3: 32 bits.
_INNER = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)]
_OUTER = [(dy, dx) for dy in (-3, 0, 3) for dx in (-3, 0, 3) if (dy, dx) != (0, 0)]
_OFFSETS = np.array(_INNER + _OUTER, dtype=np.int64)
CENSUS_BITS = len(_OFFSETS)
CENSUS_RADIUS = 3
INVALID = np.uint32(0xAAAAAAAA)  # half of the bits set: about the same cost against every word


def census(image: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Census words of a (h, w) image; INVALID where the pixel itself is NaN. The border repeats the edge pixels."""
    padded = np.pad(np.ascontiguousarray(image, np.float32), CENSUS_RADIUS, mode="edge")
    out = np.empty(image.shape, np.uint32)
    _census(padded, _OFFSETS, out)
    return out


@njit(cache=True, nogil=True)
def _census(padded: NDArray[np.float32], offsets: NDArray[np.int64], out: NDArray[np.uint32]) -> None:
    height, width = out.shape
    for y in range(height):
        row = out[y]
        row[:] = 0
        centre = padded[y + 3, 3 : 3 + width]
        for k in range(offsets.shape[0]):
            other = padded[y + 3 + offsets[k, 0], 3 + offsets[k, 1] : 3 + offsets[k, 1] + width]
            bit = np.uint32(1 << k)
            for x in range(width):
                row[x] |= bit if other[x] > centre[x] else np.uint32(0)
        for x in range(width):
            if np.isnan(centre[x]):
                row[x] = INVALID
