"""Collars of images that their files do not declare: one value from a corner on that no light has.

Providers fill what surrounds a scene with 0 and say so. Software after them may fill it with white, or with a number
far from all others, and keep silent; its rim then matches the rim of the next image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window
from scipy.ndimage import label

CORNER, SIDE = 4, 512  # px: of the corners that are looked at first, of the overview
LEAST_SHARE = 0.01  # of the image, in one piece with a corner
RARE = 1e-3  # of the pixels elsewhere, up to which a value between the others may fill a collar


def find_collar(file: Any, bands: Sequence[int]) -> float | None:
    """The value (not 0) of the collar of an open file, alike in all bands; None if there is none.

    It fills a part of the image from a corner on, every pixel of it, and is the highest value (white), lies below all
    others by more than these are apart, or lies between them and hardly occurs elsewhere. The lowest value is left:
    water may be that dark.
    """
    corners = {v for v in (_corner(file, bands, i) for i in range(4)) if v}
    if not corners:
        return None
    step = max(max(file.height, file.width) / SIDE, 1.0)
    shape = int(file.height / step) or 1, int(file.width / step) or 1
    values = file.read(list(bands), out_shape=(len(bands), *shape), resampling=Resampling.nearest)
    return next((v for v in sorted(corners) if _fills(values, v)), None)


def _corner(file: Any, bands: Sequence[int], corner: int) -> float | None:
    """The one value of a corner in all bands; None if there are more, or it is not finite."""
    height, width = min(CORNER, file.height), min(CORNER, file.width)
    row, column = (corner // 2) * (file.height - height), (corner % 2) * (file.width - width)
    values = file.read(list(bands), window=Window(column, row, width, height))
    first = values.flat[0]
    return float(first) if np.isfinite(first) and (values == first).all() else None


def _fills(values: NDArray[Any], value: float) -> bool:
    """Whether a value fills pixels (bands, rows, columns) from a corner on as only a collar does."""
    alike = (values == values.dtype.type(value)).all(axis=0)
    pieces, _ = label(alike)
    ends = {int(pieces[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
    collar = np.isin(pieces, list(ends))
    others = values[:, ~alike]
    others = others[np.isfinite(others) & (others != 0)].astype(float)
    if collar.mean() < LEAST_SHARE or not others.size:
        return False
    low, high = float(others.min()), float(others.max())
    if value > high:
        return True
    if value < low:
        return low - value > high - low
    return bool((alike & ~collar).sum() < RARE * (~collar).sum())
