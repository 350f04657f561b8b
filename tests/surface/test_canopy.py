from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy import canopy_height


def raster(values: np.ndarray) -> Raster:
    return Raster(values.astype(np.float32), Grid(Reference("EPSG:32654"), 0, 0, 0.5, *values.shape))


def test_canopy_height__difference_not_negative_and_void() -> None:
    dsm, dtm = np.full((20, 20), 105.0), np.full((20, 20), 100.0)
    dsm[0, 0], dsm[10:, :] = np.nan, 99.0
    chm = canopy_height(raster(dsm), raster(dtm)).values
    assert np.isnan(chm[0, 0])
    assert chm[5, 5] == 5.0
    assert (chm[10:] == 0).all()


def test_canopy_height__pits_closed_and_gaps_kept() -> None:
    dsm = np.full((60, 60), 15.0)
    dsm[20:22, 20:22] = 4.0  # 1 m
    dsm[40:50, 40:50] = 0.0  # 5 m
    chm = canopy_height(raster(dsm), raster(np.zeros((60, 60)))).values
    assert chm[20:22, 20:22].min() == 15.0
    assert (chm[41:49, 41:49] == 0).all()


def test_canopy_height__other_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="grids"):
        canopy_height(raster(np.zeros((5, 5))), raster(np.zeros((5, 6))))
