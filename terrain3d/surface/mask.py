"""Codes of ``mask.tif``: why a cell of the surface model is what it is."""

from __future__ import annotations

from enum import IntEnum


class MaskCode(IntEnum):
    """One byte a cell. NODATA is also the file's declared nodata value.

    MEASURED: matched in at least one stereo pair. FILLED: interpolated from its surroundings (``voids``) and put on the
    terrain (``filled``) where nothing was matched, or where what was hangs over the ground beside it (``rims``).
    WATER: levelled as water (``water``), whatever was matched there. REFERENCE: a large void, from the given DEM.
    """

    NODATA = 0
    MEASURED = 1
    FILLED = 2
    WATER = 3
    REFERENCE = 4
