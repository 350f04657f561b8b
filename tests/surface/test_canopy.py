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


def test_canopy_height__unmatched_cells_are_as_high_as_what_is_around() -> None:
    dsm = np.full((60, 60), 12.0)
    dsm[:, 40:] = 0.0
    unmatched = np.zeros(dsm.shape, bool)
    unmatched[10:20, 10:20] = unmatched[10:20, 35:45] = unmatched[40:50, 50:58] = True
    dsm[unmatched] = 0.0
    chm = canopy_height(raster(dsm), raster(np.zeros(dsm.shape)), unmatched).values
    np.testing.assert_allclose(chm[10:20, 10:20], 12.0, rtol=1e-5)
    assert chm[14, 35] > 10 > 6.5 > chm[14, 40] > chm[14, 44]
    assert chm[40:50, 50:58].max() < 0.01
    np.testing.assert_array_equal(chm[22:33], dsm[22:33])


def test_canopy_height__rims_of_a_canopy_are_means_over_the_doubt_of_their_place() -> None:
    dsm = np.zeros((40, 60))
    dsm[:, 20:] = 10.0
    canopy = np.zeros(dsm.shape, bool)
    canopy[:20] = True
    chm = canopy_height(raster(dsm), raster(np.zeros(dsm.shape)), None, canopy).values
    # a step seen through a Gaussian of 0.7 cells: 10 times its distribution at half a cell
    np.testing.assert_allclose(chm[10, [19, 20]], [2.4, 7.6], atol=0.3)
    np.testing.assert_array_equal(chm[10, [17, 22]], [0, 10])
    np.testing.assert_array_equal(chm[30], dsm[30])


def test_canopy_height__other_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="grids"):
        canopy_height(raster(np.zeros((5, 5))), raster(np.zeros((5, 6))))
