"""Census transform (Zabih & Woodfill 1994): each pixel becomes a word of comparisons among its neighbours.

It is blind to gain and offset between dates, which is what makes it fit satellite pairs.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

# Every pixel of a 5 x 5 window against its centre, and eight pairs that lie opposite each other: 32 bits, each a
# comparison of two offsets (row, column). A wider window bridges the gaps between crowns and houses.
_AGAINST_CENTRE = [(dy, dx, 0, 0) for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)]
_OPPOSITE = [(r * dy, r * dx, -r * dy, -r * dx) for r in (1, 2) for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1))]
_OFFSETS = np.array(_AGAINST_CENTRE + _OPPOSITE, dtype=np.int64)
CENSUS_BITS = len(_OFFSETS)
CENSUS_RADIUS = 2
INVALID = np.uint32(0xAAAAAAAA)  # half of the bits set: about the same cost against every word


def census(image: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Census words of a (h, w) image; INVALID without a whole window. The border repeats the edge pixels.

    Comparisons with NaN would all come out the same, so pixels beside the rim of one image would match those beside the
    rim of the other, wherever they are.
    """
    padded = np.pad(np.ascontiguousarray(image, np.float32), CENSUS_RADIUS, mode="edge")
    out = np.empty(image.shape, np.uint32)
    _census(padded, _OFFSETS, out)
    out[~whole_windows(image)] = INVALID
    return out


def whole_windows(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels of a (h, w) image whose census window holds no NaN."""
    window = np.ones((2 * CENSUS_RADIUS + 1,) * 2, np.uint8)
    return cv2.dilate(np.isnan(image).astype(np.uint8), window) == 0


@njit(cache=True, nogil=True)
def _census(padded: NDArray[np.float32], offsets: NDArray[np.int64], out: NDArray[np.uint32]) -> None:
    height, width = out.shape
    for y in range(height):
        row = out[y]
        row[:] = 0
        for k in range(offsets.shape[0]):
            dy, dx, ey, ex = offsets[k]
            a = padded[y + 2 + dy, 2 + dx : 2 + dx + width]
            b = padded[y + 2 + ey, 2 + ex : 2 + ex + width]
            bit = np.uint32(1 << k)
            for x in range(width):
                row[x] |= bit if a[x] > b[x] else np.uint32(0)
