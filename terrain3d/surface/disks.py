"""Round windows for morphology, in cells."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def disk(radius: float) -> NDArray[np.uint8]:
    """Cells whose centres lie within ``radius`` cells, rounded and at least 1, of the middle: (2 r + 1, 2 r + 1)."""
    r = max(round(radius), 1)
    q = np.arange(-r, r + 1)
    return (q[:, None] ** 2 + q**2 <= r**2).astype(np.uint8)


def full_disk(radius: float) -> NDArray[np.uint8]:
    """The same with each row out to the nearest cell, not the last whole one: a third wider at a radius of 2 cells, a
    few per cent at 10 and more."""
    r = max(round(radius), 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)).astype(np.uint8)
