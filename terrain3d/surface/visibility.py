"""Which cells of a surface a sensor sees: parallel rays over a height raster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def visible(heights: Singles, resolution: float, lean: tuple[float, float], tolerance: float = 1.0) -> Bools:
    """Cells that are not hidden behind higher ones, (h, w); False where there is no height.

    heights: (h, w) float32 metres, north up. lean: how far (east, north) relief is displaced per metre of height:
    a tall point leans away from the sensor. tolerance: metres by which a cell may stay under the sight line, for noise
    and blurred walls. One sweep in the direction of the lean carries the horizon along, linear in the number of cells.
    """
    east, north = lean
    tangent = float(np.hypot(east, north))
    if tangent < 1e-6:
        return np.isfinite(heights)
    # towards the sensor, in columns and rows, one cell along the longer axis
    longer = max(abs(east), abs(north))
    columns, rows = -east / longer, north / longer
    rise = resolution * float(np.hypot(columns, rows)) / tangent
    z = np.where(np.isfinite(heights), heights, np.float32(-1e9)).astype(np.float32)
    if abs(columns) >= abs(rows):
        # the sweep runs down the rows: turn the raster so that its columns are rows
        horizon = _horizon(np.ascontiguousarray(z.T), 1 if columns > 0 else -1, rows, rise).T
    else:
        horizon = _horizon(z, 1 if rows > 0 else -1, columns, rise)
    return np.isfinite(heights) & (z + np.float32(tolerance) >= horizon)


@njit(**_JIT)
def _horizon(z: Singles, step: int, slant: float, rise: float) -> Singles:
    """Height under which a cell is hidden. The sensor is ``step`` rows and ``slant`` columns away."""
    h, w = z.shape
    out = np.full((h, w), np.float32(-1e9))
    shift = int(np.floor(slant))
    part = slant - shift
    for k in range(1, h):
        i = h - 1 - k if step > 0 else k
        p = i + step
        for j in range(w):
            a = j + shift
            b = a + 1
            inside_a, inside_b = 0 <= a < w, 0 <= b < w
            if inside_a and inside_b:
                left, right = max(z[p, a], out[p, a]), max(z[p, b], out[p, b])
                out[i, j] = left * (1 - part) + right * part - rise
            elif inside_a:
                out[i, j] = max(z[p, a], out[p, a]) - rise
            elif inside_b:
                out[i, j] = max(z[p, b], out[p, b]) - rise
    return out
